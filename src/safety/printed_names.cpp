#include "safety/printed_names.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace hearth::safety {
namespace {

using Lines = PrintedNames::Lines;
using Names = std::optional<PrintedNames>;
using Words = std::span<const Word>;
using std::string_view_literals::operator""sv;

constexpr std::string_view some_name = "\xEF\xBF\xBD";
const std::string anywhere_below = "**/" + std::string(some_name);

std::string base_name(std::string_view text) {
  const auto slash = text.rfind('/');
  return std::string(slash == std::string_view::npos ? text : text.substr(slash + 1));
}
Word word_of(std::string_view text) { return {.text = std::string(text)}; }
template <std::size_t n>
bool among(std::string_view text, const std::array<std::string_view, n>& list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}
bool is_option(const Word& word) { return word.text.size() > 1 && word.text[0] == '-'; }
bool only_of(std::string_view text, std::string_view set) { return !text.empty() && text.find_first_not_of(set) == std::string_view::npos; }

// Short options as letters, up to the first that takes a value; long ones by their names without the value.
struct Options {
  std::string letters;
  std::vector<std::string> long_names;
  std::vector<const Word*> operands;
  bool exact = true;  // false: an option depends on run time

  bool has(char letter) const { return letters.find(letter) != std::string::npos; }
  bool has(std::string_view name) const { return std::find(long_names.begin(), long_names.end(), name) != long_names.end(); }
  template <typename... Name>
  bool any(Name... names) const {
    return (has(names) || ...);
  }
};

// `with_value`: letters whose value follows, in the same word or the next.
Options read_options(Words words, std::string_view with_value) {
  Options out;
  bool only_operands = false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& text = words[i].text;
    if (only_operands || !is_option(words[i])) {
      if (!words[i].exact && text.starts_with(some_name)) out.exact = false;  // may be an option
      out.operands.push_back(&words[i]);
      continue;
    }
    if (!words[i].exact) out.exact = false;
    if (text == "--") {
      only_operands = true;
    } else if (text.starts_with("--")) {
      out.long_names.push_back(text.substr(2, text.find('=') == std::string::npos ? std::string::npos : text.find('=') - 2));
    } else {
      for (std::size_t at = 1; at < text.size(); ++at) {
        out.letters += text[at];
        if (with_value.find(text[at]) == std::string_view::npos) continue;
        if (at + 1 == text.size() && i + 1 < words.size()) ++i;
        break;
      }
    }
  }
  return out;
}

PrintedNames below(const Word& root, std::string glob) { return {.places = {{root, std::move(glob)}}}; }

// ---- Programs that print names --------------------------------------------------------------------------------------------------------------------------------

// Of -printf: names and numbers, separated by blanks.
bool prints_names_only(std::string_view format) {
  bool name = false;
  for (std::size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    const char next = i + 1 < format.size() ? format[i + 1] : '\0';
    if (c == ' ' || c == '\n' || c == '\t') continue;
    if (c == '\\' && (next == 'n' || next == '0' || next == 't')) {
      ++i;
    } else if (c == '%' && (next == 'p' || next == 'P' || next == 'f')) {
      name = true;
      ++i;
    } else {
      return false;
    }
  }
  return name;
}

