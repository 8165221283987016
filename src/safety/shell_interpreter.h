// Walks a parsed text as a shell would run it, but runs nothing: keeps variables, functions and the working folder, folds what is constant, and notes each simple command
// with the words it would get. Branches are all walked; where they leave different values behind, the value counts as unknown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "safety/action.h"
#include "safety/printed_names.h"
#include "safety/shell.h"
#include "safety/shell_scan.h"
#include "safety/shell_tree.h"

namespace hearth::safety {

inline constexpr std::string_view unknown_part = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::size_t longest_value = std::size_t{64} << 10;

// What a variable, a word or an output holds, as far as it is known.
struct Value {
  std::string text;
  bool exact = true;
  bool glob = false;  // stands for the names that match
  bool substitution = false;

  static Value unknown() { return {.text = std::string(unknown_part), .exact = false}; }
  void append(const Value& other);
  bool operator==(const Value&) const = default;
};

struct Variable {
  std::vector<Value> elements;  // one, unless it is an array
  bool array = false;
  bool is_set = true;
  bool exported = false;
  bool operator==(const Variable&) const = default;
};

struct Program;

struct ShellState {
  std::map<std::string, Variable> variables;
  std::map<std::string, std::string> aliases;
  std::vector<Value> positional;
  bool positional_known = true;
  Value zero{.text = "bash"};  // $0
  std::string folder;          // "" = the session's, which is not known
  std::string previous_folder;
  std::vector<std::string> other_folders;  // where it may be instead, after a `cd` that may not have run
};

// Standard input or output as far as known. Shared by the commands that read from it.
struct Stream {
  std::optional<std::string> text;
  std::optional<PrintedNames> names;  // not known, but this is what its lines are

  // Words that stand for all names on it; nothing when it may hold anything.
  std::vector<std::string> places() const;
};

// What one walk of a statement gave.
struct Outcome {
  std::optional<std::string> output = std::string();  // nothing: not known
  enum class Status { success, failure, unknown } status = Status::unknown;
  int last = -1;                      // index of the command that writes the output last
  std::optional<PrintedNames> names;  // as in Stream

  void then(Outcome next);  // the output of both, one after the other
};

// Where a command stands.
struct Setting {
  std::vector<std::string> wrappers;
  int depth = 0;
  int pipe_from = -1;
  bool background = false;
  bool appends_arguments = false;
  std::shared_ptr<Stream> input;  // null: the terminal
  std::string_view excerpt;
};

class Interpreter {
 public:
  Interpreter(const Action& action, Script& script);

  // The error of a text that no shell takes.
  Result<void> run(std::string_view text);

 private:
  friend class Arithmetic;
  using Node = std::int32_t;

  // Reading.
  Result<std::shared_ptr<const Program>> read(const std::shared_ptr<const Syntax>& syntax);
  // A text within the text, in the same state. What no shell takes makes the script unresolvable.
  Outcome run_nested(std::string text, Setting setting);
  Outcome run_syntax(const std::shared_ptr<const Syntax>& syntax, const Setting& setting);

  // Statements.
  Outcome run_node(const Program& program, Node node, const Setting& setting);
  Outcome run_compound(const Program& program, Node node, const Setting& setting);
  Outcome run_children(const Program& program, Node first, const Setting& setting);
  Outcome run_list(const Program& program, Node node, const Setting& setting);
  Outcome run_pipeline(const Program& program, Node node, const Setting& setting);
  Outcome run_branch(const Program& program, Node node, const Setting& setting);
  Outcome run_loop(const Program& program, Node node, const Setting& setting);
  Outcome run_each(const Program& program, Node node, const Setting& setting);
  Outcome run_choice(const Program& program, Node node, const Setting& setting);
  Outcome run_simple(const SimpleSyntax& simple, std::string_view source, const Setting& setting);
  Outcome run_function(const std::string& name, const Command& command, Setting setting);
  // The state is what either of two courses left behind.
  void merge(const ShellState& other);
  bool over_budget();

