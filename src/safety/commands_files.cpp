// Programs that copy, delete, find, pack and change files.
#include <algorithm>
#include <array>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

void rm(Context& c) {
  static const Grammar grammar(
      "-f,--force -i -I -r,-R,--recursive -d,--dir -v,--verbose --one-file-system --no-preserve-root --preserve-root?=_ --interactive?=_ "
      "-P -x -W");
  const auto args = parse_arguments(c.words, 1, grammar);
  const bool recursive = args.has("r") && c.program != "rmdir";
  if (args.has("no-preserve-root")) c.report(Effect::filesystem_destruction, "switches off what protects / from rm");
  if (args.operands.empty() && !args.any({"help", "version"})) c.report(Effect::remove, "deletes nothing by itself");
  for (const auto& operand : args.operands) {
    if (operand.substitution && !operand.exact) {
      // The names that a command substituted here would print, where that can be told.
      for (std::size_t i = c.index; i > 0; --i) {
        const Command& before = c.run.script.commands[i - 1];
        if (before.depth <= c.command.depth) break;
        if (before.depth != c.command.depth + 1) continue;
        const auto items = Context::items_of(c.run, static_cast<int>(i - 1));
        if (!items || (operand.text != unknown_part && !operand.text.ends_with("/" + std::string(unknown_part)))) break;
        for (const auto& item : *items) c.remove(item, recursive);
        goto next;
      }
    }
    // An empty folder is no loss.
    if (c.program == "rmdir") {
      const std::string path = c.path_of(operand);
      const Site site = site_of(path, c.where());
      if (site.place == Place::home || site.place == Place::workspace || site.place == Place::temporary) {
        c.report(Effect::remove, "deletes the empty folder " + path, path, operand.exact);
        continue;
      }
    }
    c.remove(operand, recursive);
  next:;
  }
  if (args.any({"help", "version"}) && args.operands.empty()) c.report(Effect::compute, "tells about itself");
}

void shred(Context& c) {
  static const Grammar grammar(
      "-f,--force -n,--iterations=_ --random-source=R -s,--size=_ -u --remove?=_ -v,--verbose -x,--exact -z,--zero");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& operand : args.operands) {
    const std::string path = c.path_of(operand);
    const Site site = site_of(path, c.where());
    if (site.place == Place::workspace || site.place == Place::temporary) {
      c.report(Effect::filesystem_destruction, "overwrites " + path + " beyond recovery; delete it with rm", path, operand.exact);
    } else {
      c.remove(operand, false);
    }
  }
}