Names find(Words words) {
  std::size_t i = 1;
  while (i < words.size() && (words[i].text == "-L" || words[i].text == "-P" || words[i].text == "-H")) ++i;
  std::vector<Word> roots;
  for (; i < words.size() && !is_option(words[i]) && words[i].text != "!" && words[i].text != "("; ++i) roots.push_back(words[i]);
  if (roots.empty()) roots.push_back(word_of("."));
  std::vector<std::string> patterns;
  bool narrowed = false, otherwise = false;
  bool named = false, open = false;  // this alternative has a name; one has none
  for (; i < words.size(); ++i) {
    const std::string& test = words[i].text;
    if (!words[i].exact) return {};
    const auto takes = [&](auto... names) { return ((test == names) || ...) && i + 1 < words.size(); };
    if (takes("-name", "-iname")) {
      const bool negated = words[i - 1].text == "!" || words[i - 1].text == "-not";
      const std::string& pattern = words[++i].text;
      if (negated) continue;
      if (pattern.find_first_not_of("*.?") != std::string::npos) patterns.push_back(pattern);
      narrowed = named = true;
    } else if (takes("-path", "-ipath", "-wholename", "-regex", "-iregex", "-newer", "-size", "-mtime", "-mmin", "-atime", "-ctime",
                     "-user", "-group", "-perm", "-type", "-maxdepth", "-mindepth")) {
      const bool negated = words[i - 1].text == "!" || words[i - 1].text == "-not";
      narrowed =
          narrowed || (!negated && (test == "-path" || test == "-ipath" || test == "-regex" || test == "-iregex" || test == "-newer"));
      ++i;
    } else if (test == "-empty") {
      narrowed = true;
    } else if (takes("-printf")) {
      if (!prints_names_only(words[++i].text)) return {};
    } else if (test == "-o" || test == "-or" || test == ",") {
      otherwise = true;
      open = open || !named;
      named = false;
    } else if (test == "-prune") {
      named = true;  // goes no further, and prints nothing
    } else if (test == "-exec" || test == "-execdir" || test == "-ok" || test == "-okdir" || test == "-ls" || test == "-files0-from") {
      return {};
    }
  }
  open = open || !named;
  PrintedNames out;
  for (const Word& root : roots) {
    if (otherwise || patterns.size() > 1) {
      // One of several: each of them, and where one has no name, all.
      for (const auto& pattern : patterns) out.places.push_back({root, "**/" + pattern});
      if (patterns.empty() || (otherwise && open)) out.places.push_back({root, "**"});
    } else if (!patterns.empty()) {
      out.places.push_back({root, "**/" + patterns[0]});
    } else {
      out.places.push_back({root, narrowed ? anywhere_below : "**"});
    }
  }
  return out;
}

Names fd(Words words) {
  const Options options = read_options(words, "");
  if (!options.exact || options.any('x', 'X', "exec", "exec-batch", "format", "base-directory", "search-path", "list-details", 'l'))
    return {};
  PrintedNames out;
  // A value of an option counts as a folder too: better one too many.
  for (std::size_t i = 1; i < options.operands.size(); ++i) out.places.push_back({*options.operands[i], anywhere_below});
  if (out.places.empty()) out = below(word_of("."), anywhere_below);
  return out;
}

Names ls(Words words) {
  const Options options = read_options(words, "IwTS");
  if (!options.exact || options.any("format", "quoting-style")) return {};
  PrintedNames out;
  out.lines = options.any('l', 'o', 'g', 'n', 's', 'i') ? Lines::ninth_field : Lines::names;
  if (options.any('o', 'g', 's', 'i')) return {};
  for (const Word* operand : options.operands) {
    if (operand->glob || options.has('d')) {
      out.places.push_back({*operand, {}});
      continue;
    }
    // Of a folder it prints names without the folder.
    out.places.push_back({*operand, "*"});
    out.places.push_back({word_of("."), std::string(some_name)});
  }
  if (options.operands.empty()) out = PrintedNames{.lines = out.lines, .places = {{word_of("."), "*"}}};
  return out;
}

// Without a file to read; of what it prints, only names.
Names grep(Words words, std::size_t first = 0) {
  const bool ripgrep = base_name(words[0].text) == "rg";
  const Options options = read_options(words.subspan(first), ripgrep ? "efmABCdgtTEMjr" : "efmABCDd");
  if (!options.exact || options.any('o', "only-matching", 'A', 'B', 'C', "context", "after-context", "before-context", "replace", "label"))
    return {};
  const bool lists = options.any('l', 'L', "files-with-matches", "files-without-match", "name-only");
  const bool pattern_elsewhere = options.any('e', 'f', "regexp", "file", "files");
  PrintedNames out;
  if (!lists) {
    if (options.any('h', "no-filename", 'c', 'q') || !options.any('r', 'R', 'H', 'n', "recursive", "with-filename")) return {};
    out.lines = Lines::tagged;
    // "-n" without a name before the number
    if (!options.any('r', 'R', 'H', "recursive", "with-filename") && first == 0) return {};
  }
  for (std::size_t i = pattern_elsewhere ? 0 : 1; i < options.operands.size(); ++i) {
    out.places.push_back({*options.operands[i], {}});
    out.places.push_back({*options.operands[i], anywhere_below});
  }
  if (out.places.empty()) out.places.push_back({word_of("."), anywhere_below});
  return out;
}

