#include "wire/dialect_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/id.h"
#include "base/utf8.h"

namespace hearth::wire {
namespace {

constexpr std::size_t max_held_space = 256;  // after a text: more is no call's margin
constexpr std::size_t max_word = 256;        // names of tools and parameters
constexpr std::size_t max_note = 300;

bool is_space(int c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
constexpr std::string_view spaces = " \n\r\t";

constexpr unsigned bit(Dialect dialect) { return 1U << static_cast<unsigned>(dialect); }
constexpr unsigned tags = bit(Dialect::hermes) | bit(Dialect::qwen_xml);
constexpr unsigned everyone = bit(Dialect::automatic) - 1;

enum Mark : int {
  think_begin,
  think_end,
  tool_call_begin,
  function_begin,
  python_begin,
  mistral_begin,
  deepseek_calls_begin,
  deepseek_call_begin,
  recipient_begin,
  fence_begin,
  first_end,  // from here on: what ends a call
  tool_call_end = first_end,
  function_end,
  deepseek_call_end,
  deepseek_calls_end,
  mark_count,
};

struct Marker {
  std::string_view text;
  unsigned dialects;
};

// In the order of Mark. None is another's beginning.
constexpr Marker markers[] = {
    {"<think>", everyone},
    {"</think>", everyone},
    {"<tool_call>", tags},
    {"<function=", tags | bit(Dialect::llama3) | bit(Dialect::functionary)},
    {"<|python_tag|>", bit(Dialect::llama3)},
    {"[TOOL_CALLS]", bit(Dialect::mistral)},
    {"<｜tool▁calls▁begin｜>", bit(Dialect::deepseek)},
    {"<｜tool▁call▁begin｜>", bit(Dialect::deepseek)},
    {">>>", bit(Dialect::functionary)},
    {"```", bit(Dialect::fenced)},
    {"</tool_call>", tags},
    {"</function>", tags | bit(Dialect::llama3) | bit(Dialect::functionary)},
    {"<｜tool▁call▁end｜>", bit(Dialect::deepseek)},
    {"<｜tool▁calls▁end｜>", bit(Dialect::deepseek)},
};
static_assert(std::size(markers) == mark_count);
constexpr std::size_t max_marker = 30;  // bytes, at most
static_assert(std::ranges::all_of(markers, [](const Marker& marker) { return marker.text.size() <= max_marker; }));

// The markers among `candidates` that begin with `text`.
unsigned beginning_with(std::string_view text, unsigned candidates) {
  unsigned alive = 0;
  for (unsigned left = candidates; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    if (markers[i].text.starts_with(text)) alive |= 1U << i;
  }
  return alive;
}

}  // namespace

DialectParser::Impl::Impl(Dialect dialect, std::vector<chat::ToolSpec> tools, int choice)
    : dialect_(dialect), tools_(std::move(tools)), choice_(choice), family_(dialect), walk_(walk()) {
  waiting_ = walk_.handle();
  if (!tools_.empty()) choose(dialect);
  else at_opening_ = false;
}

void DialectParser::Impl::choose(Dialect dialect) {
  dialect_ = dialect;
  markers_ = 0;
  trigger_count_ = 0;
  found_.fill(nullptr);
  for (int i = 0; i < mark_count; ++i) {
    if (dialect != Dialect::automatic && (markers[i].dialects & bit(dialect)) == 0) continue;
    markers_ |= 1U << i;
    const char first = markers[i].text.front();
    const auto end = triggers_.begin() + static_cast<std::ptrdiff_t>(trigger_count_);
    if (std::find(triggers_.begin(), end, first) == end) triggers_.at(trigger_count_++) = first;
  }
}

void DialectParser::Impl::feed(std::string_view text, chat::Events& out) {
  if (ended_ || text.empty()) return;
  in_ = text;
  out_ = &out;
  found_.fill(nullptr);
  waiting_.resume();
  if (open_) flush_arguments(false);
  else flush_text(Flush::chunk);
}

void DialectParser::Impl::finish(chat::FinishReason reason, chat::Events& out) {
  if (ended_) return;
  ended_ = true;
  reason_ = reason;
  out_ = &out;
  waiting_.resume();
  flush_text(Flush::all);
  if (owed_) add_note("the end marker of the last call was missing");
  if (thinking_ && call_in_thought_) add_note("a call inside a thought that was never closed stayed text");
  if (calls_ > 0 && reason == chat::FinishReason::stop) reason = chat::FinishReason::tool_calls;
  out.push_back(chat::Finished{.choice = choice_, .reason = reason, .stop_sequence = {}});
}

// The walk.

Parse DialectParser::Impl::walk() {
  for (;;) {
    keep_ = Keep::held;
    if (const int c = co_await peek(); c < 0) {
      release();
      co_return 1;
    }
    if (at_opening_ && !thinking_) {
      if (co_await opening() != 0) continue;
    }
    if (const std::size_t run = held_.empty() ? plain_run() : 0; run > 0) {
      plain(in_.substr(0, run));
      in_.remove_prefix(run);
      continue;
    }
    const int mark = co_await marker();
    if (mark < 0) continue;
    if (mark == think_begin && last_ == '\n') thinking_ = true;
    if (thinking_ || mark == think_begin || mark == think_end) {
      if (mark != think_begin && mark != think_end && mark < first_end) call_in_thought_ = true;
      release();
      if (mark == think_end) {
        thinking_ = false;
        at_opening_ = calls_ == 0;  // the answer begins after its thoughts, also where the prompt opened them
      }
      continue;
    }
    if (mark >= first_end) {
      if (only_space_since_call()) {
        text_.clear();
        held_.clear();
        owed_ = false;
      } else {
        release();
      }
      continue;
    }
    named_ = false;
    close_ = {};
    early_.clear();
    bool seeming = true;  // the marker alone promises a call
    int ok = 0;
    switch (mark) {
      case tool_call_begin: ok = co_await tool_call(); break;
      case function_begin: ok = co_await function_tag(false); break;
      case python_begin: ok = co_await python_tag(); break;
      case mistral_begin: ok = co_await mistral(); break;
      case deepseek_calls_begin: ok = co_await deepseek(true); break;
      case deepseek_call_begin: ok = co_await deepseek(false); break;
      default:
        seeming = false;
        if (mark == recipient_begin) ok = co_await recipient();
        else if (last_ == '\n') ok = co_await fence();
    }
    if (keep_ == Keep::held) release_but_marker();
    if (ok == 0 && seeming) add_note("what looked like a call could not be read as one and stayed text");
  }
}

// Bytes that begin no marker.
std::size_t DialectParser::Impl::plain_run() {
  const char* const begin = in_.data();
  const char* const end = begin + in_.size();
  const char* first = end;
  for (std::size_t i = 0; i < trigger_count_; ++i) {
    const char*& found = found_.at(i);
    if (found == nullptr || found < begin) {
      const void* const hit = std::memchr(begin, triggers_.at(i), in_.size());
      found = hit != nullptr ? static_cast<const char*>(hit) : end;
    }
    first = std::min(first, found);
  }
  return static_cast<std::size_t>(first - begin);
}

Parse DialectParser::Impl::marker() {
  unsigned alive = beginning_with(held_, markers_);
  for (;;) {
    const int c = co_await peek();
    if (c < 0) {
      release();
      co_return -1;
    }
    take();
    alive = beginning_with(held_, alive);
    while (alive == 0) {
      // The byte just taken may go on with a marker that began later.
      plain(std::string_view(held_).substr(0, 1));
      held_.erase(0, 1);
      if (held_.empty()) co_return -1;
      alive = beginning_with(held_, markers_);
    }
    const int candidate = std::countr_zero(alive);
    if (markers[candidate].text.size() == held_.size()) co_return candidate;
  }
}

// The answer's first bytes, thoughts aside: a bare call, or the first recipient, whose ">>>" stood in the prompt.
Parse DialectParser::Impl::opening() {
  if (is_space(in_.front())) {
    const std::size_t run = std::min(in_.find_first_not_of(spaces), in_.size());
    plain(in_.substr(0, run));
    in_.remove_prefix(run);
    co_return 1;
  }
  if (in_.front() == '{' && (dialect_ == Dialect::llama3 || dialect_ == Dialect::automatic)) {
    family_ = Dialect::llama3;
    named_ = false;
    close_ = {};
    early_.clear();
    (void)co_await objects(true);
    at_opening_ = false;
    if (keep_ == Keep::held) release();
    co_return 1;
  }
  if (dialect_ != Dialect::functionary) co_return 0;
  const auto may_become_name = [this](int next) {
    const auto begins = [&](std::string_view name) {
      return name.size() > held_.size() && name.starts_with(held_) && static_cast<unsigned char>(name[held_.size()]) == next;
    };
    return begins("all") || std::any_of(tools_.begin(), tools_.end(), [&](const auto& tool) { return begins(tool.name); });
  };
  int c = co_await peek();
  while (c >= 0 && may_become_name(c)) {
    take();
    c = co_await peek();
  }
  if (held_.empty()) co_return 0;
  at_opening_ = false;
  if (c == '\n' && (held_ == "all" || known(held_))) {
    name_ = held_;
    take();
    if (name_ == "all") {
      held_.clear();
      last_ = '\n';
    } else {
      family_ = Dialect::functionary;
      close_ = {};
      early_.clear();
      named_ = true;
      if (co_await skip_space() == '{') (void)co_await arguments();
    }
  }
  if (keep_ == Keep::held) release();
  co_return 1;
}

// Bytes.

void DialectParser::Impl::take() { take(1); }

void DialectParser::Impl::take(std::size_t bytes) {
  const auto taken = in_.substr(0, bytes);
  if (keep_ == Keep::held) held_.append(taken);
  else if (keep_ == Keep::text) plain(taken);
  in_.remove_prefix(bytes);
}

std::string_view DialectParser::Impl::ahead() const {
  return keep_ == Keep::held ? in_.substr(0, max_undecided + 1 - std::min(held_.size(), max_undecided)) : in_;
}

void DialectParser::Impl::plain(std::string_view text) {
  if (text.empty()) return;
  if (at_opening_ && !thinking_ && text.find_first_not_of(spaces) != std::string_view::npos) at_opening_ = false;
  const std::size_t last = text.find_last_not_of(spaces);
  if (last == std::string_view::npos) {
    space_run_ += text.size();
  } else {
    space_run_ = text.size() - last - 1;
    if (owed_) add_note("the end marker of a call was missing");
    owed_ = false;
  }
  text_.append(text);
  last_ = text.back();
}

void DialectParser::Impl::release() {
  plain(held_);
  held_.clear();
}

void DialectParser::Impl::release_but_marker() {
  std::size_t from = std::min<std::size_t>(1, held_.size());
  if (held_.size() > max_marker) from = held_.size() - max_marker;
  while (from < held_.size() && beginning_with(std::string_view(held_).substr(from), markers_) == 0) ++from;
  const std::string rest = held_.substr(from);
  held_.resize(from);
  release();
  held_ = rest;
}

Parse DialectParser::Impl::skip_space() {
  for (;;) {
    const int c = co_await peek();
    if (!is_space(c) || held_.size() > max_undecided) co_return c;
    take();
  }
}

Parse DialectParser::Impl::literal(std::string_view text) {
  for (const char expected : text) {
    if (co_await peek() != static_cast<unsigned char>(expected)) co_return 0;
    take();
  }
  co_return 1;
}

Parse DialectParser::Impl::word(std::string_view ends, std::string& into) {
  into.clear();
  for (;;) {
    const int c = co_await peek();
    if (c < 0) co_return 0;
    if (ends.find(static_cast<char>(c)) != std::string_view::npos) co_return 1;
    if (c == '\n' || into.size() == max_word) co_return 0;
    into += static_cast<char>(c);
    take();
  }
}

Parse DialectParser::Impl::text_until(std::string_view end) {
  std::size_t matched = 0;  // `end` has its first byte once only, so a mismatch restarts it there
  while (matched < end.size()) {
    const int c = co_await peek();
    if (c < 0) co_return 0;
    matched = c == static_cast<unsigned char>(end[matched]) ? matched + 1 : c == static_cast<unsigned char>(end[0]) ? 1 : 0;
    take();
  }
  co_return 1;
}

// Pieces of JSON calls.

Parse DialectParser::Impl::string(std::string& into) {
  into.clear();
  take();
  JsonUnescape unescape;
  for (;;) {
    const int c = co_await peek();
    if (c < 0 || held_.size() > max_undecided) co_return 0;
    take();
    scratch_.clear();
    const auto step = unescape.push(static_cast<char>(c), scratch_);
    if (into.size() <= max_word) into += scratch_;
    if (step == JsonUnescape::Step::end) co_return 1;
    if (step == JsonUnescape::Step::broken) co_return 0;
  }
}

Parse DialectParser::Impl::skip_value() {
  json_ = JsonStream(JsonStream::Accept::any);
  while (json_.state() == JsonStream::State::open) {
    if (co_await peek() < 0 || held_.size() > max_undecided) co_return 0;
    scratch_.clear();
    take(json_.feed(ahead(), scratch_));
  }
  co_return json_.state() == JsonStream::State::done ? 1 : 0;
}

Parse DialectParser::Impl::objects(bool strict) {
  int c = co_await skip_space();
  const bool list = c == '[';
  if (list) {
    take();
    c = co_await skip_space();
  }
  for (bool any = false; c == '{'; any = true) {
    if (any) {
      keep_ = Keep::held;
      owed_ = false;  // one end marker for all
      named_ = false;
      early_.clear();
    }
    if (co_await call_object(strict) == 0) co_return 0;
    c = co_await skip_space();
    if (list && c == ']') {
      take();
      co_return 1;
    }
    if (c == ',' || (c == ';' && !list)) {
      if (keep_ == Keep::nothing) keep_ = Keep::held;
      take();
      c = co_await skip_space();
    } else if (c != '{' || list) {
      if (list) add_note("the bracket that ends a list of calls was missing");
      co_return 1;
    }
    if (c != '{') co_return 1;
  }
  co_return 0;
}

Parse DialectParser::Impl::call_object(bool strict) {
  const int before = calls_;
  bool has_arguments = false;
  const auto stop_here = [&] {
    if (calls_ > before) add_note("the closing bracket of a call was missing");
    else if (strict && named_) add_note("what looked like a call could not be read as one and stayed text");
    return calls_ > before || keep_ == Keep::text ? 1 : 0;
  };
  take();
  for (bool first = true;; first = false) {
    int c = co_await skip_space();
    if (c == '}') break;
    if (!first) {
      if (c != ',') co_return stop_here();
      take();
      c = co_await skip_space();
      if (c == '}') {
        add_note("a trailing comma was dropped");
        break;
      }
    }
    if (c != '"' || co_await string(key_) == 0) co_return stop_here();
    const bool of_arguments = key_ == "arguments" || key_ == "parameters" || key_ == "input";
    if (strict && !of_arguments && key_ != "name" && key_ != "id" && key_ != "type") co_return stop_here();
    if (co_await skip_space() != ':') co_return stop_here();
    take();
    c = co_await skip_space();
    if (keep_ == Keep::text) {
      if (co_await skip_value() == 0) co_return 1;
    } else if (key_ == "name" && !named_) {
      if (c != '"' || co_await string(name_) == 0) co_return 0;
      if (known(name_)) {
        named_ = true;
        if (has_arguments) {
          begin_call();
          end_call();
        }
      } else if (strict) {
        co_return 0;
      } else {
        unknown_tool();
      }
    } else if (!has_arguments && of_arguments) {
      has_arguments = true;
      if (co_await arguments() == 0) co_return stop_here();
    } else {
      if (co_await skip_value() == 0) co_return stop_here();
    }
  }
  if (calls_ == before && keep_ == Keep::held) {
    if (!named_ || (strict && !has_arguments)) co_return 0;
    begin_call();
    if (args_.empty()) args_ = "{}";
    end_call();
  }
  take();
  co_return 1;
}

Parse DialectParser::Impl::arguments() {
  const int c = co_await skip_space();
  if (c == '"') co_return co_await arguments_in_string();
  if (c == 'n') {
    if (co_await skip_value() == 0) co_return 0;
    early_ = "{}";
    if (may_begin()) {
      begin_call();
      end_call();
    }
    co_return 1;
  }
  if (c != '{') co_return 0;
  if (may_begin()) begin_call();
  json_ = JsonStream();
  while (json_.state() == JsonStream::State::open) {
    if (co_await peek() < 0) co_return cut_arguments() ? 1 : 0;
    if (held_.size() > max_undecided) co_return 0;
    take(json_.feed(ahead(), open_ ? args_ : early_));
  }
  if (!json_.mended().empty()) add_note("mended in the arguments: " + std::string(json_.mended()));
  if (json_.state() == JsonStream::State::broken) co_return open_ ? co_await broken_arguments() : 0;
  if (open_) end_call();
  co_return 1;
}

Parse DialectParser::Impl::arguments_in_string() {
  take();
  json_ = JsonStream();
  JsonUnescape unescape;
  std::string plain_text;
  bool empty = true, whole = true;
  for (auto step = JsonUnescape::Step::more; step == JsonUnescape::Step::more;) {
    const int c = co_await peek();
    if (c < 0) co_return cut_arguments() ? 1 : 0;
    if (held_.size() > max_undecided) co_return 0;
    if (whole && empty && c == '{' && may_begin()) begin_call();
    take();
    plain_text.clear();
    step = unescape.push(static_cast<char>(c), plain_text);
    if (step == JsonUnescape::Step::broken) {
      if (!open_) co_return 0;
      args_ += unescape.escape();
      co_return co_await broken_arguments();
    }
    std::string& into = open_ ? args_ : early_;
    std::string_view rest = plain_text;
    if (rest.find_first_not_of(spaces) != std::string_view::npos) empty = false;
    if (whole) {
      rest.remove_prefix(json_.feed(rest, into));
      if (rest.find_first_not_of(spaces) != std::string_view::npos) whole = false;
    }
    if (!whole) {
      if (!open_) co_return 0;
      into.append(rest);
    }
  }
  if (empty) {
    early_ = "{}";
    if (may_begin()) begin_call();
  } else if (!whole || json_.state() != JsonStream::State::done) {
    if (!open_) co_return 0;
    add_note("the arguments of " + name_ + " are no JSON object; they went out as written");
    end_call();
    co_return 1;
  }
  add_note("arguments given as a JSON text were unpacked");
  if (open_) end_call();
  co_return 1;
}

Parse DialectParser::Impl::broken_arguments() {
  add_note("the arguments of " + name_ + " are no valid JSON; they went out as written");
  std::string tail;  // may become the end marker
  for (;;) {
    if (co_await peek() < 0) break;
    tail += in_.front();
    take();
    while (!close_.starts_with(tail)) {
      args_ += tail.front();
      tail.erase(0, 1);
    }
    if (!tail.empty() && tail == close_) {
      end_call();
      owed_ = false;
      co_return 1;
    }
  }
  args_ += tail;
  end_call();
  co_return 1;
}

bool DialectParser::Impl::cut_arguments() {
  if (!open_) return false;
  if (reason_ == chat::FinishReason::stop && json_.close(args_)) add_note("the closing brackets of the last call were missing");
  else add_note("the answer ended inside the arguments of " + name_);
  end_call();
  owed_ = false;
  return true;
}

bool DialectParser::Impl::known(std::string_view tool) const {
  return std::any_of(tools_.begin(), tools_.end(), [&](const auto& spec) { return spec.name == tool; });
}

void DialectParser::Impl::unknown_tool() {
  std::string quoted;
  append_json_string(quoted, std::string_view(name_).substr(0, 64));
  add_note("a call of " + quoted + " stayed text: the request has no such tool");
  release();
  keep_ = Keep::text;
}

void DialectParser::Impl::begin_call() {
  flush_text(Flush::before_call);
  if (owed_) add_note("the end marker of a call was missing");
  owed_ = false;
  if (dialect_ == Dialect::automatic) choose(family_);
  out_->push_back(chat::ToolCallBegin{.choice = choice_, .index = calls_, .id = random_id("call_"), .name = name_});
  open_ = true;
  at_opening_ = false;
  keep_ = Keep::nothing;
  held_.clear();
  args_ = std::move(early_);
  early_.clear();
}

void DialectParser::Impl::end_call() {
  flush_arguments(true);
  out_->push_back(chat::ToolCallEnd{.choice = choice_, .index = calls_});
  ++calls_;
  open_ = false;
  after_call_ = true;
  owed_ = !close_.empty();
  last_ = '\n';
  space_run_ = 0;
}

// Events.

bool DialectParser::Impl::only_space_since_call() const { return after_call_ && text_.find_first_not_of(spaces) == std::string::npos; }

// Space next to a call is the call's margin, not text.
void DialectParser::Impl::flush_text(Flush how) {
  if (after_call_) {
    const std::size_t begin = text_.find_first_not_of(spaces);
    if (begin == std::string::npos) {
      if (how != Flush::chunk || text_.size() > max_held_space) text_.clear();
      return;
    }
    text_.erase(0, begin);
    after_call_ = false;
  }
  std::size_t size = text_.size();
  if (how != Flush::all && space_run_ <= max_held_space) size -= std::min(size, space_run_);
  if (how == Flush::chunk) size = utf8_complete_prefix(std::string_view(text_).substr(0, size));
  if (size > 0) {
    if (size == text_.size()) {
      out_->push_back(chat::TextDelta{.choice = choice_, .text = std::move(text_)});
      text_.clear();
      return;
    }
    out_->push_back(chat::TextDelta{.choice = choice_, .text = text_.substr(0, size)});
  }
  if (how == Flush::chunk) text_.erase(0, size);
  else text_.clear();
}

void DialectParser::Impl::flush_arguments(bool all) {
  const std::size_t size = all ? args_.size() : utf8_complete_prefix(args_);
  if (size == 0) return;
  out_->push_back(chat::ToolCallDelta{.choice = choice_, .index = calls_, .arguments = args_.substr(0, size)});
  args_.erase(0, size);
}

void DialectParser::Impl::add_note(std::string_view text) {
  if (note_.size() + text.size() > max_note || note_.find(text) != std::string::npos) return;
  if (!note_.empty()) note_ += "; ";
  note_ += text;
}

DialectParser::DialectParser(Dialect dialect, std::vector<chat::ToolSpec> tools, int choice)
    : impl_(std::make_unique<Impl>(dialect, std::move(tools), choice)) {}
DialectParser::~DialectParser() = default;
DialectParser::DialectParser(DialectParser&&) noexcept = default;
DialectParser& DialectParser::operator=(DialectParser&&) noexcept = default;

void DialectParser::feed(std::string_view text, chat::Events& out) { impl_->feed(text, out); }
void DialectParser::finish(chat::FinishReason reason, chat::Events& out) { impl_->finish(reason, out); }
const std::string& DialectParser::note() const { return impl_->note(); }

}  // namespace hearth::wire
