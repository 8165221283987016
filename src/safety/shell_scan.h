// Reads shell text the way bash's own reader does: line continuations, quotes, here-documents, comments and reserved words are decided here, byte by byte, because the
// grammar takes several of them otherwise (a carriage return separates words for it, `"a"#b` starts a comment …) and each such difference hides a command. What is left
// for the grammar is the text's skeleton: every simple command is one `x`, every reserved word and operator itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "safety/shell.h"

namespace hearth::safety {

struct Syntax;

// A piece of a word before expansion.
struct Atom {
  enum class Kind { literal, parameter, arithmetic, command, process };
  Kind kind = Kind::literal;
  bool quoted = false;                   // inside of quotes, or escaped
  bool bare = false;                     // parameter: written $name, without braces
  std::string text;                      // literal: the bytes; parameter: what stands between the braces; arithmetic: the expression
  std::shared_ptr<const Syntax> inside;  // command, process
};

struct WordSyntax {
  std::vector<Atom> atoms;
  std::vector<WordSyntax> elements;  // of `name=(…)`: atoms hold `name=` alone
  bool compound = false;             // name=(…)
  std::uint32_t begin = 0;           // bytes of the source
  std::uint32_t end = 0;             //

  // The text of a word that is written plainly, without quotes and expansions.
  std::optional<std::string_view> plain() const;
};

struct RedirectSyntax {
  std::string_view operation;  // "<", ">", ">>", ">|", "<>", ">&", "<&", "&>", "&>>", "<<<", "<<"
  int descriptor = -1;
  WordSyntax target;  // of a here-document: its body
};

struct SimpleSyntax {
  enum class Kind { command, condition, arithmetic };  // condition: [[ … ]]; arithmetic: (( … )), one word
  Kind kind = Kind::command;
  std::vector<WordSyntax> words;
  std::vector<RedirectSyntax> redirects;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

struct LoopSyntax {
  std::string variable;
  std::vector<WordSyntax> words;
};

struct CaseSyntax {
  WordSyntax subject;
  std::vector<WordSyntax> patterns;  // of all items
};

struct Syntax {
  std::string_view source;  // outlives this
  std::string skeleton;     // what the grammar parses
  // By place in the skeleton.
  std::map<std::uint32_t, SimpleSyntax> simples;
  std::map<std::uint32_t, LoopSyntax> loops;                   // where `for` stands
  std::map<std::uint32_t, CaseSyntax> cases;                   // where `case` stands
  std::map<std::uint32_t, std::string> functions;              // where the name stands
  std::map<std::uint32_t, std::vector<RedirectSyntax>> tails;  // redirects of a compound command, where it ends
  bool negates = false;                                        // somewhere stands a `!`
  bool one_command = false;                                    // nothing but one simple command
};

// Texts that scanning made (backticks unescaped …) live here as long as the syntax that points into them.
class TextStore {
 public:
  std::string_view keep(std::string text);

 private:
  std::vector<std::unique_ptr<const std::string>> texts_;
};

// invalid_request with line and column when bash would refuse the text, or it is nested too deeply. `commands` counts simple commands over several calls; above
// most_commands the scan fails with ErrorCode::payload_too_large.
Result<std::shared_ptr<const Syntax>> scan_shell(std::string_view text, TextStore& store, std::size_t& commands, int depth = 0);

// Text as between double quotes (`double_quoted`), or as words of a command joined by their blanks: what stands in `${x:-…}`, `$((…))`.
Result<WordSyntax> scan_fragment(std::string_view text, bool double_quoted, TextStore& store, std::size_t& commands, int depth = 0);

}  // namespace hearth::safety
