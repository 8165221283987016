// Which effects a tool has, whatever it is called. Agents bring tools of their own: shells, editors, fetchers, SQL, browsers, MCP servers. A table maps names and
// argument names to effects; the policy extends it. Arguments of tools that nobody knows are read as what they look like, so a renamed shell gains nothing.
#pragma once

#include <string>
#include <vector>

#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// How an argument acts.
enum class Use {
  shell,       // a command line, or a list of words
  code,        // program text; the entry names the language
  read_path,   //
  write_path,  //
  remove_path,
  content,  // what is written to the entry's write_path
  url,      // is fetched; with `send` in the entry's effects: is sent to
  sql,      //
  folder,   // the working folder of the call
  data,     // nothing by itself
};

// A tool, or a family of tools, by the shape of its name.
struct ToolEntry {
  std::string name;  // glob, compared without case, separators and an MCP prefix: "mcp__fs__read_file" and "readFile" match "read_file"
  struct Argument {
    std::string name;  // glob, likewise; a dotted path for nested ones; "*" = any
    Use use = Use::data;
    std::string language;  // code
  };
  std::vector<Argument> arguments;
  std::vector<Effect> effects;  // that it has whatever its arguments
};

class ToolTable {
 public:
  // The built-in entries.
  ToolTable();
  // Later entries win over earlier and built-in ones of the same name.
  void add(ToolEntry entry);
  const ToolEntry* find(std::string_view tool) const;

 private:
  std::vector<ToolEntry> entries_;
};

// Layer 1: the effects of a call. Arguments that are not one JSON object, hold a key twice or are over longest_script become a problem.
Assessment assess_call(const Action& action, const ToolTable& tools);

}  // namespace hearth::safety
