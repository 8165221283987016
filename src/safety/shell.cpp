#include "safety/shell.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/utf8.h"
#include "safety/paths.h"
#include "safety/shell_interpreter.h"

namespace hearth::safety {
namespace {

constexpr std::size_t most_iterations = 200;  // of one loop
constexpr std::size_t longest_excerpt = 200;
constexpr int deepest_walk = 300;

std::string excerpt_of(std::string_view text) {
  if (text.size() <= longest_excerpt) return std::string(text);
  const std::string_view cut = text.substr(0, longest_excerpt - 3);
  return std::string(cut.substr(0, utf8_complete_prefix(cut))) + "…";
}

// Ill-formed bytes become an unknown part: what a shell makes of them depends on its locale.
std::string well_formed(std::string_view text) {
  if (is_valid_utf8(text)) return std::string(text);
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_sequence_length(text.substr(at));
    if (length == 0) {
      out += unknown_part;
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

// NAME=, NAME+=, NAME[…]= at the start of a word.
bool is_assignment(const WordSyntax& word) {
  if (word.atoms.empty() || word.atoms[0].kind != Atom::Kind::literal || word.atoms[0].quoted) return false;
  const std::string& head = word.atoms[0].text;
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  std::size_t at = 0;
  while (at < head.size() && (letter(head[at]) || (at > 0 && head[at] >= '0' && head[at] <= '9'))) ++at;
  if (at == 0) return false;
  if (at < head.size() && head[at] == '[') {
    const std::size_t close = head.find(']', at);
    if (close == std::string::npos) return false;
    at = close + 1;
  }
  if (at < head.size() && head[at] == '+') ++at;
  return at < head.size() && head[at] == '=';
}

Error misread(const Syntax& syntax, const Error& error) {
  // The place in the skeleton, to the command that stands there.
  std::size_t place = 0;
  for (char c : error.param) place = c >= '0' && c <= '9' ? place * 10 + static_cast<std::size_t>(c - '0') : place;
  std::uint32_t at = 0;
  for (const auto& [where, simple] : syntax.simples) {
    if (where > place) break;
    at = simple.end;
  }
  const std::string_view before = syntax.source.substr(0, at);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t column = at - (before.rfind('\n') + 1) + 1;
  return Error{.code = error.code, .message = "line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + error.message};
}

}  // namespace

std::vector<std::string> Stream::places() const {
  std::vector<std::string> out;
  if (!names || names->lines != PrintedNames::Lines::names) return out;
  for (const NamesBelow& place : names->places) {
    out.push_back(place.root.text);
    if (place.below.empty()) continue;
    if (!out.back().ends_with('/')) out.back() += '/';
    out.back() += unknown_part;
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  // A file or folder, and what is below it, if it is one.
  std::erase_if(out, [all = out](const std::string& place) {
    return std::find(all.begin(), all.end(), place + "/" + std::string(unknown_part)) != all.end();
  });
  return out;
}

void Outcome::then(Outcome next) {
  if (output && output->empty()) {
    names = std::move(next.names);
  } else if (!(next.output && next.output->empty())) {
    if (names && next.names && names->lines == next.names->lines)
      names->places.insert(names->places.end(), next.names->places.begin(), next.names->places.end());
    else names.reset();
  }
  if (output && next.output) {
    *output += *next.output;
    if (output->size() > longest_script) output.reset();
  } else {
    output.reset();
  }
  status = next.status;
  if (next.last >= 0) last = next.last;
}

Interpreter::Interpreter(const Action& action, Script& script) : action_(action), script_(script) {
  state_.folder = action.where.working_folder;
  const auto known = [&](const char* name, std::string value, bool exact) {
    state_.variables[name] = {.elements = {{.text = std::move(value), .exact = exact}}, .exported = true};
  };
  known("HOME", action.where.home, true);
  known("USER", action.where.user, true);
  known("LOGNAME", action.where.user, true);
  known("IFS", " \t\n", true);
  // Likely values: good enough to see what `${PATH:0:1}` is about, not good enough to rely on.
  known("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", false);
  known("SHELL", "/bin/bash", false);
  known("BASH", "/bin/bash", false);
  known("TMPDIR", "/tmp", false);
  known("XDG_CONFIG_HOME", action.where.home + "/.config", false);
  known("XDG_DATA_HOME", action.where.home + "/.local/share", false);
  known("XDG_CACHE_HOME", action.where.home + "/.cache", false);
  known("OSTYPE", "linux-gnu", false);
  known("PS2", "> ", false);
  known("PS4", "+ ", false);
}

Result<void> Interpreter::run(std::string_view text) {
  source_ = text;
  auto syntax = scan_shell(text, store_, counted_);
  if (!syntax.ok()) {
    if (syntax.error().code != ErrorCode::payload_too_large) return syntax.error();
    script_.truncated = true;
    return {};
  }
  auto program = read(*syntax);
  if (!program.ok()) return program.error();
  if (!(*program)->nodes.empty()) run_node(**program, 0, Setting{});
  walk_traps(true);
  // What was defined and not called yet may be called later.
  for (auto it = functions_.begin(); it != functions_.end(); ++it) {
    if (it->second.called) continue;
    it->second.called = true;
    const ShellState before = state_;
    state_.positional.clear();
    state_.positional_known = false;
    Setting setting;
    setting.wrappers.push_back("function");
    const Function function = it->second;
    ++running_[it->first];
    run_node(*function.program, function.body, setting);
    --running_[it->first];
    state_ = before;
  }
  return {};
}

Result<std::shared_ptr<const Program>> Interpreter::read(const std::shared_ptr<const Syntax>& syntax) {
  if (const auto it = programs_.find(syntax.get()); it != programs_.end()) return it->second;
  auto program = std::make_shared<Program>();
  program->syntax = syntax;
  if (syntax->simples.empty() && syntax->skeleton.find_first_not_of(" \n") == std::string::npos) {
    program->nodes.push_back({.kind = TreeNode::Kind::program});
  } else if (syntax->one_command) {
    const std::uint32_t at = syntax->simples.begin()->first;
    program->nodes.push_back({.kind = TreeNode::Kind::program, .end = at + 1, .first_child = 1});
    program->nodes.push_back({.kind = TreeNode::Kind::command, .begin = at, .end = at + 1});
  } else {
    auto nodes = parse_skeleton(syntax->skeleton);
    if (!nodes.ok()) return misread(*syntax, nodes.error());
    // The grammar must see each command where the scan put it, and no other.
    std::size_t commands = 0;
    for (const TreeNode& node : *nodes) {
      if (node.kind != TreeNode::Kind::command) continue;
      ++commands;
      if (!syntax->simples.contains(node.begin)) {
        return misread(*syntax, Error{.code = ErrorCode::invalid_request,
                                      .message = "the shell would not take what stands here",
                                      .param = std::to_string(node.begin)});
      }
    }
    if (commands != syntax->simples.size()) {
      return misread(*syntax,
                     Error{.code = ErrorCode::invalid_request, .message = "the shell would not take what stands here", .param = "0"});
    }
    program->nodes = std::move(*nodes);
  }
  syntaxes_.push_back(syntax);
  programs_[syntax.get()] = program;
  return std::shared_ptr<const Program>(program);
}

Outcome Interpreter::run_syntax(const std::shared_ptr<const Syntax>& syntax, const Setting& setting) {
  const auto program = read(syntax);
  if (!program.ok()) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  return run_node(**program, 0, setting);
}

Outcome Interpreter::run_nested(std::string text, Setting setting) {
  if (++setting.depth > deepest_nesting || text.size() > longest_script) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  auto syntax = scan_shell(store_.keep(std::move(text)), store_, counted_, setting.depth);
  if (!syntax.ok()) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  return run_syntax(*syntax, setting);
}

bool Interpreter::over_budget() {
  if (script_.commands.size() >= most_commands || ++steps_ > 4 * most_commands) script_.truncated = true;
  return script_.commands.size() >= most_commands || steps_ > 4 * most_commands;
}

void Interpreter::merge(const ShellState& other) {
  for (auto& [name, variable] : state_.variables) {
    const auto it = other.variables.find(name);
    if (it == other.variables.end()) {
      if (variable.elements.size() == 1 && !variable.array) variable.elements[0].exact = false;  // or that of the environment
      else variable = Variable{.elements = {Value::unknown()}};
    } else if (!(it->second == variable)) {
      variable = Variable{.elements = {Value::unknown()}};
    }
  }
  for (const auto& [name, variable] : other.variables) {
    if (!state_.variables.contains(name)) state_.variables[name] = Variable{.elements = {Value::unknown()}};
  }
  state_.aliases.insert(other.aliases.begin(), other.aliases.end());
  if (state_.positional.size() != other.positional.size() ||
      !std::equal(state_.positional.begin(), state_.positional.end(), other.positional.begin())) {
    state_.positional_known = false;
  }
  const auto also = [&](const std::string& folder) {
    auto& others = state_.other_folders;
    if (folder != state_.folder && std::find(others.begin(), others.end(), folder) == others.end() && others.size() < 4)
      others.push_back(folder);
  };
  also(other.folder);
  for (const std::string& folder : other.other_folders) also(folder);
}

namespace {

constexpr std::size_t most_traps = 32;
constexpr int most_trap_walks = 32;

// The variables that a text mentions: $name, ${name…}.
void mentioned(std::string_view text, std::map<std::string, std::optional<Variable>>& out) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  for (auto at = text.find('$'); at != std::string_view::npos; at = text.find('$', at + 1)) {
    std::size_t begin = at + 1;
    while (begin < text.size() && (text[begin] == '{' || text[begin] == '!' || text[begin] == '#')) ++begin;
    std::size_t end = begin;
    while (end < text.size() && (letter(text[end]) || (end > begin && text[end] >= '0' && text[end] <= '9'))) ++end;
    if (end > begin) out.emplace(std::string(text.substr(begin, end - begin)), std::nullopt);
  }
}

}  // namespace

void Interpreter::set_trap(const Command& command, const Word& text, const Setting& setting) {
  Trap trap{.command = command, .text = text, .setting = setting, .state = state_, .values = {}};
  mentioned(text.text, trap.values);
  // A function of the text's: what stands in it.
  if (const auto function = functions_.find(text.text.substr(0, text.text.find_first_of(" ;\n"))); function != functions_.end()) {
    const Program& program = *function->second.program;
    const TreeNode& body = program.nodes[static_cast<std::size_t>(function->second.body)];
    const auto& simples = program.syntax->simples;
    for (auto at = simples.lower_bound(body.begin); at != simples.end() && at->first < body.end; ++at)
      mentioned(program.syntax->source.substr(at->second.begin, at->second.end - at->second.begin), trap.values);
  }
  bool later = false;
  for (auto& [name, value] : trap.values) {
    const Variable* known = find(name);
    if (known != nullptr) value = *known;
    else later = later || source_.find(name + "=") != std::string_view::npos;
  }
  if (traps_.size() >= most_traps || in_trap_) later = false;
  if (!later) {
    const ShellState before = state_;
    const bool nested = std::exchange(in_trap_, true);
    run_inner_text(command, text, state_.positional, setting, "trap");
    in_trap_ = nested;
    state_ = before;
    trap.walked = true;
  }
  if (traps_.size() < most_traps) traps_.push_back(std::move(trap));
}

void Interpreter::walk_traps(bool at_end) {
  if (in_trap_) return;
  in_trap_ = true;
  for (std::size_t i = 0; i < traps_.size(); ++i) {
    Trap& trap = traps_[i];
    bool changed = false;
    for (auto& [name, value] : trap.values) {
      const Variable* known = find(name);
      if (known == nullptr || (value && *value == *known)) continue;
      value = *known;
      changed = true;
    }
    if (!changed && !(at_end && !trap.walked)) continue;
    if (++trap.times > most_trap_walks) {
      script_.truncated = true;
      continue;
    }
    const ShellState before = state_;
    if (!changed) state_ = trap.state;
    trap.walked = true;
    const Trap now = trap;  // the walk may set further traps
    run_inner_text(now.command, now.text, state_.positional, now.setting, "trap");
    state_ = before;
  }
  in_trap_ = false;
}

Outcome Interpreter::run_node(const Program& program, Node index, const Setting& setting) {
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  if (over_budget()) return {.output = std::nullopt};
  if (++level_ > deepest_walk) {
    script_.truncated = true;
    --level_;
    return {.output = std::nullopt};
  }
  Outcome outcome;
  switch (node.kind) {
    case TreeNode::Kind::program: outcome = run_children(program, node.first_child, setting); break;
    case TreeNode::Kind::list: outcome = run_list(program, index, setting); break;
    case TreeNode::Kind::pipeline: outcome = run_pipeline(program, index, setting); break;
    case TreeNode::Kind::function: {
      const auto name = program.syntax->functions.find(node.begin);
      Node body = node.first_child;
      while (body >= 0 && program.nodes[static_cast<std::size_t>(body)].kind == TreeNode::Kind::name)
        body = program.nodes[static_cast<std::size_t>(body)].next;
      if (name != program.syntax->functions.end() && body >= 0) {
        functions_[name->second] = {.program = &program, .body = body};
        outcome.status = Outcome::Status::success;
      } else {
        script_.truncated = true;
      }
      break;
    }
    case TreeNode::Kind::name: break;
    default: outcome = run_compound(program, index, setting);
  }
  --level_;
  return outcome;
}

// Statements that may have redirects behind them.
Outcome Interpreter::run_compound(const Program& program, Node index, const Setting& outer) {
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  Setting setting = outer;
  Command redirected;
  // A loop's `do … done` ends where the loop ends.
  const bool whole = node.kind != TreeNode::Kind::body && node.kind != TreeNode::Kind::item;
  if (const auto tail = program.syntax->tails.find(node.end); whole && tail != program.syntax->tails.end()) {
    redirected.redirects = expand_redirects(tail->second, setting);
    for (const Redirect& redirect : redirected.redirects) {
      if (redirect.kind == Redirect::Kind::here) {
        setting.input = std::make_shared<Stream>(Stream{.text = redirect.body_exact ? std::optional(redirect.body) : std::nullopt});
      } else if (redirect.kind == Redirect::Kind::read && redirect.descriptor <= 0) {
        setting.input = std::make_shared<Stream>(Stream{.text = content(redirect.target)});
      }
    }
    note(redirected, setting);
  }
  Outcome outcome;
  switch (node.kind) {
    case TreeNode::Kind::command: {
      const SimpleSyntax& simple = program.syntax->simples.at(node.begin);
      outcome = run_simple(simple, program.syntax->source, setting);
      if (!traps_.empty()) walk_traps(false);
      break;
    }
    case TreeNode::Kind::subshell: {
      const ShellState before = state_;
      outcome = run_children(program, node.first_child, setting);
      state_ = before;
      break;
    }
    case TreeNode::Kind::branch: outcome = run_branch(program, index, setting); break;
    case TreeNode::Kind::loop: outcome = run_loop(program, index, setting); break;
    case TreeNode::Kind::each: outcome = run_each(program, index, setting); break;
    case TreeNode::Kind::choice: outcome = run_choice(program, index, setting); break;
    default: outcome = run_children(program, node.first_child, setting);
  }
  keep_output(redirected, outcome);
  return outcome;
}

Outcome Interpreter::run_children(const Program& program, Node child, const Setting& outer) {
  Outcome all{.status = Outcome::Status::success};
  const std::string& skeleton = program.syntax->skeleton;
  while (child >= 0) {
    const TreeNode& node = program.nodes[static_cast<std::size_t>(child)];
    Setting setting = outer;
    std::size_t after = skeleton.find_first_not_of(' ', node.end);
    const bool background =
        after != std::string::npos && skeleton[after] == '&' && (after + 1 >= skeleton.size() || skeleton[after + 1] != '&');
    setting.background = setting.background || background;
    if (background) {
      const ShellState before = state_;
      Outcome outcome = run_node(program, child, setting);
      state_ = before;
      outcome.status = Outcome::Status::success;
      all.then(std::move(outcome));
    } else if (node.kind != TreeNode::Kind::name) {
      all.then(run_node(program, child, setting));
    }
    child = node.next;
  }
  return all;
}

Outcome Interpreter::run_list(const Program& program, Node index, const Setting& setting) {
  // a && b || c nests to the left; long chains are walked without nesting.
  std::vector<Node> parts;
  Node at = index;
  while (program.nodes[static_cast<std::size_t>(at)].kind == TreeNode::Kind::list) {
    const Node left = program.nodes[static_cast<std::size_t>(at)].first_child;
    if (left < 0) break;
    for (Node right = program.nodes[static_cast<std::size_t>(left)].next; right >= 0;
         right = program.nodes[static_cast<std::size_t>(right)].next)
      parts.push_back(right);
    at = left;
  }
  Outcome all = run_node(program, at, setting);
  std::uint32_t end = program.nodes[static_cast<std::size_t>(at)].end;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    const TreeNode& node = program.nodes[static_cast<std::size_t>(*part)];
    const bool on_success = std::string_view(program.syntax->skeleton).substr(end, node.begin - end).find("&&") != std::string_view::npos;
    end = node.end;
    const auto wanted = on_success ? Outcome::Status::success : Outcome::Status::failure;
    // Statuses are flipped by `!`, which the skeleton does not show.
    const auto status = program.syntax->negates ? Outcome::Status::unknown : all.status;
    const ShellState before = state_;
    Outcome outcome = run_node(program, *part, setting);
    if (status == wanted) {
      all.then(std::move(outcome));
    } else if (status == Outcome::Status::unknown) {
      const auto later = outcome.status;
      outcome.output.reset();
      all.then(std::move(outcome));
      all.status = later;
      if (!on_success) all.status = later == Outcome::Status::success ? Outcome::Status::success : Outcome::Status::unknown;
      merge(before);
      // `cd build && make`: whoever goes on behind it expects to be there.
      if (on_success && later == Outcome::Status::success) all.status = Outcome::Status::unknown;
    } else {
      state_ = before;  // does not run; its commands are noted all the same
    }
  }
  return all;
}

Outcome Interpreter::run_pipeline(const Program& program, Node index, const Setting& outer) {
  Setting setting = outer;
  Outcome outcome;
  bool first = true;
  const ShellState before = state_;
  for (Node child = program.nodes[static_cast<std::size_t>(index)].first_child; child >= 0;
       child = program.nodes[static_cast<std::size_t>(child)].next) {
    if (!first) {
      setting.pipe_from = outcome.last;
      setting.input = std::make_shared<Stream>(Stream{.text = outcome.output, .names = outcome.names});
    }
    outcome = run_node(program, child, setting);
    state_ = before;
    first = false;
  }
  return outcome;
}

Outcome Interpreter::run_branch(const Program& program, Node index, const Setting& setting) {
  const std::string_view skeleton = program.syntax->skeleton;
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  bool in_condition = true;
  bool has_else = node.kind == TreeNode::Kind::otherwise;
  Outcome all;
  std::uint32_t end = node.begin;
  std::optional<ShellState> before;
  std::optional<ShellState> merged;
  const auto leave_branch = [&] {
    if (merged) { merge(*merged); }
    merged = state_;
  };
  for (Node child = node.first_child; child >= 0; child = program.nodes[static_cast<std::size_t>(child)].next) {
    const TreeNode& part = program.nodes[static_cast<std::size_t>(child)];
    const std::string_view gap = skeleton.substr(end, part.begin - end);
    end = part.end;
    if (in_condition && gap.find("then") != std::string_view::npos) {
      in_condition = false;
      before = state_;
    }
    if (part.kind == TreeNode::Kind::elif || part.kind == TreeNode::Kind::otherwise) {
      if (!before) before = state_;
      leave_branch();
      state_ = *before;
      has_else = has_else || part.kind == TreeNode::Kind::otherwise;
      Outcome outcome =
          part.kind == TreeNode::Kind::elif ? run_branch(program, child, setting) : run_children(program, part.first_child, setting);
      if (outcome.last >= 0) all.last = outcome.last;
      continue;
    }
    Outcome outcome = run_node(program, child, setting);
    if (outcome.last >= 0) all.last = outcome.last;
  }
  leave_branch();
  if (before && !has_else) merge(*before);
  all.output.reset();
  all.status = Outcome::Status::unknown;
  return all;
}

Outcome Interpreter::run_loop(const Program& program, Node index, const Setting& setting) {
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  const ShellState before = state_;
  // Lines that are known are read one by one.
  if (setting.input != nullptr && setting.input->text && !setting.input->text->empty()) {
    Outcome all;
    std::size_t count = 0;
    bool reads = true;
    while (reads && !setting.input->text->empty() && ++count < most_iterations && !script_.truncated) {
      const std::size_t size = setting.input->text->size();
      Outcome one;
      for (Node child = node.first_child; child >= 0; child = program.nodes[static_cast<std::size_t>(child)].next)
        one.then(run_node(program, child, setting));
      reads = setting.input->text && setting.input->text->size() < size;
      all.then(std::move(one));
      if (!setting.input->text) break;
    }
    if (reads && setting.input->text && setting.input->text->empty()) return all;
    if (reads) script_.truncated = true;
  }
  // `while true` without a way out says so in what it runs: in the background it fills the machine.
  const std::string_view text = std::string_view(program.syntax->skeleton).substr(node.begin, node.end - node.begin);
  const auto condition = program.syntax->simples.lower_bound(node.begin);
  const auto plain =
      condition != program.syntax->simples.end() && !condition->second.words.empty() ? condition->second.words[0].plain() : std::nullopt;
  Setting within = setting;
  if (text.starts_with("while") && (plain == "true" || plain == ":")) within.wrappers.push_back("endless loop");
  Outcome all = run_children(program, node.first_child, within);
  // A second round sees what the first left behind.
  bool changed = false;
  for (auto& [name, variable] : state_.variables) {
    const auto it = before.variables.find(name);
    if (it != before.variables.end() && it->second == variable) continue;
    changed = true;
  }
  if (changed) {
    merge(before);
    run_children(program, node.first_child, within);
  }
  merge(before);
  all.output.reset();
  all.status = Outcome::Status::unknown;
  return all;
}

Outcome Interpreter::run_each(const Program& program, Node index, const Setting& setting) {
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  const auto loop = program.syntax->loops.find(node.begin);
  if (loop == program.syntax->loops.end()) {
    script_.truncated = true;
    return {.output = std::nullopt};
  }
  std::vector<Word> words;
  for (const WordSyntax& word : loop->second.words) {
    for (Word& one : expand(word, setting)) words.push_back(std::move(one));
  }
  bool exact = !words.empty() && words.size() <= most_iterations;
  if (words.empty()) words.push_back({.text = std::string(unknown_part), .exact = false});  // "$@", or nothing
  if (words.size() > most_iterations) {
    script_.truncated = true;
    words.resize(most_iterations);
  }
  Outcome all;
  const ShellState before = state_;
  for (const Word& word : words) {
    exact = exact && word.exact && !word.glob;
    set(loop->second.variable,
        Value{.text = word.text, .exact = word.exact && !word.glob, .glob = word.glob, .substitution = word.substitution});
    all.then(run_children(program, node.first_child, setting));
    if (script_.truncated) break;
  }
  if (!exact) {
    merge(before);
    all.output.reset();
  }
  all.status = Outcome::Status::unknown;
  return all;
}

Outcome Interpreter::run_choice(const Program& program, Node index, const Setting& setting) {
  const TreeNode& node = program.nodes[static_cast<std::size_t>(index)];
  if (const auto choice = program.syntax->cases.find(node.begin); choice != program.syntax->cases.end()) {
    expand_value(choice->second.subject, setting);
    for (const WordSyntax& pattern : choice->second.patterns) expand_value(pattern, setting, true);
  }
  const ShellState before = state_;
  std::optional<ShellState> merged;
  Outcome all;
  for (Node child = node.first_child; child >= 0; child = program.nodes[static_cast<std::size_t>(child)].next) {
    const TreeNode& item = program.nodes[static_cast<std::size_t>(child)];
    if (item.kind != TreeNode::Kind::item) continue;
    state_ = before;
    Outcome outcome = run_children(program, item.first_child, setting);
    if (outcome.last >= 0) all.last = outcome.last;
    if (merged) merge(*merged);
    merged = state_;
  }
  merge(before);
  all.output.reset();
  all.status = Outcome::Status::unknown;
  return all;
}

std::vector<Redirect> Interpreter::expand_redirects(const std::vector<RedirectSyntax>& redirects, const Setting& setting) {
  std::vector<Redirect> out;
  for (const RedirectSyntax& syntax : redirects) {
    Redirect redirect{.descriptor = syntax.descriptor};
    const std::string_view operation = syntax.operation;
    if (operation == "<<" || operation == "<<<") {
      redirect.kind = Redirect::Kind::here;
      const Value body = expand_value(syntax.target, setting);
      redirect.body = body.text + (operation == "<<<" ? "\n" : "");
      redirect.body_exact = body.exact;
      redirect.target.substitution = body.substitution;
      out.push_back(std::move(redirect));
      continue;
    }
    std::vector<Word> words = expand(syntax.target, setting);
    if (words.size() == 1) {
      redirect.target = std::move(words[0]);
    } else {
      redirect.target = {.text = std::string(unknown_part), .exact = false};
    }
    redirect.kind = operation == "<" || operation == "<&"     ? Redirect::Kind::read
                    : operation == ">>" || operation == "&>>" ? Redirect::Kind::append
                                                              : Redirect::Kind::write;
    const bool duplicates = operation == ">&" || operation == "<&";
    if (duplicates && redirect.target.exact &&
        (redirect.target.text == "-" || redirect.target.text.find_first_not_of("0123456789-") == std::string::npos)) {
      // 2>&1: no file is touched. It is kept as what it duplicates.
      redirect.target.text = "&" + redirect.target.text;
    }
    if (operation == "&>" || operation == "&>>") redirect.descriptor = 1;
    out.push_back(std::move(redirect));
  }
  return out;
}

std::optional<Assignment> Interpreter::assignment(const WordSyntax& word, const Setting& setting, Variable& variable, bool& append) {
  append = false;
  if (!is_assignment(word)) return std::nullopt;
  const std::string& head = word.atoms[0].text;
  std::size_t at = head.find_first_of("[+=");
  Assignment out{.name = head.substr(0, at)};
  std::string subscript;
  if (head[at] == '[') {
    const std::size_t close = head.find(']', at);
    subscript = head.substr(at + 1, close - at - 1);
    at = close + 1;
  }
  if (head[at] == '+') {
    append = true;
    ++at;
  }
  if (word.compound) {
    std::vector<Value> elements;
    bool exact = true;
    for (const WordSyntax& element : word.elements) {
      for (Word& one : expand(element, setting)) {
        exact = exact && one.exact;
        elements.push_back({.text = one.text, .exact = one.exact && !one.glob, .glob = one.glob, .substitution = one.substitution});
      }
    }
    out.value.exact = exact;
    for (std::size_t i = 0; i < elements.size(); ++i) out.value.text += (i > 0 ? " " : "") + elements[i].text;
    if (append) {
      const Variable* old = find(out.name);
      if (old != nullptr && old->is_set) elements.insert(elements.begin(), old->elements.begin(), old->elements.end());
    }
    append = false;
    variable = Variable{.elements = std::move(elements), .array = true};
    return out;
  }
  // ~ stands for a home behind the = and behind each colon.
  WordSyntax rest;
  rest.atoms = word.atoms;
  rest.atoms[0].text.erase(0, at + 1);
  if (rest.atoms[0].text.empty()) rest.atoms.erase(rest.atoms.begin());
  Value value = rest.atoms.empty() ? Value{} : expand_value(rest, setting);
  out.value = {.text = value.text, .exact = value.exact, .substitution = value.substitution};
  if (!subscript.empty()) {
    const auto place = arithmetic(subscript, setting);
    const Variable* old = find(out.name);
    variable = old != nullptr && old->is_set ? *old : Variable{};
    variable.array = true;
    if (place && *place >= 0 && *place < 1024) {
      if (variable.elements.size() <= static_cast<std::size_t>(*place)) variable.elements.resize(static_cast<std::size_t>(*place) + 1);
      variable.elements[static_cast<std::size_t>(*place)] = value;
    } else {
      for (Value& element : variable.elements) element = Value::unknown();
      variable.elements.push_back(Value::unknown());
    }
    append = false;
    return out;
  }
  variable = Variable{.elements = {value}};
  return out;
}

Outcome Interpreter::run_simple(const SimpleSyntax& simple, std::string_view source, const Setting& outer) {
  if (over_budget()) return {.output = std::nullopt};
  Setting setting = outer;
  setting.excerpt = source.substr(simple.begin, simple.end - simple.begin);
  Command command;
  if (simple.kind == SimpleSyntax::Kind::arithmetic) {
    const std::string& expression = simple.words[0].atoms[0].text;
    const auto number = arithmetic(expression, setting);
    if (!number) {
      // The header of a loop, or what is not known: any name in it may have any value.
      for (std::size_t at = 0; at < expression.size();) {
        std::size_t end = at;
        while (end < expression.size() && (std::isalnum(static_cast<unsigned char>(expression[end])) != 0 || expression[end] == '_')) ++end;
        const std::string name = expression.substr(at, end - at);
        if (!name.empty() && std::isdigit(static_cast<unsigned char>(name[0])) == 0) set(name, Value::unknown());
        at = std::max(end, at + 1);
      }
    }
    command.words = {{.text = "(("}, {.text = expression, .quoted = true}, {.text = "))"}};
    Outcome outcome = note(std::move(command), setting);
    outcome.output = "";
    if (number) outcome.status = *number != 0 ? Outcome::Status::success : Outcome::Status::failure;
    return outcome;
  }
  if (simple.kind == SimpleSyntax::Kind::condition) {
    command.words.push_back({.text = "[["});
    for (const WordSyntax& word : simple.words) {
      const Value value = expand_value(word, setting);
      command.words.push_back({.text = value.text, .exact = value.exact, .substitution = value.substitution});
    }
    Outcome outcome = note(std::move(command), setting);
    outcome.output = "";
    return outcome;
  }

  static constexpr std::string_view declarations[] = {"declare", "typeset", "export", "local", "readonly"};
  // Variables before a program are there while it runs, and its words do not see them.
  std::size_t first = 0;
  while (first < simple.words.size() && is_assignment(simple.words[first])) ++first;
  const bool only_assignments = first == simple.words.size();
  std::vector<std::pair<std::string, Variable>> temporary;
  for (std::size_t i = 0; i < first; ++i) {
    Variable variable;
    bool append = false;
    auto assigned = assignment(simple.words[i], setting, variable, append);
    if (!assigned) continue;
    const Variable* old = find(assigned->name);
    if (only_assignments) {
      variable.exported = old != nullptr && old->exported;
      if (append) {
        set(assigned->name, variable.elements[0], true);
      } else {
        state_.variables[assigned->name] = variable;
      }
      const Variable* now = find(assigned->name);
      if (append && !now->elements.empty()) assigned->value = {.text = now->elements.back().text, .exact = now->elements.back().exact};
      assigned->exported = now->exported;
    } else {
      assigned->exported = variable.exported = true;
      temporary.emplace_back(assigned->name, std::move(variable));
    }
    command.assignments.push_back(std::move(*assigned));
  }
  const auto declares = [&] {
    const auto plain = first < simple.words.size() ? simple.words[first].plain() : std::nullopt;
    return plain && std::find(std::begin(declarations), std::end(declarations), *plain) != std::end(declarations);
  }();
  for (std::size_t i = first; i < simple.words.size(); ++i) {
    Variable variable;
    bool append = false;
    if (declares && i > first) {
      if (auto assigned = assignment(simple.words[i], setting, variable, append)) {
        if (append && !variable.array) {
          set(assigned->name, variable.elements[0], true);
        } else {
          state_.variables[assigned->name] = variable;
        }
        command.words.push_back({.text = assigned->name + "=" + assigned->value.text,
                                 .exact = assigned->value.exact,
                                 .substitution = assigned->value.substitution});
        continue;
      }
    }
    for (Word& word : expand(simple.words[i], setting)) command.words.push_back(std::move(word));
    if (command.words.size() > 65536) {
      script_.truncated = true;
      break;
    }
  }
  command.redirects = expand_redirects(simple.redirects, setting);
  for (const Redirect& redirect : command.redirects) {
    if (redirect.kind == Redirect::Kind::here && redirect.descriptor <= 0) {
      setting.input = std::make_shared<Stream>(Stream{.text = redirect.body_exact ? std::optional(redirect.body) : std::nullopt});
    } else if (redirect.kind == Redirect::Kind::read && redirect.descriptor <= 0 && !redirect.target.text.starts_with('&')) {
      setting.input = std::make_shared<Stream>(Stream{.text = content(redirect.target)});
    }
  }
  if (command.words.empty()) {
    // `$(<file)`, or redirects and assignments alone.
    const bool reads_file =
        command.assignments.empty() && command.redirects.size() == 1 && command.redirects[0].kind == Redirect::Kind::read;
    const auto text = reads_file ? content(command.redirects[0].target) : std::nullopt;
    Outcome outcome = note(std::move(command), setting);
    outcome.output = reads_file && outer.depth > 0 ? text : std::optional<std::string>("");
    outcome.status = Outcome::Status::success;
    return outcome;
  }
  std::vector<std::pair<std::string, std::optional<Variable>>> saved;
  for (auto& [name, variable] : temporary) {
    const Variable* old = find(name);
    saved.emplace_back(name, old != nullptr ? std::optional(*old) : std::nullopt);
    state_.variables[name] = std::move(variable);
  }
  Outcome outcome = run_command(std::move(command), setting);
  for (auto it = saved.rbegin(); it != saved.rend(); ++it) {
    if (it->second) state_.variables[it->first] = std::move(*it->second);
    else state_.variables.erase(it->first);
  }
  return outcome;
}

std::string Interpreter::canonical(const std::string& path) const {
  Surroundings where = action_.where;
  if (state_.folder.starts_with("/?")) return path.starts_with('/') ? canonical_path(path, where) : "/?";
  if (path.starts_with('/') || state_.folder.empty() || state_.folder == where.working_folder) return canonical_path(path, where);
  return canonical_path(state_.folder + "/" + path, where);
}

std::optional<std::string> Interpreter::content(const Word& path) const {
  if (const auto it = streams_.find(path.text); it != streams_.end()) return it->second;
  if (!path.exact || path.glob) return std::nullopt;
  const std::string place = canonical(path.text);
  if (overwritten_.contains(place)) return std::nullopt;
  if (const auto it = script_.written.find(place); it != script_.written.end()) return it->second;
  if (const auto it = action_.written_files.find(place); it != action_.written_files.end()) return it->second;
  return std::nullopt;
}

void Interpreter::write(const Word& path, const std::optional<std::string>& text, bool append) {
  if (!path.exact || path.glob) return;
  const std::string place = canonical(path.text);
  if (place.starts_with("/?") || place.starts_with("/dev/")) return;
  std::optional<std::string> whole = text;
  if (append && text) {
    // What stood there before: what this text wrote, or nothing that is known.
    const auto before = content(path);
    whole = before ? std::optional(*before + *text) : text;
  }
  if (whole && whole->size() <= longest_script && (script_.written.size() < 256 || script_.written.contains(place))) {
    script_.written[place] = std::move(*whole);
    overwritten_.erase(place);
  } else {
    script_.written.erase(place);
    overwritten_[place] = true;
  }
}

// Where the output goes when redirects take it.
void Interpreter::keep_output(const Command& command, Outcome& outcome) {
  for (const Redirect& redirect : command.redirects) {
    if (redirect.kind != Redirect::Kind::write && redirect.kind != Redirect::Kind::append) continue;
    if (redirect.descriptor != -1 && redirect.descriptor != 1) continue;
    if (redirect.target.text == "&1") continue;
    if (!redirect.target.text.starts_with('&')) write(redirect.target, outcome.output, redirect.kind == Redirect::Kind::append);
    outcome.output = "";
    outcome.names.reset();
  }
}

Outcome Interpreter::note(Command command, const Setting& setting) {
  Outcome outcome;
  if (script_.commands.size() >= most_commands) {
    script_.truncated = true;
    outcome.output.reset();
    return outcome;
  }
  command.wrappers = setting.wrappers;
  command.depth = setting.depth;
  command.pipe_from = setting.pipe_from;
  command.background = setting.background;
  command.appends_arguments = command.appends_arguments || setting.appends_arguments;
  command.folder = state_.folder;
  command.excerpt = excerpt_of(setting.excerpt);

  const std::vector<Word>& words = command.words;
  std::string program;
  if (!words.empty()) {
    program = words[0].text;
    program.erase(0, program.rfind('/') + 1);  // npos + 1 = 0
    std::map<std::string, std::string> files;
    for (std::size_t i = 1; i < words.size() && i < 64; ++i) {
      if (words[i].text.empty() || words[i].text.size() > 4096) continue;
      if (auto known = content(words[i])) files[words[i].text] = std::move(*known);
    }
    const std::optional<std::string> input = setting.input != nullptr ? setting.input->text : std::nullopt;
    outcome.output = command.appends_arguments ? std::nullopt : pure_output(words, input, files);
    if (outcome.output) outcome.status = Outcome::Status::success;
    if (program == "false") outcome.status = Outcome::Status::failure;
    if (program == "tee") {
      bool append = false;
      for (std::size_t i = 1; i < words.size(); ++i) {
        if (words[i].text == "-a" || words[i].text == "--append") append = true;
        else if (!words[i].text.starts_with('-')) write(words[i], input, append);
      }
      outcome.output = input;
    } else if ((program == "cp" || program == "mv") && words.size() >= 3) {
      if (words.size() == 3 && files.contains(words[1].text)) write(words[2], files[words[1].text], false);
      else write(words.back(), std::nullopt, false);
    } else if (!outcome.output && !files.empty()) {
      static constexpr std::string_view readers[] = {"chmod",     "chown", "ls",   "grep",  "egrep",  "fgrep",   "wc",   "test", "[",
                                                     "file",      "stat",  "less", "more",  "diff",   "cmp",     "git",  "nl",   "md5sum",
                                                     "sha256sum", "awk",   "jq",   "touch", "python", "python3", "node", "bash", "sh"};
      if (std::find(std::begin(readers), std::end(readers), program) == std::end(readers)) {
        for (const auto& [path, text] : files) overwritten_[canonical(path)] = true;  // perhaps; what was written stays for judging
      }
    } else if (!outcome.output) {
      // Anything else may have written the files it names.
      for (std::size_t i = 1; i < words.size() && i < 64; ++i) {
        if (words[i].exact && (program == "curl" || program == "wget" || program == "dd" || program == "install" || program == "ln")) {
          const std::size_t equals = words[i].text.starts_with("of=") ? 3 : 0;
          const std::string place = canonical(words[i].text.substr(equals));
          if (script_.written.contains(place) || action_.written_files.contains(place))
            write({.text = words[i].text.substr(equals)}, std::nullopt, false);
        }
      }
    }
    if (!outcome.output && !command.appends_arguments) {
      if (setting.input != nullptr && setting.input->names) outcome.names = names_passed(words, *setting.input->names);
      if (!outcome.names) outcome.names = names_printed(words);
    }
  } else {
    outcome.status = Outcome::Status::success;
  }
  script_.commands.push_back(command);
  outcome.last = static_cast<int>(script_.commands.size()) - 1;
  keep_output(command, outcome);
  for (const std::string& folder : state_.other_folders) {
    if (script_.commands.size() >= most_commands) break;
    if (words.empty()) break;
    Command again = command;
    again.folder = folder;
    script_.commands.push_back(std::move(again));
  }
  return outcome;
}

Result<Script> parse_shell(std::string_view text, const Action& action) {
  if (text.size() > longest_script) {
    return invalid("the command is " + std::to_string(text.size()) + " bytes long; at most " + std::to_string(longest_script) +
                   " are read");
  }
  Script script;
  const std::string clean = well_formed(text);
  Interpreter interpreter(action, script);
  if (auto result = interpreter.run(clean); !result.ok()) return result.error();
  return script;
}

}  // namespace hearth::safety