void truncate(Context& c) {
  static const Grammar grammar("-c,--no-create -o,--io-blocks -r,--reference=R -s,--size=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& operand : args.operands) c.write(operand);
}

// A copy keeps what its source is: a program stays the program, what was fetched stays fetched.
void remember_copy(Context& c, const Word& from, const Word& to, bool into_folder) {
  const std::string source = c.path_of(from);
  std::string target = c.path_of(to);
  if (into_folder || to.text.ends_with('/') || to.text == ".") target += "/" + source.substr(source.rfind('/') + 1);
  const std::string name = program_name(source);
  const Site site = site_of(source, c.where());
  if (site.place == Place::system && (is_shell(name) || find_handler(name) || !language_of(name).empty()) && target != source)
    c.run.programs[target] = name;
  if (const auto known = c.run.files.find(source); known != c.run.files.end()) {
    const Flow flow = known->second;
    c.run.files[target].join(flow);
    if (flow.network) c.run.files[target].network = true;
  }
  if (const auto known = c.run.programs.find(source); known != c.run.programs.end()) {
    const std::string program = known->second;
    c.run.programs[target] = program;
  }
}

void copy(Context& c) {
  static const Grammar grammar(
      "-a,--archive -b --backup?=_ -d -f,--force -H -i,--interactive -l,--link -L,--dereference -n,--no-clobber -P -p --preserve?=_ "
      "--no-preserve=_ --parents -R,-r,--recursive --reflink?=_ --remove-destination --sparse=_ -s,--symbolic-link "
      "-S,--suffix=_ -t,--target-directory=W -T,--no-target-directory -u,--update?=_ -v,--verbose -x,--one-file-system -Z --context?=_ -X "
      "-c");
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> sources = args.operands;
  Word target;
  const bool folder_given = args.value("t") != nullptr;
  if (folder_given) {
    target = *args.value("t");
  } else if (!sources.empty()) {
    target = sources.back();
    sources.pop_back();
  }
  const bool recursive = args.any({"R", "a"});
  if (sources.empty() && !folder_given) {
    if (!target.text.empty()) c.scan(target);
    c.report(Effect::compute, "copies nothing");
    return;
  }
  for (const auto& source : sources) {
    recursive ? c.read_tree(source) : c.read(source);
    remember_copy(c, source, target, folder_given || sources.size() > 1);
    if ((args.has("s") || args.has("l")) && c.run.links.size() < most_links) c.run.links[c.path_of(target)] = c.path_of(source);
  }
  // Into a folder: what lies there under the same name is what is written.
  for (const auto& source : sources) {
    const std::string into = c.path_of(target);
    const Site site = site_of(into, c.where());
    const std::string base = source.text.substr(source.text.find_last_of('/') == std::string::npos ? 0 : source.text.find_last_of('/') + 1);
    if (site.place == Place::home || site.place == Place::workspace || site.place == Place::elsewhere || site.place == Place::temporary) {
      Word inside = target;
      inside.text += "/" + base;
      const Site below = site_of(c.path_of(inside), c.where());
      if (is_dangerous(below.on_write) && !below.what.empty() && below.place != Place::home) c.write(inside);
    }
  }
  c.write(target);
}

void move(Context& c) {
  static const Grammar grammar(
      "-b --backup?=_ -f,--force -i,--interactive -n,--no-clobber -S,--suffix=_ -t,--target-directory=_ -T,--no-target-directory "
      "-u,--update?=_ -v,--verbose -Z --strip-trailing-slashes");
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> sources = args.operands;
  Word target;
  if (const Word* folder = args.value("t")) {
    target = *folder;
  } else if (!sources.empty()) {
    target = sources.back();
    sources.pop_back();
  }
  if (sources.empty()) return c.report(Effect::compute, "moves nothing");
  const std::string to = c.path_of(target);
  for (const auto& source : sources) {
    const std::string from = c.path_of(source);
    const Site site = site_of(from, c.where());
    remember_copy(c, source, target, sources.size() > 1);
    if (to == "/dev/null") {
      c.remove(source, true);
      c.report(Effect::filesystem_destruction, "moves " + from + " into nothing", from, source.exact);
      continue;
    }
    if (site.place == Place::credentials) c.read(source);
    if (begins_unknown(source) && site.what.empty()) continue;  // one file by a name that is not known yet
    const Site goal = site_of(to, c.where());
    if (!is_dangerous(site.on_remove) && !is_dangerous(goal.on_write) && from != c.where().working_folder && from != ".") {
      c.report(Effect::remove, "moves " + from, from, source.exact);
      continue;
    }
    c.remove(source, false);
  }
  c.write(target);
}

void link(Context& c) {
  static const Grammar grammar(
      "-b --backup?=_ -d -f,--force -i -L -n,--no-dereference -P -r,--relative -s,--symbolic -S,--suffix=_ -t,--target-directory=_ -T "
      "-v,--verbose");
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> sources = args.operands;
  Word target = plain(".");
  bool into_folder = true;
  if (const Word* folder = args.value("t")) {
    target = *folder;
  } else if (sources.size() > 1) {
    target = sources.back();
    sources.pop_back();
    into_folder = sources.size() > 1 || target.text.ends_with('/') || target.text == ".";
  }
  std::vector<std::pair<std::string, std::string>> made;
  for (const auto& source : sources) {
    const std::string from = c.path_of(source);
    const Site site = site_of(from, c.where());
    std::string at = c.path_of(target);
    if (into_folder) at += "/" + from.substr(from.rfind('/') + 1);
    if (is_dangerous(site.on_read)) {
      c.report(site.on_read, "links to " + from + " (" + std::string(site.what) + ")", from, source.exact);
    } else if (is_dangerous(site.on_write) && site.place != Place::home && site.place != Place::elsewhere && !site.what.empty()) {
      c.report(site.on_write, "links to " + from + " (" + std::string(site.what) + "), so that it can be changed under another name", from,
               source.exact);
    } else if (site.place == Place::root || (site.place == Place::home && site.what == "a whole home folder")) {
      c.report(Effect::filesystem_destruction, "links the whole of " + from + " under another name", from, source.exact);
    }
    made.emplace_back(at, from);
    remember_copy(c, source, target, into_folder);
  }
  // A link of one's own in one's own folders is a file like others; the link in ~/.local/bin or /usr is not.
  c.write(target);
  for (auto& [at, from] : made)
    if (c.run.links.size() < most_links) c.run.links[at] = std::move(from);
}

void install(Context& c) {
  static const Grammar grammar(
      "-b --backup?=_ -c -C,--compare -d,--directory -D -g,--group=_ -m,--mode=_ -o,--owner=_ -p -s,--strip -S,--suffix=_ "
      "-t,--target-directory=W -T -v,--verbose --strip-program=P -Z");
  const auto args = parse_arguments(c.words, 1, grammar);
  c.apply_options(args);
  if (const Word* mode = args.value("m");
      mode && (mode->text.find('s') != std::string::npos || (mode->text.size() >= 4 && mode->text[mode->text.size() - 4] >= '2')))
    c.report(Effect::privilege_escalation, "makes a program that runs with its owner's rights", mode->text);
  if (args.has("d")) {
    for (const auto& operand : args.operands) c.create(operand);
    return;
  }
  for (std::size_t i = 0; i < args.operands.size(); ++i) {
    const bool last = i + 1 == args.operands.size() && !args.value("t");
    if (last) {
      c.write(args.operands[i]);
    } else {
      c.read(args.operands[i]);
      if (!args.operands.empty()) remember_copy(c, args.operands[i], args.operands.back(), args.operands.size() > 2);
    }
  }
}

double size_in_bytes(std::string_view text) {
  double value = 0;
  std::size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) value = value * 10 + (text[i] - '0');
  if (i == 0) value = 1;
  switch (i < text.size() ? text[i] : ' ') {
    case 'k':
    case 'K': return value * 1024;
    case 'M': return value * 1048576;
    case 'G': return value * 1073741824.0;
    case 'T': return value * 1099511627776.0;
    case 'P':
    case 'E':
    case 'Z':
    case 'Y': return 1e18;
    default: return value;
  }
}
constexpr double huge = 20.0 * 1073741824.0;  // more than a build needs

