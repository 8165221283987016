// Qwen-coder writes arguments as tags with bare values: <parameter=KEY>, a line break, the value, a line break, </parameter>. What a value is follows from the
// tool's JSON Schema alone. A string streams on as it comes; everything else waits for its end.
#include <algorithm>

#include "wire/dialect_parser.h"

namespace hearth::wire {
namespace {

constexpr int max_references = 8;           // followed in a schema
constexpr std::size_t max_tail_space = 64;  // between </parameter> and what follows it

enum Ender : int { none, next_parameter, function_end, tool_call_end };
constexpr std::string_view enders[] = {"<parameter=", "</function>", "</tool_call>"};
constexpr std::string_view value_end = "</parameter>";

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
std::string_view view(const json::string& text) { return {text.data(), text.size()}; }

unsigned type_bit(std::string_view name) {
  if (name == "string") return ParameterTypes::string;
  if (name == "number" || name == "integer") return ParameterTypes::number;
  if (name == "boolean") return ParameterTypes::boolean;
  if (name == "object") return ParameterTypes::object;
  if (name == "array") return ParameterTypes::array;
  if (name == "null") return ParameterTypes::null;
  return 0;
}

unsigned type_of(const json::value& value) {
  switch (value.kind()) {
    case json::kind::string: return ParameterTypes::string;
    case json::kind::bool_: return ParameterTypes::boolean;
    case json::kind::object: return ParameterTypes::object;
    case json::kind::array: return ParameterTypes::array;
    case json::kind::null: return ParameterTypes::null;
    default: return ParameterTypes::number;
  }
}

// What `schema` says its values are; 0 when it does not say.
unsigned types_of(const json::value& root, const json::value& schema, int depth) {
  const auto* object = schema.if_object();
  if (object == nullptr || depth > max_references) return 0;
  unsigned types = 0;
  if (const auto* type = object->if_contains("type")) {
    if (const auto* name = type->if_string()) types |= type_bit(view(*name));
    if (const auto* names = type->if_array()) {
      for (const auto& name : *names) types |= name.is_string() ? type_bit(view(name.get_string())) : 0;
    }
    return types;
  }
  if (const auto* value = object->if_contains("const")) return type_of(*value);
  if (const auto* values = object->if_contains("enum"); values != nullptr && values->is_array()) {
    for (const auto& value : values->get_array()) types |= type_of(value);
    return types;
  }
  for (const char* key : {"anyOf", "oneOf", "allOf"}) {
    if (const auto* branches = object->if_contains(key); branches != nullptr && branches->is_array()) {
      for (const auto& branch : branches->get_array()) types |= types_of(root, branch, depth + 1);
      return types;
    }
  }
  if (const auto* reference = object->if_contains("$ref"); reference != nullptr && reference->is_string()) {
    const auto path = view(reference->get_string());
    boost::json::error_code ec;
    const json::value* target = path.starts_with('#') ? root.find_pointer({path.data() + 1, path.size() - 1}, ec) : nullptr;
    if (target != nullptr) return types_of(root, *target, depth + 1);
  }
  if (object->contains("properties")) return ParameterTypes::object;
  if (object->contains("items")) return ParameterTypes::array;
  return 0;
}

// How far `tail` is the end of a value: a line break, </parameter>, space, and what may follow a parameter. Past-the-end markers inside a value are not
// followed so, which is how a file that holds "</parameter>" arrives whole.
struct Tail {
  enum class Is { no_end, undecided, end } is;
  Ender ender = none;
  bool closed = false;  // </parameter> is whole: an end, if the answer ends here
};
Tail judge(std::string_view tail) {
  if (tail.starts_with('\n')) tail.remove_prefix(1);
  if (tail.size() <= value_end.size()) {
    const bool fits = value_end.starts_with(tail);
    return {.is = fits ? Tail::Is::undecided : Tail::Is::no_end, .closed = fits && tail.size() == value_end.size()};
  }
  if (!tail.starts_with(value_end)) return {.is = Tail::Is::no_end};
  tail.remove_prefix(value_end.size());
  std::size_t space = 0;
  while (space < tail.size() && is_space(tail[space])) ++space;
  if (space > max_tail_space) return {.is = Tail::Is::no_end};
  tail.remove_prefix(space);
  for (std::size_t i = 0; i < std::size(enders); ++i) {
    if (tail == enders[i]) return {.is = Tail::Is::end, .ender = static_cast<Ender>(i + 1)};
    if (enders[i].starts_with(tail)) return {.is = Tail::Is::undecided, .closed = true};
  }
  return {.is = Tail::Is::no_end};
}

}  // namespace

unsigned parameter_types(const json::value& schema, std::string_view key) {
  const auto* object = schema.if_object();
  const auto* properties = object != nullptr ? object->if_contains("properties") : nullptr;
  const auto* known = properties != nullptr && properties->is_object() ? properties->get_object().if_contains(key) : nullptr;
  if (known == nullptr) return ParameterTypes::string;
  const unsigned types = types_of(schema, *known, 0);
  return types != 0 ? types : static_cast<unsigned>(ParameterTypes::any) | ParameterTypes::string;
}

std::string typed_parameter(std::string_view value, unsigned types) {
  std::string_view bare = value;
  while (!bare.empty() && is_space(bare.front())) bare.remove_prefix(1);
  while (!bare.empty() && is_space(bare.back())) bare.remove_suffix(1);
  if (bare == "True") bare = "true";
  else if (bare == "False") bare = "false";
  else if (bare == "None") bare = "null";
  if (const auto parsed = parse_json(bare); parsed && !parsed->is_string() && (type_of(*parsed) & types) != 0) {
    // Where a string would do as well, only what nobody writes as a string is something else.
    const bool either = (types & ParameterTypes::string) != 0 && types != (ParameterTypes::any | ParameterTypes::string);
    if (!either || parsed->is_object() || parsed->is_array() || parsed->is_null()) return std::string(bare);
  }
  std::string text;
  append_json_string(text, value);
  return text;
}

// From <function=NAME> on: <parameter=…>s to the function's end.
Parse DialectParser::Impl::parameters(bool wrapped) {
  close_ = wrapped ? std::string_view("</tool_call>") : std::string_view();
  int ender = co_await parameter_end();
  if (ender == none) co_return 0;
  begin_call();
  args_ = "{";
  json_ = JsonStream();  // nothing that cut_arguments() could close
  auto schema = std::find_if(schemas_.begin(), schemas_.end(), [&](const auto& entry) { return entry.first == name_; });
  if (schema == schemas_.end() && ender == next_parameter) {
    const auto tool = std::find_if(tools_.begin(), tools_.end(), [&](const auto& spec) { return spec.name == name_; });
    auto parsed = parse_json(tool->parameters);
    schemas_.emplace_back(tool->name, parsed ? std::move(parsed).value() : json::value());
    schema = schemas_.end() - 1;
  }
  for (bool first = true; ender == next_parameter; first = false) {
    if (co_await word(">", key_) == 0) {
      args_ += std::string(enders[0]) + key_;
      co_return co_await broken_arguments();
    }
    take();
    if (!first) args_ += ", ";
    append_json_string(args_, key_);
    args_ += ": ";
    ender = co_await parameter_value(parameter_types(schema->second, key_));
    if (ender < 0) co_return cut_arguments() ? 1 : 0;
  }
  args_ += '}';
  end_call();
  if (ender == tool_call_end) owed_ = false;
  co_return 1;
}

// Which of `enders` stands here.
Parse DialectParser::Impl::parameter_end() {
  std::string tag;
  for (;;) {
    const int c = co_await peek();
    if (c < 0) co_return none;
    tag += static_cast<char>(c);
    bool alive = false;
    for (const auto& ender : enders) alive = alive || ender.starts_with(tag);
    if (!alive) co_return none;
    take();
    for (std::size_t i = 0; i < std::size(enders); ++i) {
      if (tag == enders[i]) co_return static_cast<int>(i) + 1;
    }
  }
}

// To the value's end and past it. Returns what followed, function_end where the answer ends with the parameter whole, -1 where it ends inside.
Parse DialectParser::Impl::parameter_value(unsigned types) {
  bool streams = types == ParameterTypes::string;
  std::string value, tail;
  if (streams) args_ += '"';
  const auto add = [&](std::string_view bytes) {
    if (!streams) value += bytes;
    else
      for (const char c : bytes) append_json_escaped(args_, c);
  };
  int ender = none;
  for (bool first = true; ender == none; first = false) {
    const int c = co_await peek();
    if (c < 0) break;
    if (first && c == '\n') {
      take();
      continue;
    }
    if (value.size() > max_undecided) {
      streams = true;
      args_ += '"';
      add(std::exchange(value, {}));
    }
    if (tail.empty()) {
      const auto ahead = in_.substr(0, max_undecided);
      const std::size_t run = std::min(ahead.find_first_of("\n<"), ahead.size());
      add(ahead.substr(0, run));
      take(run);
      if (run > 0) continue;
    }
    tail += static_cast<char>(c);
    take();
    Tail judged = judge(tail);
    while (judged.is == Tail::Is::no_end) {
      add(std::string_view(tail).substr(0, 1));
      tail.erase(0, 1);
      const std::size_t next = std::min(tail.find_first_of("\n<"), tail.size());
      add(std::string_view(tail).substr(0, next));
      tail.erase(0, next);
      if (tail.empty()) break;
      judged = judge(tail);
    }
    if (judged.is == Tail::Is::end) ender = judged.ender;
  }
  if (ender == none) {
    if (reason_ != chat::FinishReason::stop || !judge(tail).closed) {
      if (!streams) args_ += value;
      add(tail);
      co_return -1;
    }
    add_note("the end markers of the last call were missing");
    ender = tool_call_end;
  }
  if (streams) args_ += '"';
  else args_ += typed_parameter(value, value.size() > max_undecided ? static_cast<unsigned>(ParameterTypes::string) : types);
  co_return ender;
}

}  // namespace hearth::wire