Names git(Words words) {
  std::size_t at = 1;
  if (words.size() > 3 && words[1].text == "-C") at = 3;
  if (at >= words.size()) return {};
  const std::string& verb = words[at].text;
  if (verb == "grep") return grep(words, at);
  bool quiet = false;  // the header of a commit is left out
  for (std::size_t i = at + 1; i < words.size(); ++i) {
    const std::string& text = words[i].text;
    if (!words[i].exact && text.starts_with(some_name)) return {};
    if (text == "--format=" || text == "--pretty=" || text == "--pretty=format:") {
      quiet = true;
      continue;
    }
    for (const auto bad : {"--format", "--pretty", "--line-prefix", "--no-index", "--src-prefix", "--dst-prefix", "..", "/", ":/", ":("})
      if (text.starts_with(bad)) return {};
  }
  const auto has = [&](auto... names) {
    return std::any_of(words.begin(), words.end(), [&](const Word& word) { return ((word.text == names) || ...); });
  };
  if (verb == "ls-files") {
    if (has("-s", "--stage", "-t", "-v", "-f", "--debug", "--eol", "-u", "--unmerged")) return {};
    return below(word_of("."), has("-d", "-o", "-m", "--deleted", "--others", "--modified") ? anywhere_below : "**");
  }
  if (verb == "status" && has("-s", "--short", "--porcelain")) {
    PrintedNames out = below(word_of("."), anywhere_below);
    out.lines = Lines::second_field;
    return out;
  }
  if (verb == "diff" || ((verb == "show" || verb == "log") && quiet)) {
    if (has("-p", "-u", "--patch", "--stat", "--raw", "--patch-with-stat", "--check", "--summary")) return {};
    PrintedNames out = below(word_of("."), anywhere_below);
    if (has("--name-status")) out.lines = Lines::second_field;
    else if (!has("--name-only")) return {};
    return out;
  }
  return {};
}

Names mktemp(Words words) {
  Word folder = word_of("/tmp");
  const Word* pattern = nullptr;
  bool in_folder = false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& text = words[i].text;
    if (text == "-p" && i + 1 < words.size()) {
      folder = words[++i];
      in_folder = true;
    } else if (text.starts_with("--tmpdir")) {
      if (text.size() > 9) folder = {.text = text.substr(9), .exact = words[i].exact};
      in_folder = true;
    } else if (text == "-t") {
      in_folder = true;
    } else if (text.starts_with("--suffix")) {
      if (text.find('/') != std::string::npos) return {};
    } else if (is_option(words[i])) {
      if (!only_of(text.substr(1), "duq") && text != "--directory" && text != "--dry-run" && text != "--quiet") return {};
    } else if (std::exchange(pattern, &words[i]) != nullptr) {
      return {};
    }
  }
  if (pattern != nullptr) {
    if (pattern->text.starts_with(some_name) || pattern->text.find("..") != std::string::npos) return {};
    const auto slash = pattern->text.rfind('/');
    if (slash == std::string::npos) return below(in_folder ? folder : word_of("."), std::string(some_name));
    if (in_folder) return {};
    folder = {.text = pattern->text.substr(0, std::max<std::size_t>(slash, 1)), .exact = pattern->exact};
  }
  if (folder.text.empty()) return {};
  return below(folder, std::string(some_name));
}

// Text that is not wholly known.
Names echo(Words words, bool with_format) {
  std::size_t first = 1;
  if (with_format) {
    if (words.size() < 3 || !words[1].exact) return {};
    std::string format = words[1].text;
    for (const auto part : {"%s", "%q", "\\n", "\\0", " ", "\n"})
      for (auto at = format.find(part); at != std::string::npos; at = format.find(part)) format.erase(at, std::string_view(part).size());
    if (!format.empty()) return {};
    first = 2;
  }
  PrintedNames out;
  for (std::size_t i = first; i < words.size(); ++i) {
    const Word& word = words[i];
    if (!with_format && is_option(word) && only_of(word.text.substr(1), "neE")) continue;
    if (word.text.find('\\') != std::string::npos) return {};
    for (std::size_t at = 0; at < word.text.size();) {
      const auto begin = word.text.find_first_not_of(" \n\t", at);
      if (begin == std::string::npos) break;
      const auto end = std::min(word.text.find_first_of(" \n\t", begin), word.text.size());
      Word one = word;
      one.text = word.text.substr(begin, end - begin);
      out.places.push_back({std::move(one), {}});
      at = end;
    }
  }
  return out;
}

