// What the parts of commands*.cpp share: options read as getopt reads them, the state of one script while it is judged, and the verbs in which a program's
// knowledge is written down (it reads this, deletes that, runs this text).
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "safety/commands.h"
#include "safety/paths.h"

namespace hearth::safety {

inline constexpr std::string_view unknown_part = "\xEF\xBF\xBD";
inline constexpr int deepest_assessment = 12;           // texts within texts
inline constexpr std::size_t most_paths = 20000;        // looked at for one call
inline constexpr std::size_t most_patterns = 512;       // among them; each is compared with every place there is a rule for
inline constexpr std::size_t most_links = 64;           // made by one script and followed
inline constexpr std::size_t most_observations = 2048;  // of one call; what comes after is a problem

// What happens with an argument.
enum class Role : char {
  none = 0,       // a flag
  ignored = '_',  // a value that is data: a number, a pattern, a message
  scan = '?',     // judged for what it looks like
  read = 'R',
  tree = 'T',  // a folder read as a whole
  write = 'W',
  append = 'A',
  create = 'M',  // made, not overwritten
  remove = 'D',
  shell = 'X',    // a command line
  program = 'P',  // a program to start
  url = 'U',
  sent = 'S',     // a file whose content leaves the machine
  library = 'L',  // loaded as code
  host = 'H',
  sql = 'Q',
  folder = 'F',  // an output folder
  digits = '9',  // attached digits, if any
  script = 'I',  // a file of instructions for the program itself
};

struct OptionSpec {
  std::vector<std::string> names;  // without dashes; the first is what handlers ask for
  bool single_dash = false;        // "-name" as one option
  bool optional_value = false;     // only attached
  Role role = Role::none;
  std::optional<Effect> effect;
};

// "-f,--force -o,--output=W -i,--in-place?=_ -name=_ -e!remote_code": names, then "=" and a role for a value, "?=" for one that is attached or absent, "!" and an effect that the
// option has by itself. Roles are those of Role.
class Grammar {
 public:
  explicit Grammar(std::string_view spec);
  // By whole name, or an unambiguous beginning of a long one; null when unknown.
  const OptionSpec* long_option(std::string_view name) const;
  const OptionSpec* single(std::string_view name) const;
  const OptionSpec* letter(char letter) const;
  bool has_single() const { return has_single_; }

 private:
  std::vector<OptionSpec> options_;
  bool has_single_ = false;
};

struct Arguments {
  struct Option {
    std::string name;  // the spec's first name; as written (without dashes) when the grammar does not know it
    const OptionSpec* spec = nullptr;
    bool has_value = false;
    Word value;
  };
  std::vector<Option> options;
  std::vector<Word> operands;
  std::size_t after = 0;  // operands before "--"

  bool has(std::string_view name) const;
  bool any(std::initializer_list<std::string_view> names) const;
  const Word* value(std::string_view name) const;  // of the last such option
};

enum class Order {
  permuted,  // options may follow operands
  posix,     // the first operand ends the options
};
Arguments parse_arguments(const std::vector<Word>& words, std::size_t from, const Grammar& grammar, Order order = Order::permuted);

// What a command's output carries.
struct Flow {
  bool network = false;  // came from another machine
  bool decoded = false;  // was decoded or decrypted at run time
  bool secret = false;   // credentials
  bool local = false;    // content of files, the environment, what programs say about the machine
  bool shell = false;    // what a shell that reads its input prints
  bool any = false;      // something that cannot be told
  bool endless = false;  // does not stop by itself
  std::optional<std::string> text;

  void join(const Flow& other);
};

// One script while it is judged.
struct Run {
  const Script& script;
  const Action& action;
  Assessment& out;
  int depth = 0;
  std::size_t paths = 0;  // looked at so far
  std::size_t patterns = 0;
  std::vector<Flow> flows;                       // by command
  std::map<std::string, Flow> files;             // written in this script: path → what it holds
  std::map<std::string, std::string> programs;   // path → the program that was copied there
  std::map<std::string, std::string> links;      // path → what it links to
  std::map<std::string, Flow> variables;         // assigned from substitutions
  std::set<std::string, std::less<>> remotes;    // git remotes added in this script
  std::set<std::string, std::less<>> functions;  // names defined in this script
  std::vector<Word> given;                       // to the program text that is being read: its arguments, the lines of its input
};

// One simple command while it is judged.
class Context {
 public:
  Context(Run& state, std::size_t command_index, const Command& simple_command, std::string program_name,
          const std::vector<Word>& all_words)
      : run(state), index(command_index), command(simple_command), program(std::move(program_name)), words(all_words) {}