void dd(Context& c) {
  bool bounded = false, endless = false;
  double block = 512, count = -1;
  const Word* out = nullptr;
  Word target;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const Word& word = c.words[i];
    const auto equals = word.text.find('=');
    if (equals == std::string::npos) continue;
    const std::string key = word.text.substr(0, equals);
    const Word value = part_of(word, equals + 1);
    if (key == "if") {
      const std::string path = c.path_of(value);
      endless = path == "/dev/zero" || path == "/dev/urandom" || path == "/dev/random" || path == "/dev/full";
      c.read(value);
    } else if (key == "of") {
      target = value;
      out = &target;
    } else if (key == "bs" || key == "obs" || key == "ibs") {
      block = size_in_bytes(value.text);
    } else if (key == "count") {
      count = size_in_bytes(value.text);
      bounded = true;
    }
  }
  if (out) {
    c.write(*out);
    const Site site = site_of(c.path_of(*out), c.where());
    if (endless && site.place != Place::harmless && (!bounded || block * count > huge))
      c.report(Effect::tampering, "fills the disk", out->text);
  } else {
    c.output.join(c.input);
  }
}

void fallocate(Context& c) {
  static const Grammar grammar("-l,--length=_ -o,--offset=_ -n -p -z -x -c -d -i");
  const auto args = parse_arguments(c.words, 1, grammar);
  if (const Word* length = args.value("l"); length && size_in_bytes(length->text) > huge)
    c.report(Effect::tampering, "fills the disk", length->text);
  for (const auto& operand : args.operands) c.write(operand);
}

void tee(Context& c) {
  static const Grammar grammar("-a,--append -i,--ignore-interrupts -p --output-error?=_");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (const auto& operand : args.operands) {
    const std::string path = c.path_of(operand);
    c.run.files[path].join(c.input);
    c.write(operand);
  }
  c.output = c.input;
  if (args.operands.empty()) c.report(Effect::compute, "passes its input on");
}

// Modes: "u+s", "4755", "a+w", "777".
struct Mode {
  bool set_id = false;
  bool world_writable = false;
  bool executable = false;
  bool removes = false;
};
Mode mode_of(std::string_view text) {
  Mode mode;
  if (!text.empty() && text.find_first_not_of("01234567") == std::string_view::npos) {
    const std::size_t n = text.size();
    if (n >= 4 && ((text[n - 4] - '0') & 6) != 0) mode.set_id = true;
    mode.world_writable = ((text[n - 1] - '0') & 2) != 0;
    for (std::size_t i = n > 3 ? n - 3 : 0; i < n; ++i) mode.executable |= ((text[i] - '0') & 1) != 0;
    mode.removes = text.find_first_not_of('0') == std::string_view::npos;
    return mode;
  }
  std::size_t at = 0;
  while (at < text.size()) {
    const auto end = std::min(text.find(',', at), text.size());
    const auto clause = text.substr(at, end - at);
    at = end + 1;
    const auto op = clause.find_first_of("+-=");
    if (op == std::string_view::npos) continue;
    const auto who = clause.substr(0, op);
    const auto what = clause.substr(op + 1);
    if (clause[op] == '-') {
      mode.removes = mode.removes || who.empty() || who.find_first_of("ua") != std::string_view::npos;
      continue;
    }
    if (what.find('s') != std::string_view::npos) mode.set_id = true;
    if (what.find('w') != std::string_view::npos && (who.find_first_of("oa") != std::string_view::npos)) mode.world_writable = true;
    if (what.find_first_of("xX") != std::string_view::npos) mode.executable = true;
  }
  return mode;
}

