// The model's own words on their way out: whatever the pieces, the same text and the same findings, and nothing of a secret before it was seen.
#include "safety/text_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>
#include <random>

#include "safety/protection.h"

namespace hearth::safety {
namespace {

using net::Task;
using testing::HasSubstr;
using testing::Not;
namespace asio = net::asio;

constexpr std::size_t hold_back = 256;

// No key of anybody: made of parts, so that no scanner of sources takes it for one.
const std::string key = std::string("AK") + "IA" + "Q7XJ2LPM4WRTZ5BN";

std::string filler(int sentences) {
  std::string out;
  for (int i = 0; i < sentences; ++i)
    out += "The committee met at noon and agreed on the colour of the shed, item " + std::to_string(i) + ". ";
  return out;
}

// Says what it is given, one list of events a turn, each as a frame of its own.
class Script final : public wire::EventStream {
 public:
  explicit Script(std::vector<chat::Events> turns) : turns_(std::move(turns)) { explanation_.add("model", "m"); }
  Task<chat::Events> next() override {
    raw_.clear();
    if (cancelled || asked == turns_.size()) co_return chat::Events{};
    auto events = turns_[asked++];
    raw_.push_back({"data: " + std::to_string(asked) + "\n\n", events.size(), true});
    co_return events;
  }
  void cancel() override { cancelled = true; }
  const chat::Explanation& explanation() const override { return explanation_; }
  wire::Protocol raw_protocol() const override { return wire::Protocol::openai_chat; }
  std::span<const wire::RawFrame> raw() const override { return raw_; }

  std::size_t asked = 0;
  bool cancelled = false;

 private:
  std::vector<chat::Events> turns_;
  std::vector<wire::RawFrame> raw_;
  chat::Explanation explanation_;
};

struct Notes {
  std::vector<Match> matches;
  std::vector<bool> reasoning;
  int failures = 0;
};
class Noting final : public TextArbiter {
 public:
  Noting(Notes& notes, bool stops, bool throws) : notes_(notes), stops_(stops), throws_(throws) {}
  std::optional<Stop> found(std::span<const Match> matches, int, bool reasoning) override {
    if (throws_) throw std::runtime_error("no");
    for (const auto& match : matches) notes_.matches.push_back(match), notes_.reasoning.push_back(reasoning);
    for (std::size_t i = 0; stops_ && i < matches.size(); ++i) {
      if (matches[i].kind == Spill::secret) return Stop{i, "[stopped]"};
    }
    return {};
  }
  std::string failed(int, bool) override {
    ++notes_.failures;
    return "[failed]";
  }

