// Functions and builtins of the shell itself: what changes the state of the walk, and what runs text or words as further commands.
#include <algorithm>
#include <charconv>
#include <utility>

#include "safety/shell_interpreter.h"

namespace hearth::safety {
namespace {

constexpr int deepest_calls = 12;  // of functions within functions

Value value_of(const Word& word) {
  return {.text = word.text, .exact = word.exact && !word.glob, .glob = word.glob, .substitution = word.substitution};
}

// A word as text that a shell reads as that word again.
std::string shell_quoted(const Word& word) {
  if (word.glob) return word.text;
  std::string out = "'";
  for (char c : word.text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

bool is_variable_name(std::string_view text) {
  return !text.empty() && !(text[0] >= '0' && text[0] <= '9') && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

Outcome Interpreter::run_command(Command command, Setting setting) {
  if (over_budget() || ++level_ > 300) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  const Word& first = command.words[0];
  std::optional<Outcome> outcome;
  if (first.exact && !first.glob) {
    const std::string name = first.text;
    if (const auto alias = state_.aliases.find(name); alias != state_.aliases.end() && !first.quoted && running_["alias " + name] == 0) {
      std::string text = alias->second;
      for (std::size_t i = 1; i < command.words.size(); ++i) text += " " + shell_quoted(command.words[i]);
      setting.wrappers.push_back("alias");
      ++running_["alias " + name];
      outcome = run_nested(std::move(text), setting);
      --running_["alias " + name];
      keep_output(command, *outcome);
    } else if (functions_.contains(name)) {
      outcome = run_function(name, command, setting);
    } else {
      outcome = run_builtin(name, command, setting);
      if (!outcome) {
        std::string program = name;
        program.erase(0, program.rfind('/') + 1);  // npos + 1 = 0
        outcome = run_wrapper(program, command, setting);
      }
    }
  }
  if (!outcome) outcome = note(std::move(command), setting);
  --level_;
  return *outcome;
}

Outcome Interpreter::run_function(const std::string& name, const Command& command, Setting setting) {
  Function& function = functions_[name];
  function.called = true;
  int& depth = running_[name];
  if (depth > 0) {
    // It calls itself: the second round shows what the first may have left, a third adds nothing.
    Setting marked = setting;
    marked.wrappers.push_back("recursion");
    Outcome outcome = note(command, marked);
    outcome.output.reset();
    if (depth > 1) return outcome;
  }
  if (static_cast<int>(std::count(setting.wrappers.begin(), setting.wrappers.end(), "function")) > deepest_calls) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  if (!command.redirects.empty()) {
    Command redirects;
    redirects.redirects = command.redirects;
    note(std::move(redirects), setting);
  }
  setting.wrappers.push_back("function");
  const auto positional = state_.positional;
  const bool known = state_.positional_known;
  state_.positional.clear();
  for (std::size_t i = 1; i < command.words.size(); ++i) state_.positional.push_back(value_of(command.words[i]));
  state_.positional_known = true;
  ++depth;
  const Function copy = function;
  Outcome outcome = run_node(*copy.program, copy.body, setting);
  --running_[name];
  state_.positional = positional;
  state_.positional_known = known;
  keep_output(command, outcome);
  return outcome;
}

void Interpreter::change_folder(const std::vector<Word>& words) {
  std::size_t i = 1;
  while (i < words.size() && words[i].text.size() > 1 && words[i].text[0] == '-' && words[i].text != "--") ++i;
  if (i < words.size() && words[i].text == "--") ++i;
  std::string folder;
  if (i >= words.size()) {
    bool exact = true;
    folder = tilde("", exact);
    if (!exact) folder = "/?";
  } else if (!words[i].exact || words[i].glob) {
    folder = "/?";
  } else if (words[i].text == "-") {
    folder = state_.previous_folder.empty() ? "/?" : state_.previous_folder;
  } else if (words[i].text.empty()) {
    folder = state_.folder;
  } else {
    folder = canonical(words[i].text);
  }
  state_.previous_folder = state_.folder.empty() ? "." : state_.folder;
  state_.folder = std::move(folder);
  state_.other_folders.clear();
}

Outcome Interpreter::declare(const std::string& name, Command& command, const Setting& setting) {
  bool exports = name == "export";
  for (std::size_t i = 1; i < command.words.size(); ++i) {
    const Word& word = command.words[i];
    if (word.text.starts_with('-') || word.text.starts_with('+')) {
      exports = exports || (word.text[0] == '-' && word.text.find('x') != std::string::npos);
      continue;
    }
    const std::size_t equals = word.text.find('=');
    std::string variable = word.text.substr(0, equals);
    const bool appends = variable.ends_with('+');
    if (appends) variable.pop_back();
    if (!is_variable_name(variable)) continue;
    if (equals != std::string::npos) {
      Value value{.text = word.text.substr(equals + 1), .exact = word.exact, .substitution = word.substitution};
      const Variable* now = find(variable);
      // An array, or an append, was stored while its word was read.
      const bool stored = appends || (now != nullptr && now->array);
      if (!stored) set(variable, value);
      command.assignments.push_back(
          {.name = variable, .value = {.text = value.text, .exact = value.exact, .substitution = value.substitution}, .exported = exports});
    } else if (exports) {
      const Variable* now = find(variable);
      if (now != nullptr && now->is_set && !now->elements.empty()) {
        command.assignments.push_back(
            {.name = variable, .value = {.text = now->elements[0].text, .exact = now->elements[0].exact}, .exported = true});
      }
    } else if (name != "readonly" && find(variable) == nullptr) {
      state_.variables[variable] = Variable{.is_set = false};
    }
    if (exports) state_.variables[variable].exported = true;
  }
  Outcome outcome = note(command, setting);
  outcome.output = command.words.size() > 1 ? std::optional<std::string>("") : std::nullopt;
  outcome.status = Outcome::Status::success;
  return outcome;
}

Outcome Interpreter::read_input(const Command& command, const Setting& setting) {
  std::vector<std::string> names;
  bool array = false;
  bool raw = false;
  std::string delimiter = "\n";
  for (std::size_t i = 1; i < command.words.size(); ++i) {
    const std::string& word = command.words[i].text;
    if (word.size() > 1 && word[0] == '-') {
      for (std::size_t at = 1; at < word.size(); ++at) {
        if (word[at] == 'r') raw = true;
        const bool takes_value = std::string_view("adinNptu").find(word[at]) != std::string_view::npos;
        if (!takes_value) continue;
        std::string value = word.substr(at + 1);
        if (value.empty() && i + 1 < command.words.size()) value = command.words[++i].text;
        if (word[at] == 'a') {
          array = true;
          names = {value};
        }
        if (word[at] == 'd') delimiter = value.empty() ? std::string(1, '\0') : value.substr(0, 1);
        break;
      }
    } else if (!array) {
      names.push_back(word);
    }
  }
  if (names.empty()) names.push_back("REPLY");
  Outcome outcome = note(command, setting);
  outcome.output = "";
  std::optional<std::string> line;
  if (setting.input != nullptr && setting.input->text) {
    std::string& text = *setting.input->text;
    const std::size_t end = text.find(delimiter);
    line = text.substr(0, end);
    outcome.status = end == std::string::npos ? Outcome::Status::failure : Outcome::Status::success;
    text.erase(0, end == std::string::npos ? end : end + 1);
    if (!raw && line->find('\\') != std::string::npos) line.reset();
  }
  std::string separators = " \t\n";
  if (const Variable* ifs = find("IFS"); ifs != nullptr && ifs->is_set && !ifs->elements.empty()) separators = ifs->elements[0].text;
  if (!line) {
    for (const std::string& name : names) {
      Value value = Value::unknown();
      if (setting.input != nullptr)
        if (const auto places = setting.input->places(); places.size() == 1) value.text = places[0];
      set(name, value);
      state_.variables[name].array = array;
    }
    return outcome;
  }
  // Split as IFS says; the last name takes the rest.
  std::vector<Value> fields;
  std::size_t at = 0;
  const auto blank = [&](char c) { return (c == ' ' || c == '\t' || c == '\n') && separators.find(c) != std::string::npos; };
  while (at < line->size() && blank((*line)[at])) ++at;
  while (at < line->size() && (array || fields.size() + 1 < names.size())) {
    const std::size_t end = separators.empty() ? line->size() : std::min(line->find_first_of(separators, at), line->size());
    fields.push_back({.text = line->substr(at, end - at)});
    at = std::min(end + 1, line->size());
    while (at < line->size() && blank((*line)[at])) ++at;
  }
  if (array) {
    state_.variables[names[0]] = Variable{.elements = fields, .array = true};
    return outcome;
  }
  std::string rest = line->substr(at);
  while (!rest.empty() && blank(rest.back())) rest.pop_back();
  fields.push_back({.text = rest});
  for (std::size_t i = 0; i < names.size(); ++i) set(names[i], i < fields.size() ? fields[i] : Value{});
  return outcome;
}

std::optional<Outcome> Interpreter::run_builtin(const std::string& name, Command& command, const Setting& setting) {
  std::vector<Word>& words = command.words;
  const auto succeed = [&](Outcome outcome) {
    outcome.output = "";
    outcome.status = Outcome::Status::success;
    return outcome;
  };
  if (name == "cd" || name == "pushd" || name == "chdir") {
    Outcome outcome = note(command, setting);
    change_folder(words);
    return succeed(std::move(outcome));
  }
  if (name == "popd") {
    Outcome outcome = note(command, setting);
    std::swap(state_.folder, state_.previous_folder);
    if (state_.folder.empty()) state_.folder = "/?";
    return succeed(std::move(outcome));
  }
  if (name == "export" || name == "declare" || name == "typeset" || name == "local" || name == "readonly")
    return declare(name, command, setting);
  if (name == "unset") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      if (!is_variable_name(words[i].text)) continue;
      state_.variables[words[i].text] = Variable{.is_set = false};
      if (words.size() > 2 && words[1].text == "-f") functions_.erase(words[i].text);
    }
    return succeed(note(command, setting));
  }
  if (name == "set") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      if (words[i].text == "-o" || words[i].text == "+o") {
        ++i;
        continue;
      }
      const bool ends = words[i].text == "--" || words[i].text == "-";
      if (!ends && (words[i].text.starts_with('-') || words[i].text.starts_with('+'))) continue;
      state_.positional.clear();
      for (std::size_t at = ends ? i + 1 : i; at < words.size(); ++at) state_.positional.push_back(value_of(words[at]));
      state_.positional_known = true;
      break;
    }
    return succeed(note(command, setting));
  }
  if (name == "shift") {
    std::size_t count = 1;
    if (words.size() > 1) std::from_chars(words[1].text.data(), words[1].text.data() + words[1].text.size(), count);
    count = std::min(count, state_.positional.size());
    state_.positional.erase(state_.positional.begin(), state_.positional.begin() + static_cast<std::ptrdiff_t>(count));
    return succeed(note(command, setting));
  }
  if (name == "let") {
    for (std::size_t i = 1; i < words.size(); ++i) arithmetic(words[i].text, setting);
    return note(command, setting);
  }
  if (name == "read") return read_input(command, setting);
  if (name == "mapfile" || name == "readarray") {
    const std::string variable = words.size() > 1 && is_variable_name(words.back().text) ? words.back().text : "MAPFILE";
    Variable lines{.array = true};
    if (setting.input != nullptr && setting.input->text) {
      const bool strips = std::any_of(words.begin(), words.end(), [](const Word& word) { return word.text == "-t"; });
      std::string& text = *setting.input->text;
      for (std::size_t at = 0; at < text.size() && lines.elements.size() < 4096;) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        lines.elements.push_back({.text = text.substr(at, end - at) + (strips ? "" : "\n")});
        at = end + 1;
      }
    } else {
      lines.elements.push_back(Value::unknown());
      if (setting.input != nullptr)
        if (const auto places = setting.input->places(); places.size() == 1) lines.elements[0].text = places[0];
    }
    state_.variables[variable] = std::move(lines);
    return succeed(note(command, setting));
  }
  if (name == "printf" && words.size() > 2 && words[1].text == "-v") {
    std::vector<Word> rest{words[0]};
    rest.insert(rest.end(), words.begin() + 3, words.end());
    const auto text = pure_output(rest, std::nullopt, {});
    if (is_variable_name(words[2].text)) set(words[2].text, text ? Value{.text = *text} : Value::unknown());
    return succeed(note(command, setting));
  }
  if (name == "alias") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      const std::size_t equals = words[i].text.find('=');
      if (equals == std::string::npos || equals == 0) continue;
      state_.aliases[words[i].text.substr(0, equals)] = words[i].text.substr(equals + 1);
    }
    return succeed(note(command, setting));
  }
  if (name == "unalias") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      if (words[i].text == "-a") state_.aliases.clear();
      else state_.aliases.erase(words[i].text);
    }
    return succeed(note(command, setting));
  }
  if (name == "trap") {
    Outcome outcome = note(command, setting);
    std::size_t i = 1;
    if (i < words.size() && words[i].text == "--") ++i;
    if (i + 1 < words.size() && words[i].text != "-" && !words[i].text.empty() && !words[i].text.starts_with("-")) {
      set_trap(command, words[i], setting);
    }
    return succeed(std::move(outcome));
  }
  if (name == "eval") {
    if (words.size() > 1 && words[1].text == "--") words.erase(words.begin() + 1);
    Word text;
    for (std::size_t i = 1; i < words.size(); ++i) {
      if (i > 1) text.text += ' ';
      text.text += words[i].text;
      text.exact = text.exact && words[i].exact && !words[i].glob;
      text.substitution = text.substitution || words[i].substitution;
    }
    if (words.size() == 1) return succeed(note(command, setting));
    Outcome outcome = run_inner_text(command, text, state_.positional, setting, "eval");
    return outcome;
  }
  if (name == "source" || name == ".") {
    if (words.size() < 2) return note(command, setting);
    const auto text = content(words[1]);
    if (!text) return note(command, setting);
    const auto positional = state_.positional;
    if (words.size() > 2) {
      state_.positional.clear();
      for (std::size_t i = 2; i < words.size(); ++i) state_.positional.push_back(value_of(words[i]));
    }
    Setting inner = setting;
    inner.wrappers.push_back("source");
    Outcome outcome = run_nested(*text, inner);
    state_.positional = positional;
    keep_output(command, outcome);
    return outcome;
  }
  if (name == "command" || name == "builtin" || name == "exec") {
    std::size_t i = 1;
    bool shows = false;
    while (i < words.size() && words[i].text.size() > 1 && words[i].text[0] == '-' && words[i].text != "--") {
      shows = shows || (name == "command" && words[i].text.find_first_of("vV") != std::string::npos);
      if (name == "exec" && words[i].text.find('a') != std::string::npos) ++i;
      ++i;
    }
    if (i < words.size() && words[i].text == "--") ++i;
    if (shows || i >= words.size()) {
      Outcome outcome = note(command, setting);
      if (name == "exec") outcome.status = Outcome::Status::success;
      return outcome;
    }
    return run_inner(command, i, setting, name);
  }
  if (name == "exit" || name == "return" || name == "break" || name == "continue" || name == "wait" || name == "shopt" || name == "hash" ||
      name == "umask") {
    return succeed(note(command, setting));
  }
  return std::nullopt;
}

}  // namespace hearth::safety