void chmod(Context& c) {
  static const Grammar grammar(
      "-c,--changes -f,--silent,--quiet -v,--verbose --no-preserve-root --preserve-root --reference=R -R,--recursive");
  // A mode may begin with a dash: "-x", "-w".
  std::vector<Word> words;
  std::optional<Word> mode_word;
  for (std::size_t i = 0; i < c.words.size(); ++i) {
    const auto& text = c.words[i].text;
    if (i > 0 && !mode_word && text.size() > 1 && text[0] == '-' && text.find_first_not_of("rwxXst,-+=") == std::string::npos &&
        text != "--")
      mode_word = c.words[i];
    else words.push_back(c.words[i]);
  }
  auto args = parse_arguments(words, 1, grammar);
  if (!mode_word && !args.operands.empty() && !args.has("reference")) {
    mode_word = args.operands.front();
    args.operands.erase(args.operands.begin());
  }
  const Mode mode = mode_word ? mode_of(mode_word->text) : Mode{};
  const bool recursive = args.has("R");
  if (mode.set_id)
    c.report(Effect::privilege_escalation, "sets the set-id bit, so that the program runs with its owner's rights",
             args.operands.empty() ? std::string{} : c.path_of(args.operands.front()));
  for (const auto& operand : args.operands) {
    const std::string path = c.path_of(operand);
    const Site site = site_of(path, c.where());
    const bool own = site.place == Place::workspace || site.place == Place::temporary || site.place == Place::secret_like;
    if (mode.world_writable && (!own || (recursive && (path == c.where().working_folder || path == ".")))) {
      c.report(Effect::privilege_escalation, "lets everybody write to " + path, path, operand.exact);
    } else if ((site.place == Place::credentials) && !mode.world_writable && mode_word &&
               mode_word->text.find_first_not_of("0467") == std::string::npos && mode_word->text.ends_with("00")) {
      c.report(Effect::write, "keeps " + path + " to its owner", path);  // 600 on a key is what ssh asks for
    } else if (site.place == Place::harmless) {
      c.report(Effect::write, "changes the mode of a harmless device", path);
    } else {
      c.change_mode(operand, recursive, "changes the mode");
    }
  }
}

void chown(Context& c) {
  static const Grammar grammar(
      "-c,--changes -f,--silent,--quiet -v,--verbose -h,--no-dereference --dereference --from=_ --no-preserve-root --preserve-root "
      "--reference=R -R,--recursive -H -L -P");
  const auto args = parse_arguments(c.words, 1, grammar);
  for (std::size_t i = args.has("reference") ? 0 : 1; i < args.operands.size(); ++i) {
    if (i == 1 || args.has("reference")) {
      const std::string& owner = args.operands.front().text;
      if (starts_with(owner, "root") || starts_with(owner, "0:") || owner == "0") {
        c.report(Effect::privilege_escalation, "gives files to root", c.path_of(args.operands[i]));
      }
    }
    c.change_mode(args.operands[i], args.has("R"), "changes the owner");
  }
  if (args.operands.size() < 2) c.report(Effect::compute, "changes nothing");
}

void chattr(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const auto& text = c.words[i].text;
    if (text[0] == '+' || text[0] == '-' || text[0] == '=') continue;
    const std::string path = c.path_of(c.words[i]);
    const Site site = site_of(path, c.where());
    if (site.place == Place::workspace || site.place == Place::temporary) c.report(Effect::write, "changes attributes of " + path, path);
    else
      c.report(Effect::tampering, "changes attributes of " + path + ", which can lock it or lift its protection", path, c.words[i].exact);
  }
}

// ---- find ------------------------------------------------------------------------------------------------------------------------------------------------