 private:
  Notes& notes_;
  const bool stops_, throws_;
};

template <class T>
T run(asio::io_context& io, Task<T> task) {
  std::optional<T> out;
  asio::co_spawn(io, std::move(task), [&](const std::exception_ptr& thrown, T value) {
    if (thrown) std::rethrow_exception(thrown);
    out = std::move(value);
  });
  io.restart();
  while (!out && io.run_one() > 0) {}
  return std::move(out).value();
}

const Argus& argus() {
  static const Argus one;
  return one;
}

struct Said {
  std::vector<chat::Events> turns;
  chat::Events events;
  Notes notes;
  std::string text(int choice = 0) const {
    std::string out;
    for (const auto& event : events) {
      if (const auto* delta = std::get_if<chat::TextDelta>(&event); delta != nullptr && delta->choice == choice) out += delta->text;
    }
    return out;
  }
  // The order of what was said: letters, texts joined.
  std::string order() const {
    std::string out;
    for (const auto& event : events) {
      const char letter = "sTRGbdeif uF"[event.index() == 9 ? 10 : event.index() == 10 ? 11 : event.index()];
      if (out.empty() || out.back() != letter) out += letter;
    }
    return out;
  }
  std::optional<chat::FinishReason> finish(int choice = 0) const {
    for (const auto& event : events) {
      if (const auto* finished = std::get_if<chat::Finished>(&event); finished != nullptr && finished->choice == choice)
        return finished->reason;
    }
    return {};
  }
};

Said through(std::vector<chat::Events> turns, TextCheck check, bool throws = false) {
  asio::io_context io;
  Said said;
  const auto stream = scan_text(std::make_unique<Script>(std::move(turns)), argus(), check, hold_back,
                                std::make_unique<Noting>(said.notes, check == TextCheck::deny, throws));
  for (;;) {
    auto events = run(io, stream->next());
    if (check == TextCheck::redact || check == TextCheck::deny) {
      EXPECT_TRUE(stream->raw().empty());
      EXPECT_EQ(stream->raw_protocol(), wire::Protocol::other);
    } else if (!events.empty()) {
      EXPECT_EQ(stream->raw_protocol(), wire::Protocol::openai_chat);
      EXPECT_EQ(stream->raw().size(), 1u);
      EXPECT_EQ(stream->raw().front().events, events.size());
    }
    if (events.empty()) break;
    said.events.insert(said.events.end(), events.begin(), events.end());
    said.turns.push_back(std::move(events));
  }
  return said;
}

std::vector<chat::Events> pieces(const std::string& text, const std::vector<std::size_t>& cuts, bool reasoning = false) {
  std::vector<chat::Events> turns;
  const auto add = [&](std::string piece) {
    if (piece.empty()) return;
    if (reasoning) turns.push_back({chat::ReasoningDelta{0, std::move(piece)}});
    else turns.push_back({chat::TextDelta{0, std::move(piece)}});
  };
  std::size_t at = 0;
  for (const std::size_t cut : cuts) {
    add(text.substr(at, cut - at));
    at = cut;
  }
  add(text.substr(at));
  return turns;
}
std::vector<chat::Events> ended(std::vector<chat::Events> turns, chat::FinishReason reason = chat::FinishReason::stop) {
  turns.push_back({chat::Finished{0, reason, {}}});
  turns.push_back({chat::Usage{1, 0, 2}});
  return turns;
}

TEST(TextScan, OffIsTheSameStream) {
  auto inner = std::make_unique<Script>(pieces(key, {}));
  const auto* before = inner.get();
  const auto stream = scan_text(std::move(inner), argus(), TextCheck::off, hold_back, nullptr);
  EXPECT_EQ(stream.get(), before);
}

TEST(TextScan, AnySplitSaysTheSame) {
  const std::string text = filler(6) + key + " " + filler(5) + "\nTOP SECRET//SI//NOFORN\n" + filler(4) + key + ".";
  const auto whole = argus().scan(text);
  ASSERT_EQ(whole.size(), 3u);
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " round " << round);
    std::vector<std::size_t> cuts;
    for (std::size_t at = 0; at < text.size(); at += 1 + random() % (round % 3 == 0 ? 5 : 300)) cuts.push_back(at);
    for (const auto check : {TextCheck::audit, TextCheck::redact, TextCheck::deny}) {
      SCOPED_TRACE(name(check));
      const auto said = through(ended(pieces(text, cuts)), check);
      const std::string expected = check == TextCheck::audit    ? text
                                   : check == TextCheck::redact ? Argus::redact(text, whole)
                                                                : filler(6) + "\n\n[stopped]\n";
      ASSERT_EQ(said.text(), expected);
      ASSERT_EQ(said.finish(), check == TextCheck::deny ? chat::FinishReason::content_filter : chat::FinishReason::stop);
      ASSERT_TRUE(std::holds_alternative<chat::Usage>(said.events.back()));
      if (check == TextCheck::deny) continue;  // hears no more of it
      ASSERT_EQ(said.notes.matches.size(), whole.size());
      for (std::size_t i = 0; i < whole.size(); ++i) {
        ASSERT_EQ(said.notes.matches[i].begin, whole[i].begin);
        ASSERT_EQ(said.notes.matches[i].end, whole[i].end);
        ASSERT_EQ(said.notes.matches[i].detector, whole[i].detector);
      }
    }
  }
}

