#include "safety/hold.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "fleet/loop_event.h"

namespace hearth::safety {
namespace {

using net::Task;

constexpr std::size_t event_overhead = 64;  // bytes an event takes beside its text

struct Call {
  enum class State { open, asked, released, refused };

  State state = State::open;
  int choice = 0;
  int index = 0;  // as the upstream numbers it
  chat::ToolCall call;
  std::vector<std::size_t> fragments;  // where each piece of the arguments ended
  chat::Events tokens;                 // TokenInfos that came with it
  std::unique_ptr<Arbiter::Question> question;
  Ruling ruling;
  int number = -1;     // under which it was released
  bool whole = false;  // all of it has been said

  std::size_t size() const { return call.id.size() + call.name.size() + call.arguments.size(); }
  bool waits() const { return state == State::open || state == State::asked; }
};

// An event on its way out, in its place.
struct Entry {
  chat::Event event;
  Call* call = nullptr;  // that it belongs to
};

// One choice.
struct Lane {
  std::vector<std::unique_ptr<Call>> calls;
  std::deque<Entry> queue;  // what stands behind a call that waits, that call's begin first
  chat::Events tokens;      // TokenInfos whose text has not come yet
  std::size_t bytes = 0;    // of what waits
  int released = 0;
  bool said = false, finished = false;
};

struct Frame {
  wire::RawFrame frame;
  std::vector<Entry> entries;
};

// What one next() gives.
struct Batch {
  bool raw = false;
  chat::Events events;
  std::vector<wire::RawFrame> frames;
};

std::size_t size_of(const chat::Event& event) {
  if (const auto* text = std::get_if<chat::TextDelta>(&event)) return text->text.size() + event_overhead;
  if (const auto* thought = std::get_if<chat::ReasoningDelta>(&event)) return thought->text.size() + event_overhead;
  if (const auto* token = std::get_if<chat::TokenInfo>(&event)) return (token->top.size() + 1) * event_overhead;
  return event_overhead;
}

static_assert(std::variant_size_v<chat::Event> == 11, "a new kind of event must not pass before somebody decided what it may say");

// The choice an event belongs to; -1: to the answer as a whole.
struct ChoiceOf {
  int operator()(const chat::Started&) const { return -1; }
  int operator()(const chat::Usage&) const { return -1; }
  int operator()(const chat::Failed&) const { return -1; }
  int operator()(const auto& of_choice) const { return of_choice.choice; }
};
int choice_of(const chat::Event& event) { return std::visit(ChoiceOf{}, event); }

class State : public std::enable_shared_from_this<State> {
 public:
  State(net::asio::io_context& io, std::unique_ptr<wire::EventStream> upstream, std::unique_ptr<Arbiter> judging, HoldLimits bounds,
        bool raw, std::string says)
      : news(io), inner(std::move(upstream)), arbiter(std::move(judging)), limits(bounds), passing(raw), word(std::move(says)) {
    explain();
  }

  void arrive(chat::Events events) {
    if (cancelled || ended) return;
    if (passing && inner->raw_protocol() == wire::Protocol::other) take_over();
    if (events.empty()) {
      if (passing) arrive_frames({});
      end();
    } else if (passing) {
      arrive_frames(std::move(events));
    } else {
      for (auto& event : events) take(std::move(event));
    }
    drain();
    if (inner_decisions != inner->explanation().decisions.size()) explain();
  }

  void cancel() {
    cancelled = true;
    out.clear();
    forget();
    inner->cancel();
    news.notify();
  }

  bool waits() const {
    return !frames.empty() || std::any_of(lanes.begin(), lanes.end(), [](const auto& lane) { return !lane.second.queue.empty(); });
  }

  // Whether something can leave. Frames without an event leave with the next one that has some; where events follow instead, the codec says better what they said.
  bool ready() {
    while (out.size() > 1 && out.front().events.empty()) out.pop_front();
    return !out.empty() && !out.front().events.empty();
  }

  fleet::LoopEvent news;
  const std::unique_ptr<wire::EventStream> inner;
  std::deque<Batch> out;
  chat::Explanation explanation;
  bool cancelled = false, ended = false, reading = false;
  bool spoke = false;  // words have passed
  bool passing_now() const { return passing; }

 private:
  // ---- what comes in