void find(Context& c) {
  std::size_t i = 1;
  std::vector<Word> roots;
  for (; i < c.words.size(); ++i) {
    const auto& text = c.words[i].text;
    if (text == "-H" || text == "-L" || text == "-P" || starts_with(text, "-O")) continue;
    if (text == "-D") {
      ++i;
      continue;
    }
    if (!text.empty() && (text[0] == '-' || text[0] == '(' || text[0] == '!' || text == ",")) break;
    roots.push_back(c.words[i]);
  }
  if (roots.empty()) roots.push_back(plain("."));
  std::string pattern;
  bool narrowed = false, empty = false, by_age = false;
  const auto names = [&](bool remove) {
    std::vector<Word> out;
    for (const auto& root : roots) {
      Word word = root;
      word.text = c.path_of(root);
      const bool deep = word.text == "/";
      if (!pattern.empty()) word.text += std::string(deep ? "" : "/") + "**/" + pattern;
      else if (narrowed || (!remove && by_age)) word.text += std::string(deep ? "" : "/") + "**/" + std::string(unknown_part);
      else word.text += deep ? "**" : "/**";
      word.glob = true;
      if (begins_unknown(root)) word.text = std::string(unknown_part) + "/**";
      if (starts_with(word.text, "/?/" + std::string(unknown_part))) word.text = word.text.substr(3);
      out.push_back(std::move(word));
    }
    return out;
  };
  bool acts = false;
  for (; i < c.words.size(); ++i) {
    const std::string& text = c.words[i].text;
    const auto next = [&]() -> const Word& { return i + 1 < c.words.size() ? c.words[++i] : c.words[i]; };
    const bool negated = i > 1 && (c.words[i - 1].text == "!" || c.words[i - 1].text == "-not");
    if (text == "-name" || text == "-iname") {
      const Word& value = next();
      if (!negated && value.text.find_first_not_of("*.?") != std::string::npos) pattern = value.text;
    } else if (text == "-path" || text == "-ipath" || text == "-wholename" || text == "-regex" || text == "-iregex" ||
               text == "-samefile" || text == "-inum") {
      const Word& value = next();
      if (!negated && value.text.find_first_not_of("*./?") != std::string::npos) narrowed = true;
    } else if (text == "-empty") {
      empty = !negated;
    } else if (text == "-mtime" || text == "-atime" || text == "-ctime" || text == "-mmin" || text == "-amin" || text == "-cmin" ||
               text == "-newer" || text == "-size" || starts_with(text, "-newer")) {
      next();
      by_age = true;
    } else if (text == "-user" || text == "-group" || text == "-perm" || text == "-type" || text == "-maxdepth" || text == "-mindepth" ||
               text == "-uid" || text == "-gid" || text == "-links" || text == "-printf" || text == "-fstype" || text == "-xtype" ||
               text == "-regextype" || text == "-lname") {
      next();
    } else if (text == "-delete") {
      acts = true;
      // Without its own test for names, everything below goes.
      for (auto& word : names(true)) {
        if (empty) c.report(Effect::remove, "deletes empty files and folders below " + word.text, word.text, word.exact);
        else c.remove(word, true);
      }
    } else if (text == "-fprint" || text == "-fprint0" || text == "-fls") {
      c.write(next());
    } else if (text == "-fprintf") {
      c.write(next());
      next();
    } else if (text == "-files0-from") {
      c.read(next());
    } else if (text == "-exec" || text == "-execdir" || text == "-ok" || text == "-okdir") {
      acts = true;
      std::vector<Word> inner;
      bool has_place = false;
      while (++i < c.words.size() && c.words[i].text != ";" &&
             !(c.words[i].text == "+" && !inner.empty() && inner.back().text.find("{}") != std::string::npos))
        inner.push_back(c.words[i]);
      if (inner.empty()) continue;
      const std::string name = program_name(inner.front().text);
      std::vector<Word> replaced;
      for (const auto& word : inner) {
        const auto place = word.text.find("{}");
        if (place == std::string::npos || replaced.empty()) {
          replaced.push_back(word);
          continue;
        }
        has_place = true;
        if (word.text == "{}") {
          for (const auto& found : names(true)) replaced.push_back(found);
        } else {
          Word value = word;
          value.text.replace(place, 2,
                             word.text.find(' ') == std::string::npos && place == 0 ? names(true).front().text : std::string(unknown_part));
          value.exact = word.text.find(' ') != std::string::npos ? false : word.exact;
          value.glob = true;
          replaced.push_back(std::move(value));
        }
      }
      if (empty && (name == "rm" || name == "rmdir")) {
        c.report(Effect::remove, "deletes empty files and folders");
        continue;
      }
      if (is_shell(name) && has_place) {
        // sh -c '… "$1"' _ {}: the text is judged as it stands.
        c.command_words(inner, "find");
      } else if (name == "rm" && replaced.size() > 1) {
        for (const auto& word : replaced)
          if (&word != &replaced.front() && word.text[0] != '-') c.remove(word, true);
      } else {
        c.command_words(replaced, "find");
      }
    }
  }
  if (!acts)
    for (const auto& root : roots) c.report(Effect::list, "lists what lies in " + root.text, c.path_of(root), root.exact);
  else if (c.run.out.observations.empty()) c.report(Effect::list, "lists files");
  c.output.any = false;
  c.output.local = false;
  c.output.local = true;
}

void fd(Context& c) {
  static const Grammar grammar(
      "-H,--hidden -I,--no-ignore -g,--glob -e,--extension=_ -t,--type=_ -d,--max-depth=_ -E,--exclude=_ -S,--size=_ -o,--owner=_ "
      "--changed-within=_ --changed-before=_ --base-directory=? -j=_ -c=_");
  std::vector<Word> own, inner;
  bool in_exec = false;
  for (const auto& word : c.words) {
    if (!in_exec && (word.text == "-x" || word.text == "-X" || word.text == "--exec" || word.text == "--exec-batch")) {
      in_exec = true;
      continue;
    }
    (in_exec ? inner : own).push_back(word);
  }
  const auto args = parse_arguments(own, 1, grammar);
  if (inner.empty()) return c.report(Effect::list, "lists files");
  const Word root = args.operands.size() > 1 ? args.operands[1] : plain(".");
  Word found = root;
  const bool all = args.operands.empty() && !args.has("e");
  found.text = c.path_of(root) + "/**" + (all ? "" : "/" + std::string(unknown_part));
  found.glob = true;
  bool placed = false;
  for (auto& word : inner)
    if (word.text == "{}") {
      word = found;
      placed = true;
    }
  if (!placed) inner.push_back(found);
  c.command_words(inner, "fd");
}