  Run& run;
  std::size_t index;
  const Command& command;
  std::string program;             // base name, without version
  const std::vector<Word>& words;  // [0] is the program
  Flow input;                      // through its pipe or a redirection
  Flow output;

  const Surroundings& where() const { return run.action.where; }
  std::string path_of(const Word& word) const;
  // The folder is not known, so that a relative path may be anywhere.
  bool adrift() const;

  void report(Effect effect, std::string reason, std::string target = {}, bool certain = true);
  void read(const Word& word);
  void read_tree(const Word& word);
  void write(const Word& word);
  void create(const Word& word);
  void remove(const Word& word, bool recursive);
  // Changes owner, mode or attributes.
  void change_mode(const Word& word, bool recursive, std::string_view how);
  void load_library(const Word& word);
  // Content of a local file goes to `host`.
  void send_file(const Word& word, std::string_view host);
  // What is known of `flow` goes to `host`.
  void send_flow(const Flow& flow, std::string_view host, std::string_view how);
  // A word that travels to a host: what it is made of counts.
  void send_word(const Word& word, std::string_view host, std::string_view how);
  void fetch(const Word& url);
  // Runs a command line, a program with arguments, program text.
  void shell(const Word& text, std::string_view how);
  void command_words(std::vector<Word> inner, std::string_view how);
  void code(std::string_view language, const Word& text, std::string_view how);
  void sql(const Word& text);
  // Runs the file: what is known of it is judged.
  void run_file(const Word& word, std::string_view language);
  // Whatever it is.
  void scan(const Word& word);
  void apply(Role role, const Word& word);
  // All options by their roles and effects; those unknown to the grammar are scanned.
  void apply_options(const Arguments& arguments);
  // A file that was fetched from the network lies there now.
  void fetched_into(const Word& word);

  // The flow of the commands substituted into this one.
  Flow substituted() const;
  Flow flow_of(const Word& word) const;

 private:
  mutable std::optional<Flow> substituted_;

 public:
  // What a command prints is a list of these names (find, ls …), for xargs and substitutions; nothing when it cannot be told.
  static std::optional<std::vector<Word>> items_of(const Run& run, int command_index);
};

// A host as text (of a URL, user@host, host:port): lower case, numeric forms written as dotted decimal.
std::string host_of(std::string_view text);
bool is_loopback(std::string_view host);
bool is_trusted(std::string_view host, const Surroundings& where);
bool is_metadata_host(std::string_view host);
bool looks_like_url(std::string_view text);
// "host:path" or "user@host:path" of scp and rsync.
bool is_remote_path(std::string_view text);
// The base name, without a version: "/usr/bin/python3.11" is "python".
std::string program_name(std::string_view word);
// Interpreters: the language whose text they read; empty for other programs. Shells are "sh".
std::string_view language_of(std::string_view program);
bool is_shell(std::string_view program);
// A name that says it holds a secret: AWS_SECRET_ACCESS_KEY, token.
bool names_secret(std::string_view name);
// The excerpt uses $NAME: the names.
std::vector<std::string> variables_in(std::string_view excerpt);

std::string lower_case(std::string_view text);
bool starts_with(std::string_view text, std::string_view prefix);
Word plain(std::string_view text);
Word part_of(const Word& word, std::size_t from, std::size_t count = std::string_view::npos);
bool begins_unknown(const Word& word);

// Programs with knowledge of their own; true when the program is one of these.
using Handler = void (*)(Context&);
struct Named {
  std::string_view name;
  Handler handler;
};
std::span<const Named> file_programs();
std::span<const Named> shell_programs();  // builtins, interpreters
std::span<const Named> network_programs();
std::span<const Named> version_control_programs();
std::span<const Named> package_programs();
std::span<const Named> container_programs();
std::span<const Named> database_programs();
std::span<const Named> system_programs();
Handler find_handler(std::string_view program);
// Programs of which a row of the table tells enough; true when there is one.
bool apply_table(Context& context);
// A program that runs others at will is given a shell ("--pager=/bin/sh") or program text that starts one.
void starts_shell(Context& context);
// Operand shapes of the table that need a look at the whole command.
bool apply_shape(Context& context, std::string_view shape, const Arguments& arguments, std::optional<Effect> effect,
                 const std::string& reason);
// Variables whose value is run or loaded.
void assess_assignment(Context& context, const Assignment& assignment);

void assess_run(Run& run);
void assess_into(Run& outer, std::string_view shell_text, bool certain, std::string_view how, std::string_view folder);
void assess_code_into(Run& outer, std::string_view language, std::string_view text, std::string_view folder, std::string_view program);

}  // namespace hearth::safety