  void arrive_frames(chat::Events events) {
    std::size_t at = 0;
    for (const wire::RawFrame& came : inner->raw()) {
      const std::size_t until = std::min(at + came.events, events.size());
      if (passing && !came.understood) take_over();
      if (!passing) {
        for (; at < until; ++at) take(std::move(events[at]));
        continue;
      }
      Frame held{.frame = came};
      bool fits = true;  // false: frames came to an end while it was read
      for (; at < until; ++at) {
        if (!fits) {
          take(std::move(events[at]));
          continue;
        }
        auto entry = note(std::move(events[at]));
        if (!entry) take_over();  // the frame says more than may be said
        if (passing) {
          held.entries.push_back(std::move(*entry));
          continue;
        }
        fits = false;
        place_all(held);
        if (entry) place(std::move(*entry));
      }
      if (!fits) continue;
      raw_bytes += came.bytes.size() + held.entries.size() * event_overhead;
      frames.push_back(std::move(held));
    }
    // A failure has no frame; anything else that had none was not the upstream's.
    for (; at < events.size(); ++at) {
      if (auto* failed = std::get_if<chat::Failed>(&events[at])) {
        fail(std::move(*failed));
        return;
      }
      take_over();
      take(std::move(events[at]));
    }
    // So many bytes of frames around so few of arguments: the events are enough.
    if (passing && raw_bytes > 2 * limits.choice_bytes && waits()) take_over();
  }

  void take(chat::Event event) {
    if (ended) return;
    if (auto* failed = std::get_if<chat::Failed>(&event)) {
      fail(std::move(*failed));
      return;
    }
    if (auto entry = note(std::move(event))) place(std::move(*entry));
  }

  // Registers what the event says of a call. Nothing: it is swallowed.
  std::optional<Entry> note(chat::Event event) {
    const int choice = choice_of(event);
    if (choice < 0) return Entry{std::move(event)};
    Lane& lane = lanes[choice];
    if (lane.finished) return {};
    if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) {
      if (Call* known = find(lane, begin->index)) {
        if (known->waits()) refuse(*known, "duplicate_call", "the model began two calls under one number");
        return {};
      }
      auto& call = *lane.calls.emplace_back(std::make_unique<Call>());
      call.choice = choice;
      call.index = begin->index;
      call.call.id = begin->id;
      call.call.name = begin->name;
      call.tokens = std::exchange(lane.tokens, {});
      lane.bytes += call.size();
      if (static_cast<int>(lane.calls.size()) > limits.calls)
        refuse(call, "too_many_calls", "an answer may hold " + std::to_string(limits.calls) + " calls");
      else bound(lane, call);
      return Entry{std::move(event), &call};
    }
    if (const auto* delta = std::get_if<chat::ToolCallDelta>(&event)) {
      Call* call = find(lane, delta->index);
      if (call == nullptr || call->state != Call::State::open) {
        // More of a call after its end: what was judged is not what it is.
        if (call != nullptr && call->waits()) refuse(*call, "call_goes_on", "the call went on after its end");
        return {};
      }
      call->call.arguments += delta->arguments;
      call->fragments.push_back(call->call.arguments.size());
      lane.bytes += delta->arguments.size();
      bound(lane, *call);
      if (call->state == Call::State::refused) return {};
      return Entry{std::move(event), call};
    }
    if (const auto* ending = std::get_if<chat::ToolCallEnd>(&event)) {
      Call* call = find(lane, ending->index);
      if (call == nullptr || call->state != Call::State::open) return {};
      ask(*call);
      return Entry{std::move(event), call};
    }
    if (std::holds_alternative<chat::TokenInfo>(event) && !passing) {
      // A token is said together with the text it became, or with the call.
      const auto open =
          std::find_if(lane.calls.rbegin(), lane.calls.rend(), [](const auto& call) { return call->state == Call::State::open; });
      lane.bytes += event_overhead;
      (open == lane.calls.rend() ? lane.tokens : (*open)->tokens).push_back(std::move(event));
      if (lane.bytes > limits.choice_bytes) overflow(lane);
      return {};
    }
    if (std::holds_alternative<chat::Finished>(event)) {
      for (const auto& call : lane.calls) {
        if (call->state == Call::State::open) refuse(*call, "unfinished_call", "the answer ended before the call did");
      }
      lane.finished = true;
    }
    return Entry{std::move(event)};
  }