// ---- Archives ----------------------------------------------------------------------------------------------------------------------------------------------

void tar(Context& c) {
  static const Grammar grammar(
      "-c,--create -x,--extract,--get -t,--list -r,--append -u,--update -d,--diff,--compare -A --delete -f,--file=? -C,--directory=? "
      "-T,--files-from=? -X,--exclude-from=R --exclude=_ -I,--use-compress-program=X --checkpoint?=_ "
      "--checkpoint-action=? --to-command=X -F,--info-script,--new-volume-script=X --rsh-command=X --rmt-command=X -z,--gzip -j,--bzip2 "
      "-J,--xz -Z --zstd -a -v,--verbose -p -P,--absolute-names -k -U --overwrite -O,--to-stdout -h "
      "-g,--listed-incremental=W --transform,--xform=_ -s=_ --strip-components=_ --owner=_ --group=_ --mode=_ --mtime=_ -N,--newer=_ "
      "--remove-files -b=_ -V=_ --index-file=W --warning=_ --one-top-level?=F -W -m -S -L=_ -K=_ -H,--format=_");
  // The old form: "tar czf x".
  std::vector<Word> words = c.words;
  if (words.size() > 1 && !words[1].text.empty() && words[1].text[0] != '-' &&
      words[1].text.find_first_not_of("cxtrudAfvzjJZapPkUOhgCTXIFmSWBblLMnoVw") == std::string::npos) {
    std::string letters = words[1].text;
    std::vector<Word> expanded{words[0]};
    std::size_t next = 2;
    for (const char letter : letters) {
      Word option = plain(std::string("-") + letter);
      expanded.push_back(option);
      const OptionSpec* spec = grammar.letter(letter);
      if (spec && spec->role != Role::none && !spec->optional_value && next < words.size()) expanded.push_back(words[next++]);
    }
    expanded.insert(expanded.end(), words.begin() + static_cast<std::ptrdiff_t>(std::min(next, words.size())), words.end());
    words = std::move(expanded);
  }
  const auto args = parse_arguments(words, 1, grammar);
  for (const auto& option : args.options)
    if (option.name == "checkpoint-action" && option.has_value && starts_with(option.value.text, "exec="))
      c.shell(part_of(option.value, 5), "tar");
  for (const auto& option : args.options)
    if (option.has_value && option.spec && option.name != "f" && option.name != "C" && option.name != "T" &&
        option.name != "checkpoint-action")
      c.apply(option.spec->role, option.value);
  const Word* archive = args.value("f");
  const bool remote = archive && is_remote_path(archive->text) && !args.has("force-local");
  const Word* folder = args.value("C");
  const auto inside = [&](const Word& word) {
    if (!folder || word.text.starts_with('/') || word.text.starts_with('~')) return word;
    Word joined = word;
    joined.text = folder->text + "/" + word.text;
    joined.exact = word.exact && folder->exact;
    return joined;
  };
  if (args.any({"c", "r", "u"})) {
    Flow before = std::exchange(c.output, Flow{});
    for (const auto& operand : args.operands) c.read_tree(inside(operand));
    if (const Word* list = args.value("T")) c.read(*list);
    if (args.has("remove-files"))
      for (const auto& operand : args.operands) c.remove(inside(operand), true);
    Flow content = c.output;
    content.local = true;
    if (archive && archive->text != "-") {
      c.output = before;
      if (remote) c.send_flow(content, host_of(archive->text), "as an archive");
      else {
        c.run.files[c.path_of(*archive)].join(content);
        if (content.secret) c.run.files[c.path_of(*archive)].secret = true;
        c.write(*archive);
      }
    } else {
      c.output = content;
    }
    if (c.run.out.observations.empty()) c.report(Effect::write, "packs an archive");
    return;
  }
  if (args.has("delete") && archive) c.write(*archive);
  if (archive && archive->text != "-") c.read(*archive);
  if (args.has("x")) {
    if (args.has("O")) {
      c.output.any = true;
      return c.report(Effect::read, "unpacks an archive to its output");
    }
    const Word into = folder ? *folder : plain(".");
    if (args.has("P")) c.report(Effect::filesystem_destruction, "unpacks to wherever the archive says; leave out -P");
    const std::string path = c.path_of(into);
    const Site site = site_of(path, c.where());
    if (site.place == Place::home || site.place == Place::elsewhere)
      c.report(Effect::filesystem_destruction, "unpacks into " + path + ", outside of the workspace", path, into.exact);
    else c.write(into);
    if (c.input.network || (archive && c.run.files.contains(c.path_of(*archive)) && c.run.files[c.path_of(*archive)].network)) {
      c.run.files[path].network = path != c.where().working_folder && path != ".";
    }
    return;
  }
  c.report(Effect::list, "lists an archive");
}