// ---- Programs that let lines through ----------------------------------------------------------------------------------------------------------------------------

bool reads_input(const Options& options) {
  return options.exact && std::all_of(options.operands.begin(), options.operands.end(), [](const Word* word) { return word->text == "-"; });
}

// Lines chosen, and a leading "./" taken off: all else may make another name of one.
bool keeps_lines_sed(Words words) {
  const Options options = read_options(words, "");
  if (!options.exact || options.operands.size() != 1 || !only_of(options.letters + "n", "nErz") || !options.long_names.empty())
    return false;
  const std::string& script = options.operands[0]->text;
  if (!options.operands[0]->exact) return false;
  if (script.size() > 4 && script[0] == 's') {
    const std::string d(1, script[1]);
    return script == "s" + d + "^\\./" + d + d;
  }
  if (script.size() > 1 && std::string_view("dpq").find(script.back()) != std::string_view::npos) {
    const std::string_view address = std::string_view(script).substr(0, script.size() - 1);
    if (only_of(address, "0123456789,$")) return true;
    return address.size() > 2 && address[0] == '/' && address.find('/', 1) == address.size() - 1;
  }
  return false;
}

// The field that "{print $N}" prints: 0 the line, -1 the last; nothing when the program does something else.
std::optional<int> awk_field(const Options& options) {
  if (options.operands.size() != 1 || !options.operands[0]->exact) return {};
  std::string program = options.operands[0]->text;
  std::erase_if(program, [](char c) { return c == ' ' || c == ';' || c == '\n'; });
  auto brace = program.find('{');
  if (brace == std::string::npos) return {};
  const std::string condition = program.substr(0, brace);
  const bool expression = condition.size() > 2 && condition[0] == '/' && condition.find('/', 1) == condition.size() - 1;
  if (!condition.empty() && !expression && !(condition.starts_with("NR") && only_of(condition.substr(2), "<>=!0123456789"))) return {};
  const std::string action = program.substr(brace);
  if (action == "{print}" || action == "{print$0}") return 0;
  if (action == "{print$NF}") return -1;
  if (action.starts_with("{print$") && action.ends_with("}") && action.size() == 9 && action[7] >= '1' && action[7] <= '9')
    return action[7] - '0';
  return {};
}

bool is_blank(std::string_view set) {
  static constexpr std::array blanks{"\\n"sv, "\\0"sv, "\\000"sv, "\\r"sv,  "\\t"sv,    " "sv,
                                     "\n"sv,  "\r"sv,  "\t"sv,    " \\n"sv, "\\n\\r"sv, "[:space:]"sv};
  return among(set, blanks);
}

}  // namespace

std::vector<Word> PrintedNames::words() const {
  std::vector<Word> out;
  if (lines != Lines::names) return out;
  for (const NamesBelow& place : places) {
    Word word = place.root;
    if (!place.below.empty()) {
      word.glob = true;
      if (!word.text.ends_with('/')) word.text += '/';
      word.text += place.below;
    }
    out.push_back(std::move(word));
  }
  return out;
}

std::optional<PrintedNames> names_printed(Words words) {
  if (words.empty()) return {};
  const std::string program = base_name(words[0].text);
  if (program == "find" || program == "gfind") return find(words);
  if (program == "fd" || program == "fdfind") return fd(words);
  if (program == "ls") return ls(words);
  static constexpr std::array greps{"grep"sv, "egrep"sv, "fgrep"sv, "rg"sv, "ag"sv, "ack"sv};
  if (among(program, greps)) return grep(words);
  if (program == "git") return git(words);
  if (program == "mktemp") return mktemp(words);
  if (program == "echo") return echo(words, false);
  if (program == "printf") return echo(words, true);
  return {};
}