  // Event by event: says it, or puts it behind what waits.
  void place(Entry entry) {
    const int choice = choice_of(entry.event);
    if (choice < 0) {
      if (std::holds_alternative<chat::Usage>(entry.event)) last.push_back(std::move(entry.event));
      else emit(std::move(entry.event));
      return;
    }
    Lane& lane = lanes[choice];
    // A call is said as a whole where it began; what is left over of one that had begun to pass follows.
    if (entry.call != nullptr && !std::holds_alternative<chat::ToolCallBegin>(entry.event) && entry.call->number < 0) return;
    for (auto& token : std::exchange(lane.tokens, {})) {
      lane.bytes -= std::min(lane.bytes, event_overhead);
      place_in(lane, Entry{std::move(token)});
    }
    place_in(lane, std::move(entry));
  }
  void place_in(Lane& lane, Entry entry) {
    if (lane.queue.empty() && entry.call == nullptr) {
      say(lane, std::move(entry));
      return;
    }
    lane.bytes += size_of(entry.event);
    lane.queue.push_back(std::move(entry));
    if (lane.bytes > limits.choice_bytes) overflow(lane);
  }

  void bound(Lane& lane, Call& call) {
    if (call.size() > limits.call_bytes)
      refuse(call, "over_long", "the call is longer than " + std::to_string(limits.call_bytes) + " bytes");
    else if (lane.bytes > limits.choice_bytes) overflow(lane);
  }
  void overflow(Lane& lane) {
    for (const auto& call : lane.calls) {
      if (call->waits())
        refuse(*call, "over_long", "more than " + std::to_string(limits.choice_bytes) + " bytes of the answer wait for a ruling on it");
    }
  }

  static Call* find(Lane& lane, int index) {
    const auto found = std::find_if(lane.calls.begin(), lane.calls.end(), [&](const auto& call) { return call->index == index; });
    return found == lane.calls.end() ? nullptr : found->get();
  }

  // ---- rulings

  void ask(Call& call) {
    call.state = Call::State::asked;
    call.question = arbiter->ask(call.call, [weak = weak_from_this(), &call](Ruling ruling) {
      const auto self = weak.lock();
      if (!self || self->cancelled || call.state != Call::State::asked) return;
      self->rule(call, std::move(ruling));
      self->drain();
      self->news.notify();
    });
  }
  void rule(Call& call, Ruling ruling) {
    call.state = ruling.release ? Call::State::released : Call::State::refused;
    (ruling.release ? released : refused) += 1;
    const bool as_it_came = ruling.release && ruling.arguments.empty();
    call.ruling = std::move(ruling);
    if (!as_it_came) take_over();
    if (call.state == Call::State::refused) let_go(call);
    explain();
  }
  void refuse(Call& call, std::string_view rule, const std::string& why, bool broken = false) {
    call.question.reset();
    call.state = Call::State::refused;
    call.ruling = {.text = arbiter->refuse(call.call, rule, why, broken)};
    ++refused;
    take_over();
    let_go(call);
    explain();
  }
  // Its content is needed no longer.
  void let_go(Call& call) {
    Lane& lane = lanes[call.choice];
    lane.bytes -= std::min(lane.bytes, call.size() + call.tokens.size() * event_overhead);
    call.call = {};
    call.fragments.clear();
    call.tokens.clear();
  }

  // From here on events are said, not frames.
  void take_over() {
    if (!passing) return;
    while (!frames.empty() && may_pass(frames.front())) pass();
    passing = false;
    raw_bytes = 0;
    for (auto& held : std::exchange(frames, {})) place_all(held);
  }
  void place_all(Frame& held) {
    const bool calls = std::any_of(held.entries.begin(), held.entries.end(), [](const Entry& entry) { return entry.call != nullptr; });
    for (auto& entry : held.entries) {
      // A token must not tell of a call what the call itself may not.
      if (!calls || !std::holds_alternative<chat::TokenInfo>(entry.event)) place(std::move(entry));
    }
    held.entries.clear();
  }

  // ---- what goes out

  void drain() {
    while (!frames.empty() && may_pass(frames.front())) pass();
    for (auto& [choice, lane] : lanes) {
      while (!lane.queue.empty() && (lane.queue.front().call == nullptr || !lane.queue.front().call->waits())) {
        Entry entry = std::move(lane.queue.front());
        lane.queue.pop_front();
        lane.bytes -= std::min(lane.bytes, size_of(entry.event));
        say(lane, std::move(entry));
      }
    }
    if (!last.empty() && !waits()) {
      for (auto& event : std::exchange(last, {})) emit(std::move(event));
    }
  }