void zip(Context& c) {
  static const Grammar grammar(
      "-r,--recurse-paths -q,--quiet -9 -j -m,--move -u -d,--delete -x,--exclude=_ -i,--include=_ -P,--password=_ -e -T,--test "
      "-TT,--unzip-command=X -y -@ -b,--temp-path=F -O,--output-file,--out=W -s=_ -sf -t=_ -n=_ -FS -f -o -v -g -l -z");
  const auto args = parse_arguments(c.words, 1, grammar);
  c.apply_options(args);
  for (std::size_t i = 0; i < args.operands.size(); ++i) {
    if (i == 0) {
      c.write(args.operands[0]);
      continue;
    }
    args.has("r") ? c.read_tree(args.operands[i]) : c.read(args.operands[i]);
    if (args.has("m")) c.remove(args.operands[i], args.has("r"));
  }
  if (!args.operands.empty()) c.run.files[c.path_of(args.operands[0])].join(c.output);
  if (args.operands.empty()) c.report(Effect::compute, "packs nothing");
}

// ---- Text that writes ------------------------------------------------------------------------------------------------------------------------------------------

// The commands of a sed script that reach out: e (run), w and r (files), s///e and s///w.
void sed_script(Context& c, const Word& word) {
  const std::string_view text = word.text;
  std::size_t i = 0;
  const auto skip_delimited = [&](char mark) {
    bool in_set = false;
    while (i < text.size()) {
      if (text[i] == '\\') i += 2;
      else if (text[i] == '[' && !in_set) in_set = true, ++i;
      else if (text[i] == ']' && in_set) in_set = false, ++i;
      else if ((text[i] == mark && !in_set) || (text[i] == mark && mark != '/')) break;
      else if (text[i] == '\n') break;
      else ++i;
    }
    if (i < text.size()) ++i;
  };
  const auto rest_of_line = [&] {
    const auto end = std::min(text.find('\n', i), text.size());
    auto begin = i;
    while (begin < end && (text[begin] == ' ' || text[begin] == '\t')) ++begin;
    i = end;
    return part_of(word, begin, end - begin);
  };
  while (i < text.size()) {
    const char ch = text[i];
    if (ch == ' ' || ch == '\t' || ch == '\n' || ch == ';' || ch == '}' || ch == '{' || ch == '!' || ch == ',' || ch == '+' || ch == '~' ||
        ch == '$' || (ch >= '0' && ch <= '9')) {
      ++i;
      continue;
    }
    if (ch == '#') {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    if (ch == '/' || ch == '\\') {
      const char mark = ch == '/' ? '/' : i + 1 < text.size() ? text[i + 1] : '/';
      i += ch == '/' ? 1 : 2;
      skip_delimited(mark);
      while (i < text.size() && (text[i] == 'I' || text[i] == 'M')) ++i;
      continue;
    }
    ++i;
    if (ch == 's' || ch == 'y') {
      if (i >= text.size()) break;
      const char mark = text[i++];
      skip_delimited(mark);
      const std::size_t replacement = i;
      skip_delimited(mark);
      const std::size_t replacement_end = i > replacement ? i - 1 : i;
      if (ch == 'y') continue;
      while (i < text.size() && text[i] != ';' && text[i] != '\n' && text[i] != '}' && text[i] != ' ') {
        if (text[i] == 'e') {
          Word command = part_of(word, replacement, replacement_end - replacement);
          if (command.text.find_first_of("&\\") != std::string::npos) command.exact = false;
          c.shell(command, "sed");
          c.report(Effect::unknown, "runs what its input becomes, by sed's e flag", {}, false);
        } else if (text[i] == 'w') {
          ++i;
          c.write(rest_of_line());
          break;
        }
        ++i;
      }
    } else if (ch == 'e') {
      const Word command = rest_of_line();
      if (command.text.empty()) c.report(Effect::unknown, "runs its input as commands, by sed's e", {}, false);
      else c.shell(command, "sed");
    } else if (ch == 'w' || ch == 'W') {
      c.write(rest_of_line());
    } else if (ch == 'r' || ch == 'R') {
      c.read(rest_of_line());
    } else if (ch == 'a' || ch == 'i' || ch == 'c' || ch == ':' || ch == 'b' || ch == 't' || ch == 'T') {
      rest_of_line();
    }
  }
}

void sed(Context& c) {
  static const Grammar grammar(
      "-n,--quiet,--silent -e,--expression=_ -f,--file=I -i,--in-place?=_ -E,-r,--regexp-extended -s,--separate -z,--null-data "
      "-u,--unbuffered -l=_ --debug --posix --sandbox --follow-symlinks -b");
  const auto args = parse_arguments(c.words, 1, grammar);
  bool script_given = false;
  for (const auto& option : args.options) {
    if (option.name == "e") {
      script_given = true;
      sed_script(c, option.value);
    } else if (option.name == "f") {
      script_given = true;
      const std::string path = c.path_of(option.value);
      c.read(option.value);
      if (const auto known = c.run.script.written.find(path); known != c.run.script.written.end()) sed_script(c, plain(known->second));
    }
  }
  std::size_t first = 0;
  if (!script_given && !args.operands.empty()) {
    sed_script(c, args.operands.front());
    first = 1;
  }
  for (std::size_t i = first; i < args.operands.size(); ++i) {
    if (args.has("i")) c.write(args.operands[i]);
    else c.read(args.operands[i]);
  }
  c.output.join(c.input);
  if (args.operands.size() <= first) c.report(Effect::compute, "edits its input");
}

void print(Context& c) {
  Flow flow;
  std::string text;
  bool exact = true, escapes = c.program == "printf", newline = c.program != "printf";
  std::size_t i = 1;
  if (c.program != "printf") {
    for (; i < c.words.size(); ++i) {
      const auto& word = c.words[i].text;
      if (word.size() < 2 || word[0] != '-' || word.find_first_not_of("neE", 1) != std::string::npos) break;
      if (word.find('n') != std::string::npos) newline = false;
      if (word.find('e') != std::string::npos) escapes = true;
    }
  } else if (i + 1 < c.words.size() && c.words[i].text == "-v") {
    i += 2;
  }
  const std::size_t begin = i;
  for (; i < c.words.size(); ++i) {
    const Word& word = c.words[i];
    if (!word.exact) {
      Flow part = c.flow_of(word);
      part.text.reset();
      flow.network |= part.network;
      flow.decoded |= part.decoded;
      flow.secret |= part.secret;
      flow.local |= part.local;
      flow.any |= part.any;
      exact = false;
    }
    if (c.program == "printf" && i == begin && c.words.size() > begin + 1) {
      text = word.text;
      continue;
    }
    if (c.program == "printf" && i > begin) {
      // %s, %b, %d and the like take the next argument.
      std::size_t at = 0;
      bool placed = false;
      while ((at = text.find('%', at)) != std::string::npos) {
        const auto end = text.find_first_not_of("0123456789.-+# ", at + 1);
        if (end == std::string::npos) break;
        if (text[end] == '%') {
          at = end + 1;
          continue;
        }
        text.replace(at, end - at + 1, word.text);
        placed = true;
        break;
      }
      if (!placed) text += word.text;
      continue;
    }
    text += (i > begin ? " " : "") + word.text;
  }
  if (escapes) {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (text[at] != '\\' || at + 1 >= text.size()) {
        out += text[at];
        continue;
      }
      const char next = text[++at];
      int value = 0;
      if (next == 'x') {
        std::size_t digits = 0;
        while (digits < 2 && at + 1 < text.size() && std::isxdigit(static_cast<unsigned char>(text[at + 1]))) {
          const char d = text[++at];
          value = value * 16 + (d <= '9' ? d - '0' : (d | 32) - 'a' + 10);
          ++digits;
        }
        out += static_cast<char>(value);
      } else if (next >= '0' && next <= '7') {
        value = next - '0';
        std::size_t digits = 1;
        while (digits < (next == '0' ? 4u : 3u) && at + 1 < text.size() && text[at + 1] >= '0' && text[at + 1] <= '7') {
          value = value * 8 + (text[++at] - '0');
          ++digits;
        }
        out += static_cast<char>(value);
      } else {
        out += next == 'n' ? '\n' : next == 't' ? '\t' : next == 'e' || next == 'E' ? '\x1b' : next == '\\' ? '\\' : next;
      }
    }
    text = std::move(out);
  }
  if (newline) text += '\n';
  if (exact) flow.text = std::move(text);
  c.output = flow;
  c.report(Effect::compute, "prints");
}

