// Which effects a tool has, whatever it is called. Agents bring tools of their own: shells, editors, fetchers, SQL, browsers, MCP servers. A table maps names and
// argument names to uses; the policy extends it. What a use means is said by the commands that do the same (reading a file is `cat`, fetching is `curl`), so a file
// tool cannot do what a shell may not. Arguments of tools that nobody knows are read as what they look like, so a renamed shell gains nothing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// How an argument acts.
enum class Use {
  shell,        // a command line, or a list of words
  environment,  // variables that commands see: an object, or a list of NAME=VALUE
  words,        // further words of the entry's command
  code,         // program text, in the entry's language or the one a `language` argument names
  language,     //
  read_path,    //
  list_path,    //
  search_path,  // a file, or a folder with all that is in it
  write_path,   //
  remove_path,  //
  source_path,  // is moved or copied to the write_path
  content,      // what is written to the write_path
  patch,        // a patch: its text names the files it changes
  operation,    // an editor's sub-command: says whether its write_path is read, written or removed
  url,          // is fetched, or sent to when the call carries a body
  body,         // what is sent to the url
  method,       // of HTTP
  attachment,   // a file that is sent away
  sql,          //
  folder,       // the working folder of the call
  call,         // another call within this one: a tool's name and its arguments, or a list of such objects
  data,         // nothing by itself
};
// The enumerator's own name: policy files use it.
std::string_view name(Use use);
std::optional<Use> use_from_name(std::string_view text);
std::vector<std::string_view> use_names();

// A tool, or a family of tools, by the shape of its name.
struct ToolEntry {
  std::string name;  // glob, compared without case, separators and an MCP prefix: "mcp__fs__read_file" and "readFile" match "read_file"
  struct Argument {
    std::string name;  // glob, likewise; "*" = any
    Use use = Use::data;
    std::string language;  // code: "python", "node" …
  };
  std::vector<Argument> arguments;  // the first that matches counts; an argument that none matches is read as what it looks like
  std::vector<Effect> effects;      // that it has whatever its arguments
  std::string command;              // the program that does the same, whose words the arguments are: "git push"
};

class ToolTable {
 public:
  // The built-in entries.
  ToolTable();
  // Later entries win over earlier and built-in ones that match the same name.
  void add(ToolEntry entry);
  // nullptr: a tool that nobody knows.
  const ToolEntry* find(std::string_view tool) const;

 private:
  explicit ToolTable(std::vector<ToolEntry> entries);

  std::vector<ToolEntry> entries_;
  std::size_t built_in_ = 0;                            // so many of them
  std::unordered_map<std::string, std::size_t> plain_;  // normalised names without a wildcard → entry
  std::vector<std::size_t> globs_;                      // entries with one, oldest first
};

// `text` as names are compared: lower case, without separators.
std::string plain_name(std::string_view text);
// A tool's name without the server's: "read_file" of "mcp__fs__read_file", "exec" of "container.exec".
std::string_view own_name(std::string_view tool);

// Layer 1: the effects of a call. Arguments that are not one JSON object, hold a key twice or are over longest_script become a problem.
Assessment assess_call(const Action& action, const ToolTable& tools);

// The files whose content the call makes known, canonical path → content: what it writes, or the text an edit brings in. For Action::written_files of later calls.
std::map<std::string, std::string> written_by(const Action& action, const ToolTable& tools);

}  // namespace hearth::safety