TEST(TextScan, ASecretInPiecesNeverLeaves) {
  const std::string text = filler(8) + key + " " + filler(8);
  std::vector<std::size_t> cuts;
  for (std::size_t at = 1; at < text.size(); ++at) cuts.push_back(at);
  for (const bool reasoning : {false, true}) {
    const auto said = through(ended(pieces(text, cuts, reasoning)), TextCheck::redact);
    std::string out;
    for (const auto& event : said.events) {
      if (const auto* delta = std::get_if<chat::TextDelta>(&event)) out += delta->text;
      if (const auto* delta = std::get_if<chat::ReasoningDelta>(&event)) out += delta->text;
      ASSERT_THAT(out, Not(HasSubstr(key.substr(0, 5))));
    }
    EXPECT_EQ(out, filler(8) + "[SECRET:aws_access_key] " + filler(8));
    ASSERT_EQ(said.notes.reasoning.size(), 1u);
    EXPECT_EQ(said.notes.reasoning[0], reasoning);
  }
}

TEST(TextScan, TextFlowsButForItsLastBytes) {
  const std::string text = filler(40);
  std::vector<std::size_t> cuts;
  for (std::size_t at = 8; at < text.size(); at += 8) cuts.push_back(at);
  asio::io_context io;
  Notes notes;
  auto inner = std::make_unique<Script>(ended(pieces(text, cuts)));
  const auto& script = *inner;
  const auto stream = scan_text(std::move(inner), argus(), TextCheck::redact, hold_back, std::make_unique<Noting>(notes, false, false));
  std::size_t said = 0;
  while (said < text.size()) {
    for (const auto& event : run(io, stream->next())) {
      if (const auto* delta = std::get_if<chat::TextDelta>(&event)) said += delta->text.size();
    }
    const std::size_t heard = std::min(text.size(), script.asked * 8);
    ASSERT_LE(heard - said, hold_back + hold_back / 4);
  }
  // Where nothing is held back, each turn's events are the upstream's.
  const auto audited = through(ended(pieces(text, cuts)), TextCheck::audit);
  EXPECT_EQ(audited.turns.size(), cuts.size() + 3);
}

TEST(TextScan, TextKeepsItsPlaceBeforeCallsAndTheEnd) {
  const std::vector<chat::Events> turns{{chat::Started{3, 0}},
                                        {chat::ReasoningDelta{0, "I think"}},
                                        {chat::ReasoningSignature{0, "proof"}},
                                        {chat::TextDelta{0, "I look. "}, chat::ToolCallBegin{0, 0, "c1", "read"}},
                                        {chat::ToolCallDelta{0, 0, "{}"}, chat::ToolCallEnd{0, 0}},
                                        {chat::TextDelta{0, "Done."}},
                                        {chat::Finished{0, chat::FinishReason::tool_calls, {}}}};
  for (const auto check : {TextCheck::audit, TextCheck::redact, TextCheck::deny}) {
    SCOPED_TRACE(name(check));
    const auto said = through(turns, check);
    EXPECT_EQ(said.order(), "sRGTbdeTf");
    EXPECT_EQ(said.text(), "I look. Done.");
    EXPECT_EQ(said.finish(), chat::FinishReason::tool_calls);
  }
}

TEST(TextScan, WhatProvesOrSpellsTextThatWasChangedIsDropped) {
  const std::vector<chat::Events> turns{{chat::ReasoningDelta{0, "It is " + key + "."}},
                                        {chat::ReasoningSignature{0, "proof"}},
                                        {chat::TokenInfo{0, {1, key, 0}, {}, 0}, chat::TextDelta{0, "See " + key + "."}},
                                        {chat::ReasoningDelta{0, "Fine."}},
                                        {chat::ReasoningSignature{0, "proof"}},
                                        {chat::Finished{0, chat::FinishReason::stop, {}}}};
  EXPECT_EQ(through(turns, TextCheck::redact).order(), "RTRGf");
  const auto audited = through(turns, TextCheck::audit);
  EXPECT_EQ(audited.order(), "RGiTRGf");
  EXPECT_EQ(audited.notes.matches.size(), 2u);
}