std::optional<PrintedNames> names_passed(Words words, const PrintedNames& input) {
  if (words.empty()) return {};
  const std::string program = base_name(words[0].text);
  const auto narrowed = [&](bool passes) -> Names {
    if (!passes) return {};
    PrintedNames out = input;
    // Some of all: no longer everything.
    for (auto& place : out.places)
      if (const auto slash = place.below.rfind('/'); only_of(place.below.substr(slash == std::string::npos ? 0 : slash + 1), "*?."))
        place.below = place.below.substr(0, slash == std::string::npos ? 0 : slash + 1) + std::string(some_name);
    return out;
  };
  const auto whole = [&](bool passes) { return passes ? Names(input) : Names(); };
  const auto as_names = [&] {
    PrintedNames out = input;
    out.lines = Lines::names;
    return out;
  };
  if (program == "cat") {
    const Options options = read_options(words, "");
    return whole(reads_input(options) && options.letters.find_first_not_of("us") == std::string::npos && options.long_names.empty());
  }
  if (program == "sort" || program == "uniq" || program == "tac") {
    const Options options = read_options(words, program == "sort" ? "kto" : "fsw");
    return whole(reads_input(options) && !options.any('c', 'o', 'D', "count", "output", "group", "files0-from", "separator", 's'));
  }
  if (program == "head" || program == "tail" || program == "shuf") {
    const Options options = read_options(words, "ncior");
    return narrowed(reads_input(options) && !options.any('c', "bytes", 'e', "echo", 'i', "input-range", 'o', 'f', 'F'));
  }
  static constexpr std::array greps{"grep"sv, "egrep"sv, "fgrep"sv, "rg"sv};
  if (among(program, greps)) {
    const Options options = read_options(words, "efm");
    const bool pattern_elsewhere = options.any('e', "regexp");
    return narrowed(options.exact && options.operands.size() <= (pattern_elsewhere ? 0U : 1U) &&
                    !options.any('o', 'c', 'n', 'b', 'H', 'f', 'l', 'L', 'r', 'R', 'A', 'B', 'C', "only-matching", "count", "line-number",
                                 "byte-offset", "with-filename", "file", "replace", "files-with-matches", "recursive", "label", "files"));
  }
  if (program == "tee") return input;
  if (program == "xargs") return whole(words.size() == 1);
  if (program == "tr") {
    const Options options = read_options(words, "");
    return whole(options.exact && !options.operands.empty() &&
                 std::all_of(options.operands.begin(), options.operands.end(), [](const Word* set) { return is_blank(set->text); }));
  }
  if (program == "sed") {
    if (input.lines == Lines::tagged && words.size() == 2 && (words[1].text == "s/:.*//" || words[1].text == "s/:.*$//")) return as_names();
    return narrowed(keeps_lines_sed(words));
  }
  if (program == "awk" || program == "gawk" || program == "mawk") {
    const bool by_colon = words.size() >= 3 && (words[1].text == "-F:" || (words[1].text == "-F" && words[2].text == ":"));
    const Options options = read_options(words, "F");
    if (!options.exact || !options.long_names.empty() || !only_of(options.letters + "F", "F") || (options.has('F') && !by_colon)) return {};
    const auto field = awk_field(options);
    if (!field) return {};
    if (by_colon) return input.lines == Lines::tagged && *field == 1 ? Names(as_names()) : Names();
    switch (input.lines) {
      case Lines::names: return narrowed(*field == 0 || *field == 1 || *field == -1);
      case Lines::second_field: return *field == 2 || *field == -1 ? Names(as_names()) : Names();
      case Lines::ninth_field: return *field == 9 ? Names(as_names()) : Names();
      case Lines::tagged: break;
    }
    return narrowed(*field == 0);
  }
  if (program == "cut") {
    std::string all;
    for (const Word& word : words.subspan(1)) all += word.exact ? word.text : "?";
    if (input.lines == Lines::tagged && (all == "-d:-f1" || all == "-f1-d:")) return as_names();
    if (input.lines == Lines::second_field && all == "-c4-") return as_names();
    return {};
  }
  return {};
}

}  // namespace hearth::safety