constexpr auto programs = std::to_array<Named>({
    {"rm", rm},
    {"unlink", rm},
    {"rmdir", rm},
    {"grm", rm},
    {"shred", shred},
    {"gshred", shred},
    {"truncate", truncate},
    {"cp", copy},
    {"gcp", copy},
    {"ditto", copy},
    {"mv", move},
    {"gmv", move},
    {"ln", link},
    {"link", link},
    {"ginstall", install},
    {"install", install},
    {"dd", dd},
    {"dcfldd", dd},
    {"dc3dd", dd},
    {"ddrescue", dd},
    {"fallocate", fallocate},
    {"tee", tee},
    {"chmod", chmod},
    {"chown", chown},
    {"chgrp", chown},
    {"lchown", chown},
    {"chattr", chattr},
    {"chflags", chattr},
    {"find", find},
    {"gfind", find},
    {"bfs", find},
    {"fd", fd},
    {"fdfind", fd},
    {"tar", tar},
    {"gtar", tar},
    {"bsdtar", tar},
    {"zip", zip},
    {"sed", sed},
    {"gsed", sed},
    {"ssed", sed},
    {"echo", print},
    {"printf", print},
    {"print", print},
});

}  // namespace

std::span<const Named> file_programs() { return programs; }

}  // namespace hearth::safety