TEST(TextScan, DenyEndsTheChoiceAndNoOther) {
  const std::vector<chat::Events> turns{{chat::TextDelta{0, "The key: "}, chat::TextDelta{1, "Hello"}},
                                        {chat::TextDelta{0, key + " and so on"}},
                                        {chat::ToolCallBegin{0, 0, "c1", "send"}, chat::ToolCallDelta{0, 0, "{}"}, chat::ToolCallEnd{0, 0}},
                                        {chat::ReasoningDelta{0, "more"}, chat::TextDelta{0, "more " + key}},
                                        {chat::ToolCallBegin{1, 0, "c2", "read"}, chat::ToolCallDelta{1, 0, "{}"}, chat::ToolCallEnd{1, 0}},
                                        {chat::Finished{0, chat::FinishReason::tool_calls, {}}},
                                        {chat::Finished{1, chat::FinishReason::tool_calls, {}}}};
  const auto said = through(turns, TextCheck::deny);
  EXPECT_EQ(said.text(0), "The key: \n\n[stopped]\n");
  EXPECT_EQ(said.text(1), "Hello");
  EXPECT_EQ(said.finish(0), chat::FinishReason::content_filter);
  EXPECT_EQ(said.finish(1), chat::FinishReason::tool_calls);
  int calls = 0;
  for (const auto& event : said.events) {
    if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) {
      ++calls;
      EXPECT_EQ(begin->choice, 1);
    }
  }
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(said.notes.matches.size(), 1u);
}

TEST(TextScan, WhatBreaksOffIsLookedThroughToo) {
  auto failing = pieces("The key: " + key, {12});
  failing.push_back({chat::Failed{Error{ErrorCode::upstream_failed, "cut"}}});
  const auto failed = through(failing, TextCheck::redact);
  EXPECT_EQ(failed.text(), "The key: [SECRET:aws_access_key]");
  EXPECT_TRUE(std::holds_alternative<chat::Failed>(failed.events.back()));
  EXPECT_EQ(through(pieces("The key: " + key, {12}), TextCheck::redact).text(), "The key: [SECRET:aws_access_key]");
}

TEST(TextScan, WhatCannotBeJudgedDoesNotLeave) {
  for (const auto check : {TextCheck::redact, TextCheck::deny}) {
    const auto said = through(ended(pieces("The key: " + key + " more", {12})), check, true);
    EXPECT_EQ(said.text(), "[failed]\n");
    EXPECT_EQ(said.finish(), chat::FinishReason::content_filter);
    EXPECT_EQ(said.notes.failures, 1);
  }
  const auto audited = through(ended(pieces("The key: " + key + " more", {12})), TextCheck::audit, true);
  EXPECT_EQ(audited.text(), "The key: " + key + " more");
  EXPECT_EQ(audited.finish(), chat::FinishReason::stop);
  EXPECT_EQ(audited.notes.failures, 1);
}

TEST(TextScan, NothingComesAfterCancel) {
  asio::io_context io;
  Notes notes;
  const auto stream = scan_text(std::make_unique<Script>(pieces(filler(9), {100, 600})), argus(), TextCheck::redact, hold_back,
                                std::make_unique<Noting>(notes, false, false));
  EXPECT_FALSE(run(io, stream->next()).empty());
  stream->cancel();
  EXPECT_TRUE(run(io, stream->next()).empty());
}

// ---- with the shipped policy and the audit log

