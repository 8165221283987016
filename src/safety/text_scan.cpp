#include "safety/text_scan.h"

#include <map>
#include <utility>
#include <vector>

namespace hearth::safety {
namespace {

using net::Task;

static_assert(std::variant_size_v<chat::Event> == 11, "a new kind of event must not pass before somebody decided what it may say");

// Text or reasoning of one choice.
struct Voice {
  explicit Voice(Argus::Stream with) : scan(std::move(with)) {}
  Argus::Stream scan;
  std::size_t left = 0;  // bytes that the scan has let go
  bool changed = false;  // since the last signature
};

struct Choice {
  std::optional<Voice> text, reasoning;
  bool said = false;     // some text has left
  bool stopped = false;  // says no more
};

class TextScan final : public wire::EventStream {
 public:
  TextScan(std::unique_ptr<wire::EventStream> inner, const Argus& argus, TextCheck check, std::size_t hold_back,
           std::unique_ptr<TextArbiter> arbiter)
      : arbiter_(std::move(arbiter)), inner_(std::move(inner)), argus_(argus), check_(check), hold_back_(hold_back) {}

  Task<chat::Events> next() override {
    while (!cancelled_ && !ended_) {
      auto events = co_await inner_->next();
      if (cancelled_) break;
      chat::Events out;
      if (events.empty()) {
        ended_ = true;
        flush_all(out);
      }
      for (auto& event : events) take(event, out);
      if (passes()) co_return events;  // as they came: their frames are counted by them
      if (!out.empty()) co_return out;
    }
    co_return chat::Events{};
  }
  void cancel() override {
    cancelled_ = true;
    inner_->cancel();
  }
  const chat::Explanation& explanation() const override { return inner_->explanation(); }
  wire::Protocol raw_protocol() const override { return passes() ? inner_->raw_protocol() : wire::Protocol::other; }
  std::span<const wire::RawFrame> raw() const override { return passes() ? inner_->raw() : std::span<const wire::RawFrame>(); }

 private:
  bool passes() const { return check_ == TextCheck::audit; }

  // Reads one event. What may be said of it goes to `out`; where events pass as they came, `out` means nothing and `event` stays whole.
  void take(chat::Event& event, chat::Events& out) {
    if (const auto* text = std::get_if<chat::TextDelta>(&event)) {
      flush(text->choice, true, out);
      hear(text->choice, false, text->text, false, out);
    } else if (const auto* thought = std::get_if<chat::ReasoningDelta>(&event)) {
      flush(thought->choice, false, out);
      hear(thought->choice, true, thought->text, false, out);
    } else if (const auto* signature = std::get_if<chat::ReasoningSignature>(&event)) {
      flush(signature->choice, true, out);
      Choice& choice = choices_[signature->choice];
      const bool changed = choice.reasoning && std::exchange(choice.reasoning->changed, false);
      if (!changed && !choice.stopped) say(event, out);
    } else if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) {
      flush_choice(begin->choice, out);
      if (!choices_[begin->choice].stopped) say(event, out);
    } else if (const auto* delta = std::get_if<chat::ToolCallDelta>(&event)) {
      if (!choices_[delta->choice].stopped) say(event, out);
    } else if (const auto* end = std::get_if<chat::ToolCallEnd>(&event)) {
      if (!choices_[end->choice].stopped) say(event, out);
    } else if (auto* finished = std::get_if<chat::Finished>(&event)) {
      flush_choice(finished->choice, out);
      if (choices_[finished->choice].stopped && !passes())
        say(chat::Finished{finished->choice, chat::FinishReason::content_filter, {}}, out);
      else say(event, out);
    } else if (std::holds_alternative<chat::Usage>(event) || std::holds_alternative<chat::Failed>(event)) {
      flush_all(out);
      say(event, out);
    } else if (std::holds_alternative<chat::Started>(event)) {
      say(event, out);
    }
  }
  void say(chat::Event event, chat::Events& out) const {
    if (!passes()) out.push_back(std::move(event));
  }

  void flush(int number, bool reasoning, chat::Events& out) {
    const auto found = choices_.find(number);
    if (found == choices_.end()) return;
    if (reasoning ? found->second.reasoning.has_value() : found->second.text.has_value()) hear(number, reasoning, {}, true, out);
  }
  void flush_choice(int number, chat::Events& out) {
    flush(number, true, out);
    flush(number, false, out);
  }
  void flush_all(chat::Events& out) {
    for (const auto& [number, choice] : choices_) flush_choice(number, out);
  }

  // A piece of one voice, or the rest of it that is held back.
  void hear(int number, bool reasoning, std::string_view piece, bool rest, chat::Events& out) {
    Choice& choice = choices_[number];
    if (choice.stopped) return;
    try {
      auto& voice = reasoning ? choice.reasoning : choice.text;
      if (!voice) voice.emplace(Argus::Stream(argus_, hold_back_));
      std::vector<Match> matches;
      std::string leaving = rest ? voice->scan.finish(false, matches) : voice->scan.push(piece, false, matches);
      const std::size_t begun = std::exchange(voice->left, voice->left + leaving.size());
      std::optional<TextArbiter::Stop> stop;
      if (!matches.empty()) stop = arbiter_->found(matches, number, reasoning);
      if (passes()) return;
      for (auto& match : matches) match.begin -= begun, match.end -= begun;
      if (stop) {
        leaving.resize(matches.at(stop->match).begin);
        matches.resize(stop->match);
      }
      if (check_ == TextCheck::redact && !matches.empty()) {
        leaving = Argus::redact(leaving, matches);
        voice->changed = true;
      }
      speak(choice, number, reasoning, std::move(leaving), out);
      if (stop) end(choice, number, std::move(stop->text), out);
    } catch (const std::exception&) {
      auto text = arbiter_->failed(number, reasoning);
      if (passes()) choice.stopped = true;  // nothing more of it is looked at
      else end(choice, number, std::move(text), out);
    }
  }
  static void speak(Choice& choice, int number, bool reasoning, std::string text, chat::Events& out) {
    if (text.empty()) return;
    if (reasoning) {
      out.emplace_back(chat::ReasoningDelta{number, std::move(text)});
      return;
    }
    choice.said = true;
    out.emplace_back(chat::TextDelta{number, std::move(text)});
  }
  static void end(Choice& choice, int number, std::string text, chat::Events& out) {
    choice.stopped = true;
    out.emplace_back(chat::TextDelta{number, (choice.said ? "\n\n" : "") + std::move(text) + "\n"});
  }

  const std::unique_ptr<TextArbiter> arbiter_;  // may own what the scans read
  const std::unique_ptr<wire::EventStream> inner_;
  const Argus& argus_;
  const TextCheck check_;
  const std::size_t hold_back_;
  std::map<int, Choice> choices_;
  bool cancelled_ = false, ended_ = false;
};

}  // namespace

std::string_view name(TextCheck check) {
  switch (check) {
    case TextCheck::off: return "off";
    case TextCheck::audit: return "audit";
    case TextCheck::redact: return "redact";
    case TextCheck::deny: return "deny";
  }
  return "";
}

std::unique_ptr<wire::EventStream> scan_text(std::unique_ptr<wire::EventStream> inner, const Argus& argus, TextCheck check,
                                             std::size_t hold_back, std::unique_ptr<TextArbiter> arbiter) {
  if (check == TextCheck::off) return inner;
  return std::make_unique<TextScan>(std::move(inner), argus, check, hold_back, std::move(arbiter));
}

}  // namespace hearth::safety
