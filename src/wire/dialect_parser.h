// How a DialectParser works: one coroutine per parser walks the answer as if it were all there, and sleeps wherever the text fed so far ends. Reading ahead
// is one byte (peek) and nothing is read twice, so the cost is linear whatever the text and its chunks. Private to the dialects.
//
// Where a byte goes when it is taken is `keep_`'s decision: into held_, from where it returns as text if the seeming call is none; straight into the
// text (a call of an unknown tool); or nowhere (the syntax of a call that stands).
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "wire/dialect.h"
#include "wire/dialect_json.h"

namespace hearth::wire {

// What a text may not pass undecided: past this many bytes a seeming call goes out as text.
inline constexpr std::size_t max_undecided = 1U << 20;

// A piece of the walk. Its result is a byte, or whether what was looked for stood there.
class Parse {
 public:
  struct promise_type {
    struct Return {
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> done) const noexcept { return done.promise().caller; }
      void await_resume() const noexcept {}
    };
    std::coroutine_handle<> caller = std::noop_coroutine();
    int result = 0;

    Parse get_return_object() { return Parse(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    Return final_suspend() const noexcept { return {}; }
    void return_value(int value) { result = value; }
    void unhandled_exception() { throw; }
  };

  Parse(Parse&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Parse& operator=(Parse&&) = delete;
  ~Parse() {
    if (handle_) handle_.destroy();
  }

  std::coroutine_handle<> handle() const { return handle_; }
  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().caller = caller;
    return handle_;
  }
  int await_resume() const noexcept { return handle_.promise().result; }

 private:
  explicit Parse(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

// The types a Qwen-coder parameter may have, as bits.
struct ParameterTypes {
  enum : unsigned { string = 1, number = 2, boolean = 4, object = 8, array = 16, null = 32, any = 62 };
};
// Of the property `key` of a JSON Schema: `string` when the schema does not know it, `any` when it says no type.
unsigned parameter_types(const json::value& schema, std::string_view key);
// The JSON text of a parameter's value: itself where it is of one of the types, else a string.
std::string typed_parameter(std::string_view value, unsigned types);

class DialectParser::Impl {
 public:
  Impl(Dialect dialect, std::vector<chat::ToolSpec> tools, int choice);

  void feed(std::string_view text, chat::Events& out);
  void finish(chat::FinishReason reason, chat::Events& out);
  const std::string& note() const { return note_; }

 private:
  enum class Keep { held, text, nothing };
  enum class Flush { chunk, before_call, all };
  static constexpr std::size_t max_triggers = 4;

  struct Peek {
    Impl& parser;
    bool await_ready() const noexcept { return !parser.in_.empty() || parser.ended_; }
    void await_suspend(std::coroutine_handle<> sleeper) const noexcept { parser.waiting_ = sleeper; }
    // The next byte, or -1 at the end of the answer.
    int await_resume() const noexcept { return parser.in_.empty() ? -1 : static_cast<unsigned char>(parser.in_.front()); }
  };

  // The walk (dialect_parser.cpp).
  Parse walk();
  Parse marker();   // which of markers() stands here; its bytes are held then, else text
  Parse opening();  // what only the answer's first bytes may be
  void choose(Dialect dialect);
  std::size_t plain_run();

  // Bytes.
  Peek peek() { return {*this}; }
  void take();
  void take(std::size_t bytes);
  std::string_view ahead() const;  // no more than may be held: whether a text is too long depends on it, not on its chunks
  void plain(std::string_view text);
  void release();             // what is held becomes text
  void release_but_marker();  // but for an end that may begin a marker: the next one may have begun where this call broke

  // Pieces of every dialect.
  Parse skip_space();                                    // returns the byte after it
  Parse literal(std::string_view text);                  //
  Parse word(std::string_view ends, std::string& into);  // up to one of `ends`, which is not taken; no line break unless it is one of them
  Parse text_until(std::string_view end);                // as text, the end included
  Parse string(std::string& into);                       // a JSON string; `into` keeps its first bytes
  Parse skip_value();
  Parse objects(bool strict);      // {…}, several of them, or an array of them
  Parse call_object(bool strict);  // strict: silently none unless its keys are a call's and its tool is known
  Parse arguments();               // an object, or one written as a JSON text
  Parse arguments_in_string();
  Parse broken_arguments();  // as they are, to the call's end marker
  bool cut_arguments();      // the answer ends here
  bool may_begin() const { return named_ && !open_ && keep_ == Keep::held; }
  bool known(std::string_view tool) const;
  void unknown_tool();  // from here on the call is text
  void begin_call();
  void end_call();

  // Families (dialect_families.cpp, dialect_qwen.cpp).
  Parse tool_call();
  Parse function_tag(bool wrapped);
  Parse python_tag();
  Parse python_call();
  Parse mistral();
  Parse deepseek(bool wrapped);
  Parse recipient();
  Parse fence();
  Parse parameters(bool wrapped);
  Parse parameter_end();
  Parse parameter_value(unsigned types);

  // Events.
  void flush_text(Flush how);
  void flush_arguments(bool all);
  void add_note(std::string_view text);
  bool only_space_since_call() const;

  Dialect dialect_;
  const std::vector<chat::ToolSpec> tools_;
  const int choice_;

  std::string_view in_;  // what was fed and not yet taken
  bool ended_ = false;
  chat::FinishReason reason_ = chat::FinishReason::stop;
  std::coroutine_handle<> waiting_;  // the innermost sleeper
  chat::Events* out_ = nullptr;

  unsigned markers_ = 0;  // bit i: the i-th marker counts
  std::array<char, max_triggers> triggers_{};
  std::array<const char*, max_triggers> found_{};  // next occurrence of each in what was fed, once looked for
  std::size_t trigger_count_ = 0;

  Keep keep_ = Keep::text;
  std::string held_;
  std::string text_;           // not yet emitted: trailing space, half a character, what came in this feed
  char last_ = '\n';           // the text's last byte
  std::size_t space_run_ = 0;  // bytes of white space at the text's end
  bool at_opening_ = true;     // nothing but space and thoughts so far
  bool thinking_ = false;
  bool call_in_thought_ = false;
  bool after_call_ = false;  // text_ follows a call directly
  bool owed_ = false;        // that call's end marker has not come yet

  int calls_ = 0;
  bool open_ = false;       // between ToolCallBegin and ToolCallEnd
  bool named_ = false;      // name_ is known to be a tool
  Dialect family_;          // whose call is being read
  std::string_view close_;  // its end marker; empty when there is none
  std::string name_, key_;
  std::string early_;  // arguments that came before the name
  std::string args_;   // not yet emitted
  std::string scratch_;
  JsonStream json_;
  std::vector<std::pair<std::string_view, json::value>> schemas_;  // by tool, as far as they were needed

  std::string note_;
  Parse walk_;
};

}  // namespace hearth::wire