struct Protected {
  std::string text, log;
  std::optional<chat::FinishReason> finish;
};
Protected answer(TextCheck check, Mode mode, const std::string& says) {
  std::string pattern = (std::filesystem::temp_directory_path() / "hearth-text-XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(pattern.data());
  Protected out;
  {
    asio::io_context io;
    ProtectionOptions options{.mode = mode, .folder = folder.string(), .text = check};
    auto made = Protection::make(io, std::move(options), {});
    EXPECT_TRUE(made.ok());
    auto& protection = **made;
    chat::Request request;
    request.messages.push_back({.role = chat::Role::user, .content = {chat::ContentPart{.text = "hello"}}});
    wire::Caller caller{.tenant = "local", .request_id = "req_1"};
    auto session = run(
        io, [](Protection& with, chat::Request& of, wire::Caller& by) -> Task<std::optional<std::shared_ptr<const Protection::Session>>> {
          auto looked = co_await with.look(of, by, "m", false);
          co_return looked.ok() ? std::optional(*looked) : std::nullopt;
        }(protection, request, caller));
    EXPECT_TRUE(session.has_value());
    const auto stream = protection.guard(std::make_unique<Script>(ended(pieces(says, {says.size() / 2}))), session.value());
    for (;;) {
      const auto events = run(io, stream->next());
      if (events.empty()) break;
      for (const auto& event : events) {
        if (const auto* delta = std::get_if<chat::TextDelta>(&event)) out.text += delta->text;
        if (const auto* finished = std::get_if<chat::Finished>(&event)) out.finish = finished->reason;
      }
    }
    const auto& decisions = stream->explanation().decisions;
    EXPECT_TRUE(std::any_of(decisions.begin(), decisions.end(),
                            [&](const auto& one) { return one.first == "safety" && one.second == name(mode); }));
    protection.stop();
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder)) {
    if (!file.is_regular_file()) continue;
    std::ifstream in(file.path());
    out.log.append(std::istreambuf_iterator<char>(in), {});
  }
  std::filesystem::remove_all(folder);
  return out;
}

TEST(TextScan, TheShippedPolicyAndTheAuditLog) {
  const std::string says = "Use " + key + " for it, or write to jane.roe@corp-mail.com.";
  const auto off = answer(TextCheck::off, Mode::enforce, says);
  EXPECT_EQ(off.text, says);
  EXPECT_THAT(off.log, Not(HasSubstr("\"event\":\"text\"")));

  const auto audited = answer(TextCheck::audit, Mode::enforce, says);
  EXPECT_EQ(audited.text, says);
  EXPECT_THAT(audited.log, HasSubstr("\"outcome\":\"released\""));

  const auto redacted = answer(TextCheck::redact, Mode::enforce, says);
  EXPECT_THAT(redacted.text, HasSubstr("Use [SECRET:aws_access_key] for it"));
  EXPECT_THAT(redacted.log, HasSubstr("\"outcome\":\"redacted\""));
  EXPECT_EQ(redacted.finish, chat::FinishReason::stop);

  const auto denied = answer(TextCheck::deny, Mode::enforce, says);
  EXPECT_THAT(
      denied.text,
      HasSubstr("Use \n\nhearth did not release the rest of this answer: the text shows a key, token or password (rule secret-in-text"));
  EXPECT_THAT(denied.text, HasSubstr("aws_access_key"));
  EXPECT_EQ(denied.finish, chat::FinishReason::content_filter);
  EXPECT_THAT(denied.log, HasSubstr("\"rule\":\"secret-in-text\""));
  EXPECT_THAT(denied.log, HasSubstr("\"outcome\":\"refused\""));

  // An address is found, and refused by no rule.
  const std::string harmless = "Write to jane.roe@corp-mail.com.";
  EXPECT_EQ(answer(TextCheck::deny, Mode::enforce, harmless).text, harmless);

  const auto observed = answer(TextCheck::deny, Mode::observe, says);
  EXPECT_EQ(observed.text, says);
  EXPECT_THAT(observed.log, HasSubstr("\"event\":\"text\""));

  for (const auto& one : {audited, redacted, denied, observed}) EXPECT_THAT(one.log, Not(HasSubstr(key)));
  for (const auto& one : {redacted, denied}) EXPECT_THAT(one.text, Not(HasSubstr(key)));
}

}  // namespace
}  // namespace hearth::safety