  // Commands whose words are expanded: functions, builtins and wrappers are seen through, the rest is noted.
  Outcome run_command(Command command, Setting setting);
  std::optional<Outcome> run_builtin(const std::string& name, Command& command, const Setting& setting);
  std::optional<Outcome> run_wrapper(const std::string& name, Command& command, const Setting& setting);
  Outcome run_shell(const std::string& name, const Command& command, const Setting& setting);
  Outcome run_find(const Command& command, const Setting& setting);
  Outcome run_xargs(const Command& command, const Setting& setting);
  Outcome run_parallel(const Command& command, const Setting& setting);
  // The command that `words` from `first` on make, behind a wrapper.
  Outcome run_inner(const Command& outer, std::size_t first, const Setting& setting, std::string wrapper);
  Outcome run_inner_words(const Command& outer, std::vector<Word> words, const Setting& setting, std::string wrapper);
  // A text that a wrapper gives to a shell. An inexact text also leaves `outer` noted.
  Outcome run_inner_text(const Command& outer, const Word& text, std::vector<Value> positional, const Setting& setting,
                         std::string wrapper);
  Outcome note(Command command, const Setting& setting);
  // What `trap` leaves for later runs with the variables as they are then.
  void set_trap(const Command& command, const Word& text, const Setting& setting);
  // Walks each trap again whose variables have changed; at the end also those that were never walked.
  void walk_traps(bool at_end);
  void keep_output(const Command& command, Outcome& outcome);
  void change_folder(const std::vector<Word>& words);
  Outcome declare(const std::string& name, Command& command, const Setting& setting);
  Outcome read_input(const Command& command, const Setting& setting);

  // Words.
  std::vector<Redirect> expand_redirects(const std::vector<RedirectSyntax>& redirects, const Setting& setting);
  std::vector<Word> expand(const WordSyntax& word, const Setting& setting);
  // Without word splitting and pathname expansion.
  Value expand_value(const WordSyntax& word, const Setting& setting, bool pattern = false);
  Value expand_fragment(std::string_view text, bool quoted, const Setting& setting, bool pattern = false);
  void fields_of(const std::vector<Atom>& atoms, const Setting& setting, std::vector<Word>& out);
  // `separate`: the values are fields of their own even between double quotes. `instead`: a default that stands for it, quotes and all.
  std::vector<Value> parameter(std::string_view body, bool quoted, const Setting& setting, bool& separate,
                               std::optional<WordSyntax>* instead = nullptr);
  Value command_output(const Atom& atom, const Setting& setting);
  std::optional<std::int64_t> arithmetic(std::string_view expression, const Setting& setting);
  std::string tilde(std::string_view prefix, bool& exact) const;
  std::string tildes(std::string_view text, bool ends, bool colons, bool& exact) const;
  // The assignment that a word is; nothing when it is none.
  std::optional<Assignment> assignment(const WordSyntax& word, const Setting& setting, Variable& variable, bool& append);

  // Variables and files.
  const Variable* find(std::string_view name) const;
  void set(const std::string& name, Value value, bool append = false);
  std::vector<Value> values_of(std::string_view name, bool& is_set);
  std::string canonical(const std::string& path) const;
  std::optional<std::string> content(const Word& path) const;
  void write(const Word& path, const std::optional<std::string>& text, bool append);

  const Action& action_;
  Script& script_;
  TextStore store_;
  std::size_t counted_ = 0;  // simple commands scanned
  std::size_t steps_ = 0;    // commands walked
  int level_ = 0;            // statements within statements
  ShellState state_;
  struct Function {
    const Program* program = nullptr;
    Node body = -1;
    bool called = false;
  };
  std::map<std::string, Function> functions_;
  std::map<std::string, int> running_;  // functions being walked, and how deep
  std::map<const Syntax*, std::shared_ptr<const Program>> programs_;
  std::vector<std::shared_ptr<const Syntax>> syntaxes_;  // nested texts, alive as long as functions may be called
  std::map<std::string, std::string> streams_;           // what process substitutions print, by their path
  std::map<std::string, bool> overwritten_;              // files whose content is not known any more
  std::string_view source_;                              // the whole text
  struct Trap {
    Command command;
    Word text;
    Setting setting;
    ShellState state;                                       // when it was set
    std::map<std::string, std::optional<Variable>> values;  // of the variables it mentions, when they were looked at last
    bool walked = false;
    int times = 0;
  };
  std::vector<Trap> traps_;
  bool in_trap_ = false;
};

// A parsed text.
struct Program {
  std::shared_ptr<const Syntax> syntax;
  std::vector<TreeNode> nodes;
};

// Output of a program that only computes: echo, printf, base64, tr … Nothing when it is none of these or not known. `read` gives a file's content.
std::optional<std::string> pure_output(const std::vector<Word>& words, const std::optional<std::string>& input,
                                       const std::map<std::string, std::string>& files);

// A shell pattern against a whole text. `\` escapes. Linear in practice: only the last `*` is tried again.
bool pattern_matches(std::string_view pattern, std::string_view text);

}  // namespace hearth::safety