  static bool may_pass(const Frame& frame) {
    return std::all_of(frame.entries.begin(), frame.entries.end(), [](const Entry& entry) {
      return entry.call == nullptr || (entry.call->state == Call::State::released && entry.call->ruling.arguments.empty());
    });
  }
  void pass() {
    Frame frame = std::move(frames.front());
    frames.pop_front();
    raw_bytes -= std::min(raw_bytes, frame.frame.bytes.size() + frame.entries.size() * event_overhead);
    Batch& batch = batch_for(true);
    frame.frame.events = frame.entries.size();
    for (auto& entry : frame.entries) {
      Lane* lane = entry.call == nullptr ? nullptr : &lanes[entry.call->choice];
      if (lane != nullptr && std::holds_alternative<chat::ToolCallBegin>(entry.event)) entry.call->number = lane->released++;
      if (lane != nullptr && std::holds_alternative<chat::ToolCallEnd>(entry.event)) entry.call->whole = true, let_go(*entry.call);
      if (const int choice = choice_of(entry.event); choice >= 0) lanes[choice].said = true;
      batch.events.push_back(std::move(entry.event));
    }
    batch.frames.push_back(std::move(frame.frame));
  }

  void say(Lane& lane, Entry entry) {
    if (entry.call == nullptr) {
      if (auto* finished = std::get_if<chat::Finished>(&entry.event); finished != nullptr && !lane.calls.empty()) {
        using chat::FinishReason;
        if (finished->reason == FinishReason::tool_calls && lane.released == 0) finished->reason = FinishReason::stop;
        if (finished->reason == FinishReason::stop && lane.released > 0) finished->reason = FinishReason::tool_calls;
      }
      lane.said = true;
      emit(std::move(entry.event));
      return;
    }
    Call& call = *entry.call;
    if (call.state == Call::State::refused) {
      if (!std::holds_alternative<chat::ToolCallBegin>(entry.event)) return;
      emit(chat::TextDelta{call.choice, (lane.said || spoke ? "\n\n" : "") + call.ruling.text + "\n"});
      lane.said = true;
      return;
    }
    if (call.whole) return;
    if (!std::holds_alternative<chat::ToolCallBegin>(entry.event)) {  // the rest of one whose beginning passed as frames
      if (auto* delta = std::get_if<chat::ToolCallDelta>(&entry.event)) delta->index = call.number;
      if (auto* ending = std::get_if<chat::ToolCallEnd>(&entry.event)) {
        ending->index = call.number;
        call.whole = true;
      }
      emit(std::move(entry.event));
      if (call.whole) let_go(call);
      return;
    }
    call.number = lane.released++;
    call.whole = true;
    lane.said = true;
    for (auto& token : call.tokens) emit(std::move(token));
    emit(chat::ToolCallBegin{call.choice, call.number, call.call.id, call.call.name});
    if (!call.ruling.arguments.empty()) {
      emit(chat::ToolCallDelta{call.choice, call.number, call.ruling.arguments});
    } else {
      std::size_t begin = 0;
      for (const std::size_t until : call.fragments) {
        emit(chat::ToolCallDelta{call.choice, call.number, call.call.arguments.substr(begin, until - begin)});
        begin = until;
      }
    }
    emit(chat::ToolCallEnd{call.choice, call.number});
    let_go(call);
  }

  Batch& batch_for(bool raw) {
    if (out.empty() || out.back().raw != raw) out.push_back({.raw = raw});
    return out.back();
  }
  void emit(chat::Event event) { batch_for(false).events.push_back(std::move(event)); }

  // The upstream has said its last word.
  void end() {
    ended = true;
    for (auto& [choice, lane] : lanes) {
      for (const auto& call : lane.calls) {
        if (call->state == Call::State::open) refuse(*call, "unfinished_call", "the answer broke off before the call did", true);
      }
    }
  }
  void fail(chat::Failed failed) {
    ended = true;
    for (auto& [choice, lane] : lanes) {
      for (const auto& call : lane.calls) {
        if (call->state == Call::State::open) {
          call->state = Call::State::refused;
          (void)arbiter->refuse(call->call, "unfinished_call", "the answer broke off before the call did", true);
        }
      }
    }
    forget();
    batch_for(passing).events.emplace_back(std::move(failed));
  }
  // Nothing that waits will be said.
  void forget() {
    frames.clear();
    last.clear();
    for (auto& [choice, lane] : lanes) {
      lane.queue.clear();
      lane.tokens.clear();
      for (const auto& call : lane.calls) {
        call->question.reset();
        if (call->waits()) call->state = Call::State::refused;
      }
    }
  }

  void explain() {
    explanation = inner->explanation();
    inner_decisions = explanation.decisions.size();
    std::string says = word;
    if (released > 0) says += " released=" + std::to_string(released);
    if (refused > 0) says += " refused=" + std::to_string(refused);
    explanation.add("safety", std::move(says));
  }

  const std::unique_ptr<Arbiter> arbiter;
  const HoldLimits limits;
  bool passing;  // frames, not events
  const std::string word;
  std::map<int, Lane> lanes;
  std::deque<Frame> frames;  // while passing: what waits, in the order it came
  std::size_t raw_bytes = 0;
  chat::Events last;  // what comes after every choice
  std::size_t inner_decisions = 0;
  int released = 0, refused = 0;
};

// One look at the upstream while something waits for a ruling. The state outlives it.
Task<void> read(std::shared_ptr<State> state) {
  auto events = co_await state->inner->next();
  state->reading = false;
  state->arrive(std::move(events));
  state->news.notify();
}

class Hold final : public wire::EventStream {
 public:
  Hold(net::asio::io_context& io, std::shared_ptr<State> state) : io_(io), state_(std::move(state)) {}
  ~Hold() override { state_->cancel(); }

  Task<chat::Events> next() override {
    const auto state = state_;
    direct_ = false;
    while (!state->cancelled) {
      if (state->ready()) {
        batch_ = std::move(state->out.front());
        state->out.pop_front();
        co_return std::move(batch_.events);
      }
      if (state->reading || (state->ended && state->waits())) {
        co_await state->news.wait();
      } else if (state->ended) {
        break;
      } else if (state->waits()) {
        // Both may happen first: a ruling, or more of the answer.
        state->reading = true;
        net::asio::co_spawn(io_, read(state), [state](const std::exception_ptr& thrown) {
          if (!thrown) return;
          state->reading = false;
          state->arrive({chat::Failed{internal_error("the answer could not be read")}});
          state->news.notify();
        });
      } else {
        auto events = co_await state->inner->next();
        if (passes(events)) {
          direct_ = state->spoke = true;
          co_return events;
        }
        state->arrive(std::move(events));
      }
    }
    batch_ = {.raw = state->passing_now()};
    if (!state->out.empty()) batch_ = std::move(state->out.front());
    state->out.clear();
    co_return chat::Events{};
  }
  void cancel() override { state_->cancel(); }
  const chat::Explanation& explanation() const override { return state_->explanation; }
  wire::Protocol raw_protocol() const override { return direct_ || batch_.raw ? state_->inner->raw_protocol() : wire::Protocol::other; }
  std::span<const wire::RawFrame> raw() const override { return direct_ ? state_->inner->raw() : batch_.frames; }

 private:
  // The way of nearly every frame: words, and nothing that waits. The upstream's own frames go on as they lie.
  bool passes(const chat::Events& events) const {
    if (!state_->passing_now() || state_->inner->raw_protocol() == wire::Protocol::other || events.empty()) return false;
    const auto plain = [](const chat::Event& event) {
      return std::holds_alternative<chat::TextDelta>(event) || std::holds_alternative<chat::ReasoningDelta>(event);
    };
    const auto frames = state_->inner->raw();
    std::size_t read = 0;
    for (const auto& frame : frames) read += frame.events;
    return read == events.size() && std::all_of(events.begin(), events.end(), plain) &&
           std::all_of(frames.begin(), frames.end(), [](const auto& frame) { return frame.understood; });
  }

  net::asio::io_context& io_;
  const std::shared_ptr<State> state_;
  Batch batch_;
  bool direct_ = false;
};

}  // namespace

std::unique_ptr<wire::EventStream> hold_calls(net::asio::io_context& io, std::unique_ptr<wire::EventStream> inner,
                                              std::unique_ptr<Arbiter> arbiter, HoldLimits limits, bool raw, std::string word) {
  return std::make_unique<Hold>(io, std::make_shared<State>(io, std::move(inner), std::move(arbiter), limits, raw, std::move(word)));
}

}  // namespace hearth::safety
