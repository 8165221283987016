#include "safety/commands.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/json.h"
#include "safety/commands_model.h"
#include "safety/printed_names.h"

namespace hearth::safety {

// ---- Words ---------------------------------------------------------------------------------------------------------------------------------------------

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}
bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
Word plain(std::string_view text) { return {.text = std::string(text)}; }
Word part_of(const Word& word, std::size_t from, std::size_t count) {
  Word part = word;
  part.text = from >= word.text.size() ? std::string{} : word.text.substr(from, count);
  if (!word.exact && part.text.find(unknown_part) == std::string::npos) part.exact = true;
  return part;
}
bool begins_unknown(const Word& word) { return starts_with(word.text, unknown_part); }

namespace {

bool all_of_set(std::string_view text, std::string_view set) {
  return !text.empty() && text.find_first_not_of(set) == std::string_view::npos;
}

std::string short_text(std::string_view text, std::size_t most = 80) {
  if (text.size() <= most) return std::string(text);
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "…";
}

// A number as the C library's inet_aton reads one part of an address.
std::optional<std::uint64_t> address_part(std::string_view text) {
  int base = 10;
  if (text.size() > 1 && text[0] == '0') {
    base = 8;
    text.remove_prefix(1);
    if (text[0] == 'x' || text[0] == 'X') {
      base = 16;
      text.remove_prefix(1);
    }
  }
  if (text.empty() || text.size() > 12) return {};
  std::uint64_t value = 0;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
    if (digit >= base) return {};
    value = value * static_cast<unsigned>(base) + static_cast<unsigned>(digit);
  }
  return value;
}

}  // namespace

// ---- Hosts -----------------------------------------------------------------------------------------------------------------------------------------------

std::string host_of(std::string_view text) {
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) text.remove_prefix(scheme + 3);
  text = text.substr(0, text.find_first_of("/?#\\"));
  if (const auto at = text.rfind('@'); at != std::string_view::npos) text.remove_prefix(at + 1);
  if (starts_with(text, "[")) {
    text = text.substr(1, text.find(']') - 1);
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    text = text.substr(0, text.find(':'));
  }
  std::string host = lower_case(text);
  while (!host.empty() && host.back() == '.') host.pop_back();
  // inet_aton: one to four parts, decimal, octal or hexadecimal; the last one fills the rest.
  std::vector<std::uint64_t> parts;
  std::string_view rest = host;
  bool numeric = !host.empty();
  while (numeric) {
    const auto part = address_part(rest.substr(0, rest.find('.')));
    if (!part) {
      numeric = false;
      break;
    }
    parts.push_back(*part);
    if (rest.find('.') == std::string_view::npos) break;
    rest.remove_prefix(rest.find('.') + 1);
  }
  if (numeric && parts.size() <= 4) {
    std::uint64_t address = parts.back();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) address |= (parts[i] & 255) << (24 - 8 * i);
    host.clear();
    for (int shift = 24; shift >= 0; shift -= 8) host += std::to_string((address >> shift) & 255) + (shift > 0 ? "." : "");
  }
  if (starts_with(host, "::ffff:")) return host_of(host.substr(7));
  return host;
}
bool is_loopback(std::string_view host) {
  return host == "localhost" || starts_with(host, "127.") || host == "::1" || host == "0.0.0.0" || host == "::" ||
         host.ends_with(".localhost") || host == "host.docker.internal" || host == "ip6-localhost";
}
bool is_metadata_host(std::string_view host) {
  return host == "169.254.169.254" || host == "169.254.170.2" || host == "metadata.google.internal" || host == "100.100.100.200" ||
         host == "fd00:ec2::254" || host == "metadata" || host == "192.0.0.192";
}
bool is_trusted(std::string_view host, const Surroundings& where) {
  return std::any_of(where.trusted_hosts.begin(), where.trusted_hosts.end(), [host](const std::string& pattern) {
    const std::string name = lower_case(pattern);
    if (starts_with(name, "*.")) return host.size() > name.size() - 1 && host.ends_with(std::string_view(name).substr(1));
    return host == name;
  });
}
bool looks_like_url(std::string_view text) {
  const auto scheme = text.find("://");
  if (scheme == std::string_view::npos || scheme == 0 || scheme > 12) return false;
  return std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(scheme), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '-' || c == '.' || (c >= '0' && c <= '9');
  });
}
bool is_remote_path(std::string_view text) {
  if (looks_like_url(text)) return !starts_with(lower_case(text), "file:");
  const auto colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  return text.find('/') == std::string_view::npos || text.find('/') > colon;
}

// ---- Names ------------------------------------------------------------------------------------------------------------------------------------------------

std::string program_name(std::string_view word) {
  if (const auto slash = word.rfind('/'); slash != std::string_view::npos) word.remove_prefix(slash + 1);
  std::string name(word);
  if (name.size() > 4 && lower_case(name).ends_with(".exe")) name.resize(name.size() - 4);
  // python3.11, perl5.36, ruby2.7, lua5.4, node18, gcc-12, clang-format-19; not sha256sum, base64, md5.
  std::size_t end = name.size();
  while (end > 0 && (all_of_set(name.substr(end - 1, 1), "0123456789.") || (name[end - 1] == '-' && end < name.size()))) --end;
  if (end > 0 && end < name.size()) {
    const std::string base = name.substr(0, end);
    static const std::unordered_set<std::string> versioned{"python", "pypy", "perl",  "ruby", "lua",  "luajit", "node",
                                                           "nodejs", "php",  "tclsh", "wish", "pip",  "irb",    "gem",
                                                           "guile",  "java", "gawk",  "R",    "psql", "ld",     "gdb"};
    if (versioned.contains(base)) return base;
    if (base == "pwsh" || base == "bash" || base == "zsh" || base == "ksh" || base == "ghc") return base;
  }
  return name;
}

bool is_shell(std::string_view program) {
  static const std::unordered_set<std::string_view> shells{"sh",    "bash", "dash",  "zsh",  "ksh",  "mksh",  "pdksh", "ash", "fish",
                                                           "csh",   "tcsh", "rbash", "rksh", "yash", "posh",  "rc",    "es",  "elvish",
                                                           "xonsh", "nu",   "lksh",  "oksh", "hush", "-bash", "-sh"};
  return shells.contains(program);
}
std::string_view language_of(std::string_view program) {
  static const std::unordered_map<std::string_view, std::string_view> languages{{"octave-cli", "octave"},
                                                                                {"python", "python"},
                                                                                {"pypy", "python"},
                                                                                {"ipython", "python"},
                                                                                {"jython", "python"},
                                                                                {"perl", "perl"},
                                                                                {"ruby", "ruby"},
                                                                                {"jruby", "ruby"},
                                                                                {"irb", "ruby"},
                                                                                {"node", "node"},
                                                                                {"nodejs", "node"},
                                                                                {"deno", "node"},
                                                                                {"bun", "node"},
                                                                                {"php", "php"},
                                                                                {"lua", "lua"},
                                                                                {"luajit", "lua"},
                                                                                {"texlua", "lua"},
                                                                                {"Rscript", "r"},
                                                                                {"R", "r"},
                                                                                {"littler", "r"},
                                                                                {"julia", "julia"},
                                                                                {"tclsh", "tcl"},
                                                                                {"wish", "tcl"},
                                                                                {"expect", "tcl"},
                                                                                {"jimsh", "tcl"},
                                                                                {"osascript", "applescript"},
                                                                                {"pwsh", "powershell"},
                                                                                {"powershell", "powershell"},
                                                                                {"groovy", "groovy"},
                                                                                {"scala", "groovy"},
                                                                                {"jshell", "groovy"},
                                                                                {"kotlin", "groovy"},
                                                                                {"elixir", "elixir"},
                                                                                {"erl", "erlang"},
                                                                                {"guile", "lisp"},
                                                                                {"sbcl", "lisp"},
                                                                                {"clisp", "lisp"},
                                                                                {"racket", "lisp"},
                                                                                {"emacs", "lisp"},
                                                                                {"awk", "awk"},
                                                                                {"gawk", "awk"},
                                                                                {"mawk", "awk"},
                                                                                {"nawk", "awk"},
                                                                                {"octave", "octave"},
                                                                                {"ts-node", "node"},
                                                                                {"tsx", "node"},
                                                                                {"qjs", "node"},
                                                                                {"jjs", "node"},
                                                                                {"js", "node"},
                                                                                {"rhino", "node"},
                                                                                {"ghc", "haskell"},
                                                                                {"runghc", "haskell"},
                                                                                {"ocaml", "ocaml"},
                                                                                {"swift", "swift"},
                                                                                {"gjs", "node"}};
  if (is_shell(program)) return "sh";
  const auto found = languages.find(program);
  return found == languages.end() ? std::string_view{} : found->second;
}

bool names_secret(std::string_view name) {
  const std::string low = lower_case(name);
  for (const std::string_view word : {"secret", "token", "passw", "passwd", "api_key", "apikey", "private", "credential", "access_key",
                                      "auth_key", "pgpassword", "session_id", "cookie"})
    if (low.find(word) != std::string::npos) return true;
  for (const std::string_view end : {"_key", "_pat", "_pass", "_pwd"})
    if (low.ends_with(end)) return true;
  return low == "key" || low == "pass" || low == "pwd_" || low == "auth";
}

std::vector<std::string> variables_in(std::string_view excerpt) {
  std::vector<std::string> names;
  const auto name_char = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= '0' && c <= '9'); };
  for (std::size_t i = 0; i + 1 < excerpt.size(); ++i) {
    if (excerpt[i] != '$') continue;
    std::size_t begin = i + 1;
    if (excerpt[begin] == '{') {
      ++begin;
      while (begin < excerpt.size() && (excerpt[begin] == '#' || excerpt[begin] == '!')) ++begin;
    }
    std::size_t end = begin;
    while (end < excerpt.size() && name_char(excerpt[end])) ++end;
    if (end > begin) names.emplace_back(excerpt.substr(begin, end - begin));
  }
  return names;
}

// ---- Options ----------------------------------------------------------------------------------------------------------------------------------------------

Grammar::Grammar(std::string_view spec) {
  std::size_t at = 0;
  while (at < spec.size()) {
    at = spec.find_first_not_of(" \n", at);
    if (at == std::string_view::npos) break;
    const auto end = std::min(spec.find_first_of(" \n", at), spec.size());
    std::string_view item = spec.substr(at, end - at);
    at = end;
    OptionSpec option;
    if (const auto mark = item.find('!', 1); mark != std::string_view::npos) {
      option.effect = effect_from_name(item.substr(mark + 1));
      item = item.substr(0, mark);
    }
    if (const auto equals = item.find('='); equals != std::string_view::npos) {
      option.role = static_cast<Role>(item[equals + 1]);
      item = item.substr(0, equals);
      if (item.ends_with('?')) {
        option.optional_value = true;
        item.remove_suffix(1);
      }
    }
    while (!item.empty()) {
      const auto comma = std::min(item.find(','), item.size());
      std::string_view name = item.substr(0, comma);
      item.remove_prefix(std::min(comma + 1, item.size()));
      if (starts_with(name, "--")) {
        name.remove_prefix(2);
      } else if (starts_with(name, "-")) {
        name.remove_prefix(1);
        if (name.size() > 1) {
          option.single_dash = true;
          has_single_ = true;
        }
      }
      option.names.emplace_back(name);
    }
    options_.push_back(std::move(option));
  }
}
const OptionSpec* Grammar::long_option(std::string_view name) const {
  const OptionSpec* found = nullptr;
  for (const auto& option : options_) {
    for (const auto& own : option.names) {
      if (own.size() < 2) continue;
      if (own == name) return &option;
      // An abbreviation; when it fits several, the one with consequences is the worse reading.
      if (name.size() >= 2 && starts_with(own, name) && (!found || option.effect || found->role == Role::none)) found = &option;
    }
  }
  return found;
}
const OptionSpec* Grammar::single(std::string_view name) const {
  for (const auto& option : options_)
    if (option.single_dash)
      for (const auto& own : option.names)
        if (own == name) return &option;
  return nullptr;
}
const OptionSpec* Grammar::letter(char letter) const {
  for (const auto& option : options_)
    for (const auto& own : option.names)
      if (own.size() == 1 && own[0] == letter) return &option;
  return nullptr;
}

bool Arguments::has(std::string_view name) const {
  return std::any_of(options.begin(), options.end(), [name](const Option& option) { return option.name == name; });
}
bool Arguments::any(std::initializer_list<std::string_view> names) const {
  return std::any_of(names.begin(), names.end(), [this](std::string_view name) { return has(name); });
}
const Word* Arguments::value(std::string_view name) const {
  for (auto it = options.rbegin(); it != options.rend(); ++it)
    if (it->name == name && it->has_value) return &it->value;
  return nullptr;
}

Arguments parse_arguments(const std::vector<Word>& words, std::size_t from, const Grammar& grammar, Order order) {
  Arguments out;
  bool ended = false;
  for (std::size_t i = from; i < words.size(); ++i) {
    const Word& word = words[i];
    const std::string_view text = word.text;
    if (ended || text.size() < 2 || text[0] != '-') {
      out.operands.push_back(word);
      if (!ended) out.after = out.operands.size();
      if (order == Order::posix) ended = true;
      continue;
    }
    if (text == "--") {
      ended = true;
      continue;
    }
    const auto take = [&](const OptionSpec* spec, const std::string& name, std::optional<std::size_t> value_at) {
      Arguments::Option option{.name = spec ? spec->names.front() : name, .spec = spec};
      if (value_at) {
        option.has_value = true;
        option.value = part_of(word, *value_at);
      } else if (spec && spec->role != Role::none && !spec->optional_value && i + 1 < words.size()) {
        option.has_value = true;
        option.value = words[++i];
      }
      out.options.push_back(std::move(option));
    };
    const auto equals = text.find('=');
    const auto value_at = equals == std::string_view::npos ? std::optional<std::size_t>{} : equals + 1;
    if (starts_with(text, "--")) {
      const auto name = text.substr(2, equals == std::string_view::npos ? std::string_view::npos : equals - 2);
      const OptionSpec* spec = grammar.long_option(name);
      take(spec, std::string(name), value_at);
      continue;
    }
    if (grammar.has_single()) {
      const auto name = text.substr(1, equals == std::string_view::npos ? std::string_view::npos : equals - 1);
      if (const OptionSpec* spec = grammar.single(name)) {
        take(spec, {}, value_at);
        continue;
      }
    }
    for (std::size_t at = 1; at < text.size(); ++at) {
      const OptionSpec* spec = grammar.letter(text[at]);
      if (spec && spec->role == Role::digits) {
        out.options.push_back({.name = spec->names.front(), .spec = spec});
        while (at + 1 < text.size() && text[at + 1] >= '0' && text[at + 1] <= '9') ++at;
        continue;
      }
      if (spec && spec->role != Role::none) {
        std::optional<std::size_t> rest;
        if (at + 1 < text.size()) rest = at + 1;
        take(spec, {}, rest);
        break;
      }
      if (!spec && (static_cast<unsigned char>(text[at]) >= 0x80 || text[at] == '=' || text[at] == '/')) {  // "-I/usr/include", "-x=…"
        Arguments::Option option{.name = "?", .has_value = true, .value = part_of(word, text[at] == '=' ? at + 1 : at)};
        out.options.push_back(std::move(option));
        break;
      }
      out.options.push_back({.name = spec ? spec->names.front() : std::string(1, text[at]), .spec = spec});
    }
  }
  return out;
}

void Flow::join(const Flow& other) {
  network |= other.network;
  decoded |= other.decoded;
  secret |= other.secret;
  local |= other.local;
  shell |= other.shell;
  any |= other.any;
  endless |= other.endless;
  if (text && other.text) {
    *text += *other.text;
  } else {
    text.reset();
  }
}

// ---- What a command does with an argument -------------------------------------------------------------------------------------------------------------------

std::string Context::path_of(const Word& word) const {
  if (has_glob(word.text)) ++run.patterns;
  if (++run.paths > most_paths || run.patterns > most_patterns)
    run.out.problem = "the call names more files than can be judged at once; split it";
  std::string path = canonical_path(word.text, where(), command.folder);
  // Links made by this very script.
  for (int hops = 0; hops < 8 && !run.links.empty(); ++hops) {
    bool changed = false;
    for (const auto& [from, to] : run.links) {
      if (path == from || (starts_with(path, from) && path[from.size()] == '/')) {
        path.replace(0, from.size(), to);
        changed = true;
        break;
      }
    }
    if (!changed) break;
  }
  return path;
}
bool Context::adrift() const { return starts_with(command.folder, "/?"); }

void Context::report(Effect effect, std::string reason, std::string target, bool certain) {
  auto& all = run.out.observations;
  if (all.size() >= most_observations) {
    run.out.problem = "the call does more than can be judged at once; split it";
    return;
  }
  for (const auto& seen : all)
    if (seen.effect == effect && seen.target == target && seen.program == program && seen.certain == certain) return;
  Observation observation{.effect = effect,
                          .certain = certain,
                          .target = std::move(target),
                          .program = program,
                          .excerpt = command.excerpt,
                          .reason = std::move(reason)};
  if (observation.excerpt.empty()) {
    for (const auto& word : words) observation.excerpt += (observation.excerpt.empty() ? "" : " ") + word.text;
    observation.excerpt = short_text(observation.excerpt, 190);
  }
  all.push_back(std::move(observation));
}

namespace {
std::string described(std::string_view path, const Site& site) {
  std::string out = short_text(path);
  if (!site.what.empty()) out += " (" + std::string(site.what) + ")";
  return out;
}
// Nothing but what may be anywhere.
bool wholly_unknown(std::string_view path) { return path == "/?" || path == "/?/" + std::string(unknown_part); }
bool is_dup(const Word& word) {
  return word.text == "-" || word.text.empty() || word.text[0] == '&' || all_of_set(word.text, "0123456789");
}
}  // namespace

void Context::read(const Word& word) {
  if (!run.out.problem.empty()) return;
  if (word.text.empty() || word.text == "-") return;
  if (looks_like_url(word.text) && !starts_with(lower_case(word.text), "file:")) return fetch(word);
  const std::string path = path_of(word);
  if (const auto known = run.files.find(path); known != run.files.end()) output.join(known->second);
  const Site site = site_of(path, where());
  if (is_dangerous(site.on_read)) {
    output.secret = output.secret || site.on_read == Effect::credential_access;
    report(site.on_read, "reads " + described(path, site), path, word.exact && !has_glob(path));
    return;
  }
  if (site.place == Place::harmless) {
    output.endless = output.endless || path == "/dev/zero" || path == "/dev/full" || path == "/dev/urandom" || path == "/dev/random";
    return report(Effect::compute, "reads a harmless device", path);
  }
  output.local = true;
  report(Effect::read, "reads " + short_text(path), path, word.exact);
}

void Context::read_tree(const Word& word) {
  const std::string path = path_of(word);
  const Site site = site_of_tree(path, where());
  if (is_dangerous(site.on_read)) {
    output.secret = true;
    return report(site.on_read, "reads everything in " + described(path, site), path, word.exact && !has_glob(path));
  }
  read(word);
}

void Context::write(const Word& word) {
  if (!run.out.problem.empty()) return;
  if (word.text.empty() || word.text == "-") return;
  const std::string path = path_of(word);
  if (const auto place = starts_with(path, "/dev/tcp/") ? 9 : starts_with(path, "/dev/udp/") ? 9 : 0; place != 0) {
    const std::string host = host_of(path.substr(static_cast<std::size_t>(place)));
    if (is_loopback(host) || is_trusted(host, where())) return report(Effect::send, "connects to " + host, host);
  }
  const Site site = site_of(path, where());
  if (is_protected(path, where()))
    return report(Effect::filesystem_destruction, "writes to " + short_text(path) + ", which is protected", path, word.exact);
  if (site.place == Place::harmless) return report(Effect::compute, "writes to a harmless device", path);
  if (is_dangerous(site.on_write)) {
    const bool plain_place = site.what.empty() || site.place == Place::home;
    if ((wholly_unknown(path) || starts_with(path, "/?/" + std::string(unknown_part)) ||
         (adrift() && word.text[0] != '/' && starts_with(path, "/?")) || begins_unknown(word)) &&
        plain_place)
      return report(Effect::write, "writes to a file that cannot be told", path, false);
    std::string reason = "writes to " + described(path, site);
    if (site.on_write == Effect::filesystem_destruction) reason += ", outside of the workspace; write inside the workspace or /tmp instead";
    return report(site.on_write, std::move(reason), path, word.exact && !has_glob(path));
  }
  report(Effect::write, "writes to " + short_text(path), path, word.exact);
}

void Context::create(const Word& word) {
  const std::string path = path_of(word);
  const Site site = site_of(path, where());
  if (site.place == Place::home || site.place == Place::elsewhere)
    return report(Effect::write, "creates " + short_text(path), path, word.exact);
  // The folder of SSH keys is made before keys come into it.
  if (site.place == Place::credentials && path.ends_with("/.ssh")) return report(Effect::write, "creates " + short_text(path), path);
  write(word);
}

void Context::remove(const Word& word, bool recursive) {
  if (!run.out.problem.empty()) return;
  if (word.text.empty()) return;
  const std::string path = path_of(word);
  const Surroundings& place = where();
  const std::string_view how = recursive ? " recursively" : "";
  if (is_protected(path, place))
    return report(Effect::filesystem_destruction, "deletes " + short_text(path) + ", which is protected", path, word.exact);
  const Site site = site_of(path, place);
  const bool sensitive = is_dangerous(site.on_remove) && !site.what.empty();
  if (!sensitive && (begins_unknown(word) || (starts_with(path, "/?") && adrift() && word.text[0] != '/'))) {
    const bool wide = word.text.find_first_not_of("*./") == std::string::npos;
    if (recursive || wide)
      return report(Effect::filesystem_destruction,
                    "deletes" + std::string(how) + " what cannot be told before it runs (it may be / or empty); name the folder", path,
                    false);
    return report(Effect::remove, "deletes a file that cannot be told", path, false);
  }
  if (is_dangerous(site.on_remove)) {
    std::string reason = "deletes " + described(path, site) + std::string(how);
    if (site.on_remove == Effect::filesystem_destruction) reason += "; only named files inside the workspace or /tmp may be deleted";
    return report(site.on_remove, std::move(reason), path, word.exact);
  }
  // Everything of a writable root: its own path, or a pattern without a letter directly below it.
  std::vector<std::string> roots = place.writable_roots;
  roots.push_back(place.working_folder.empty() ? "." : place.working_folder);
  roots.emplace_back("/tmp");
  for (const auto& root : roots) {
    bool wide = path == root;
    if (!wide && starts_with(path, root + "/")) {
      const std::string_view tail = std::string_view(path).substr(root.size() + 1);
      wide = all_of_set(tail, "*?./[]!^") || tail == "{*,.*}";
    }
    // A folder above.
    if (!wide && path != "/" && starts_with(root, path + "/") && !root.empty()) wide = true;
    if (wide)
      return report(Effect::filesystem_destruction, "deletes everything in " + short_text(root) + "; name the files or folders", path,
                    word.exact);
  }
  report(Effect::remove, "deletes " + short_text(path) + std::string(how), path, word.exact);
}

void Context::change_mode(const Word& word, bool recursive, std::string_view how) {
  const std::string path = path_of(word);
  const Site site = site_of(path, where());
  if (begins_unknown(word) && site.what.empty())
    return report(recursive ? Effect::privilege_escalation : Effect::write, std::string(how) + " of files that cannot be told", path,
                  false);
  if (site.place == Place::workspace || site.place == Place::temporary || site.place == Place::secret_like || site.place == Place::harmless)
    return report(Effect::write, std::string(how) + " of " + short_text(path), path, word.exact);
  if ((site.place == Place::home || site.place == Place::elsewhere) && !recursive)
    return report(Effect::write, std::string(how) + " of " + short_text(path), path, word.exact);
  report(Effect::privilege_escalation, std::string(how) + " of " + described(path, site) + (recursive ? " recursively" : ""), path,
         word.exact);
}

void Context::load_library(const Word& word) {
  if (word.text.empty()) return;
  const std::string path = path_of(word);
  const Site site = site_of(path, where());
  if (const auto known = run.files.find(path); known != run.files.end() && (known->second.network || known->second.decoded))
    return report(Effect::remote_code, "loads " + short_text(path) + ", which was fetched or decoded just before", path);
  if (word.exact && (site.place == Place::system || word.text.find('/') == std::string::npos))
    return report(Effect::execute, "loads " + short_text(path), path);
  report(Effect::remote_code, "loads " + short_text(path) + " as code into a program", path, word.exact);
}

void Context::fetch(const Word& url) {
  if (starts_with(lower_case(url.text), "file:")) return read(url);
  if (starts_with(lower_case(url.text), "ext::")) return shell(part_of(url, 5), "a git transport");
  const std::string host = host_of(url.text);
  output.network = true;
  if (is_metadata_host(host)) {
    output.secret = true;
    return report(Effect::credential_access, "asks the cloud's metadata service, which hands out credentials", host, url.exact);
  }
  if (!url.exact) send_word(url, host, "in the address");
  report(Effect::fetch, "fetches from " + (host.empty() ? std::string("a host") : short_text(host)), host, url.exact);
}

void Context::send_flow(const Flow& flow, std::string_view host, std::string_view how) {
  const std::string to = host.empty() ? "a host that cannot be told" : short_text(host);
  if (is_loopback(host) || (is_trusted(host, where()) && !flow.secret)) return report(Effect::send, "sends to " + to, std::string(host));
  if (flow.secret || flow.local || flow.any || flow.shell)
    return report(Effect::exfiltration,
                  "sends " +
                      std::string(flow.secret  ? "credentials"
                                  : flow.local ? "local data"
                                               : "the output of a program") +
                      " to " + to + " " + std::string(how),
                  std::string(host), flow.secret || flow.local);
  report(Effect::send, "sends to " + to, std::string(host));
}

void Context::send_file(const Word& word, std::string_view host) {
  const std::string path = path_of(word);
  if (word.text == "-" || path == "/dev/stdin" || path == "/dev/fd/0" || path == "/proc/self/fd/0")
    return send_flow(input, host, "from its input");
  const Site site = site_of(path, where());
  if (is_dangerous(site.on_read)) read(word);
  if (is_loopback(host) || (is_trusted(host, where()) && !is_dangerous(site.on_read) && site.place != Place::secret_like))
    return report(Effect::send, "sends " + short_text(path) + " to " + short_text(host), std::string(host));
  report(Effect::exfiltration, "sends " + described(path, site) + " to " + (host.empty() ? std::string("another host") : short_text(host)),
         std::string(host), word.exact);
}

Flow Context::substituted() const {
  if (substituted_) return *substituted_;
  Flow all;
  all.text = "";
  const auto& commands = run.script.commands;
  std::size_t first = index;
  while (first > 0 && commands[first - 1].depth > command.depth) --first;
  // Only the end of a pipeline reaches the word.
  std::vector<bool> feeds(index - first, false);
  for (std::size_t i = first; i < index; ++i)
    if (commands[i].pipe_from >= static_cast<int>(first)) feeds[static_cast<std::size_t>(commands[i].pipe_from) - first] = true;
  for (std::size_t i = index; i > first; --i)
    if (commands[i - 1].depth == command.depth + 1 && i - 1 < run.flows.size() && !feeds[i - 1 - first]) all.join(run.flows[i - 1]);
  substituted_ = all;
  return all;
}

Flow Context::flow_of(const Word& word) const {
  Flow flow;
  if (word.exact) {
    flow.text = word.text;
    return flow;
  }
  if (word.substitution) flow.join(substituted());
  for (const auto& name : variables_in(command.excerpt)) {
    if (const auto known = run.variables.find(name); known != run.variables.end()) flow.join(known->second);
    if (names_secret(name)) flow.secret = true;
  }
  return flow;
}

void Context::send_word(const Word& word, std::string_view host, std::string_view how) {
  if (word.exact) return report(Effect::send, "sends to " + short_text(host), std::string(host));
  Flow flow = flow_of(word);
  flow.any = flow.shell = false;  // an address made by a program is not yet data
  if (!flow.secret && !flow.local) return report(Effect::send, "sends to " + short_text(host), std::string(host), false);
  send_flow(flow, host, how);
}

// ---- Texts and commands within commands ------------------------------------------------------------------------------------------------------------------------

void assess_into(Run& outer, std::string_view text, bool certain, std::string_view how, std::string_view folder) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
  if (outer.depth >= deepest_assessment) {
    outer.out.observations.push_back(
        {.effect = Effect::unknown, .certain = false, .program = std::string(how), .reason = "commands nested too deeply to be judged"});
    return;
  }
  Action inner = outer.action;
  if (!folder.empty() && folder != inner.where.working_folder) {
    // The parser takes the working folder as its start; what may be written stays what it was.
    if (!inner.where.working_folder.empty()) inner.where.writable_roots.push_back(inner.where.working_folder);
    inner.where.working_folder = starts_with(folder, "/?") || starts_with(folder, ".") ? std::string{} : std::string(folder);
    // Being somewhere does not make it writable.
    if (!is_writable(folder, outer.action.where) && !inner.where.working_folder.empty())
      inner.where.protected_paths.push_back(inner.where.working_folder + "/**");
  }
  auto script = parse_shell(text, inner);
  if (!script) {
    outer.out.observations.push_back({.effect = Effect::unknown,
                                      .certain = false,
                                      .program = std::string(how),
                                      .excerpt = short_text(text, 190),
                                      .reason = "runs a command line that no shell would parse: " + script.error().message});
    return;
  }
  Assessment inside;
  Run run{.script = *script, .action = inner, .out = inside, .depth = outer.depth + 1};
  run.files = outer.files;
  run.programs = outer.programs;
  run.links = outer.links;
  run.variables = outer.variables;
  run.paths = outer.paths;
  run.patterns = outer.patterns;
  assess_run(run);
  for (auto& observation : inside.observations) {
    observation.certain = observation.certain && certain;
    outer.out.observations.push_back(std::move(observation));
  }
  outer.paths = run.paths;
  outer.patterns = run.patterns;
  if (!inside.problem.empty()) outer.out.problem = std::move(inside.problem);
}

void Context::shell(const Word& text, std::string_view how) {
  if (!text.exact) {
    const Flow flow = flow_of(text);
    if (flow.network || flow.decoded)
      return report(Effect::remote_code, "runs what was fetched or decoded, by " + std::string(how), {}, true);
    // What is known of it is judged; what is not may be anything where a command begins with it.
    std::string known = text.text;
    const auto first = known.find_first_not_of(" \t");
    if (first == std::string::npos || starts_with(std::string_view(known).substr(first), unknown_part))
      return report(Effect::unknown, "runs a command line that cannot be told before it runs, by " + std::string(how), {}, false);
    std::string replaced;
    for (std::size_t i = 0; i < known.size();) {
      if (starts_with(std::string_view(known).substr(i), unknown_part)) {
        replaced += "\"$unknown\"";
        i += unknown_part.size();
      } else {
        replaced += known[i++];
      }
    }
    return assess_into(run, replaced, false, how, command.folder);
  }
  assess_into(run, text.text, true, how, command.folder);
}

void Context::code(std::string_view language, const Word& text, std::string_view how) {
  if (language == "sh") return shell(text, how);
  if (!text.exact) {
    const Flow flow = flow_of(text);
    if (flow.network || flow.decoded) return report(Effect::remote_code, "runs what was fetched or decoded, by " + std::string(how));
    if (begins_unknown(text) && text.text.size() <= 8)
      return report(Effect::unknown, "runs program text that cannot be told before it runs, by " + std::string(how), {}, false);
  }
  assess_code_into(run, language, text.text, command.folder, program);
}

void Context::sql(const Word& text) {
  if (begins_unknown(text)) {
    const Flow flow = flow_of(text);
    if (flow.network || flow.decoded) return report(Effect::remote_code, "runs SQL that was fetched or decoded");
    return report(Effect::unknown, "runs SQL that cannot be told before it runs", {}, false);
  }
  assess_code_into(run, "sql", text.text, command.folder, program);
}

namespace {
void assess_words(Context& context);

// A command that may have ended up in a list of arguments.
bool starts_command(std::string_view word) {
  static const std::unordered_set<std::string> wrapped{
      "rm",        "rmdir",    "unlink",  "shred",   "dd",    "wipefs", "fdisk",   "parted",   "curl",   "wget",   "nc",       "ncat",
      "socat",     "ssh",      "scp",     "chmod",   "chown", "chgrp",  "find",    "tar",      "git",    "docker", "podman",   "kubectl",
      "systemctl", "iptables", "crontab", "cp",      "mv",    "tee",    "ln",      "cat",      "head",   "tail",   "base64",   "xxd",
      "openssl",   "psql",     "mysql",   "eval",    "exec",  "env",    "busybox", "truncate", "mkfs",   "insmod", "modprobe", "xargs",
      "sed",       "awk",      "pkill",   "killall", "rsync", "gcore",  "chroot",  "nsenter",  "setcap", "chattr"};
  const std::string name = program_name(word);
  return wrapped.contains(name) || starts_with(name, "mkfs.") ||
         (is_shell(name) && name != "rc" && name != "es" && name != "nu" && name != "posh");
}
}  // namespace

void Context::command_words(std::vector<Word> inner, std::string_view how) {
  if (inner.empty()) return;
  if (run.depth >= deepest_assessment) return report(Effect::unknown, "commands nested too deeply to be judged", {}, false);
  (void)how;
  ++run.depth;
  Command copy = command;
  copy.words = std::move(inner);
  copy.redirects.clear();
  copy.assignments.clear();
  copy.wrappers.clear();
  while (!copy.words.empty() && copy.words.front().text.find('=') != std::string::npos && copy.words.front().text.find('=') > 0 &&
         copy.words.front().text[0] != '-' && copy.words.front().text.find('/') > copy.words.front().text.find('=')) {
    const auto& text = copy.words.front().text;
    copy.assignments.push_back(
        {.name = text.substr(0, text.find('=')), .value = part_of(copy.words.front(), text.find('=') + 1), .exported = true});
    copy.words.erase(copy.words.begin());
  }
  if (!copy.words.empty()) {
    Context nested(run, index, copy, program_name(copy.words.front().text), copy.words);
    nested.input = input;
    for (const auto& assignment : copy.assignments) assess_assignment(nested, assignment);
    assess_words(nested);
    output.join(nested.output);
  }
  --run.depth;
}

void Context::run_file(const Word& word, std::string_view language) {
  const std::string path = path_of(word);
  const Site site = site_of(path, where());
  if (looks_like_url(word.text)) {
    fetch(word);
    return report(Effect::remote_code, "runs what it fetches from " + host_of(word.text), host_of(word.text));
  }
  if (starts_with(path, "/dev/fd/") || path == "/dev/stdin" || starts_with(path, "/proc/self/fd/")) {
    const Flow flow = word.substitution ? substituted() : input;
    if (flow.network || flow.decoded) return report(Effect::remote_code, "runs what was fetched or decoded");
  }
  if (word.substitution && !word.exact) {  // <(…), "$(…)"
    const Flow flow = substituted();
    if (flow.network || flow.decoded) return report(Effect::remote_code, "runs what was fetched or decoded");
    if (flow.text && !flow.text->empty() && !language.empty() && !flow.local)
      return code(language, plain(*flow.text), "a substituted file");
  }
  for (const auto& [file, flow] : run.files) {
    const bool same = file == path || (starts_with(path, file) && path[file.size()] == '/');
    if (same && (flow.network || flow.decoded))
      return report(Effect::remote_code, "runs " + short_text(path) + ", which was fetched or decoded just before", path);
  }
  const std::string* text = nullptr;
  if (const auto here = run.script.written.find(path); here != run.script.written.end()) {
    text = &here->second;
  } else if (const auto earlier = run.action.written_files.find(path); earlier != run.action.written_files.end()) {
    text = &earlier->second;
  }
  if (text) {
    std::string spoken(language);
    if (starts_with(*text, "#!")) {
      const auto line = text->substr(2, text->find('\n') - 2);
      std::string name = program_name(line.substr(0, line.find_first_of(" \t", line.find_first_not_of(" \t"))));
      const auto first = name.find_first_not_of(" \t");
      if (first != std::string::npos) name = name.substr(first);
      if (name == "env") {
        const auto space = line.find_last_of(" \t");
        if (space != std::string::npos) name = program_name(line.substr(space + 1));
      }
      if (spoken.empty()) spoken = std::string(language_of(name));
    }
    if (spoken.empty()) {
      if (path.ends_with(".py")) spoken = "python";
      else if (path.ends_with(".pl")) spoken = "perl";
      else if (path.ends_with(".rb")) spoken = "ruby";
      else if (path.ends_with(".js") || path.ends_with(".mjs") || path.ends_with(".cjs") || path.ends_with(".ts")) spoken = "node";
      else if (path.ends_with(".php")) spoken = "php";
      else if (path.ends_with(".lua")) spoken = "lua";
      else spoken = "sh";
    }
    report(Effect::execute, "runs " + short_text(path), path);
    if (run.depth >= deepest_assessment) return report(Effect::unknown, "scripts nested too deeply to be judged", path, false);
    if (spoken == "sh") {
      assess_into(run, *text, true, path, command.folder);
    } else {
      ++run.depth;
      assess_code_into(run, spoken, *text, command.folder, program);
      --run.depth;
    }
    return;
  }
  if (site.place == Place::credentials || site.place == Place::device) return read(word);
  report(Effect::execute, "runs " + short_text(path), path, word.exact);
}

void Context::scan(const Word& word) {
  if (!run.out.problem.empty()) return;
  if (word.text.size() < 2) return;
  std::string_view text = word.text;
  if (looks_like_url(text)) {
    if (starts_with(lower_case(text), "file:")) return read(word);
    const std::string host = host_of(text);
    if (is_metadata_host(host)) return fetch(word);
    if (!word.exact) send_word(word, host, "in an address");
    return;
  }
  // "if=/etc/shadow", "@/etc/shadow", "--file=/etc/shadow"
  if (const auto equals = text.find('='); equals != std::string_view::npos && equals + 1 < text.size()) text.remove_prefix(equals + 1);
  while (text.size() > 1 && (text[0] == '@' || text[0] == '<')) text.remove_prefix(1);
  if (text.find('/') == std::string_view::npos && text[0] != '~' && text[0] != '.' && text.find("id_") == std::string_view::npos &&
      !command.folder.empty() && site_of(command.folder, where()).place == Place::workspace)
    return;
  if (text.find_first_of(" \t\n") != std::string_view::npos && text.find_first_of("(){};") != std::string_view::npos)
    return;  // prose or code
  Word part = word;
  part.text = std::string(text);
  const std::string path = path_of(part);
  const Site site = site_of(path, where());
  if (site.place == Place::credentials && is_dangerous(site.on_read)) {
    output.secret = true;
    return report(site.on_read, "uses " + described(path, site), path, word.exact && !has_glob(path));
  }
  if (site.on_read == Effect::container_escape) return report(site.on_read, "uses " + described(path, site), path, word.exact);
  // Other places of several paths in one word: "-v/etc/shadow:/x", "a,b".
  if (text.find(':') != std::string_view::npos && text.find('/') != std::string_view::npos) {
    std::size_t at = 0;
    while (at <= text.size()) {
      const auto end = std::min(text.find(':', at), text.size());
      const auto piece = text.substr(at, end - at);
      if (!piece.empty() && (piece[0] == '/' || piece[0] == '~')) {
        const std::string one = canonical_path(piece, where(), command.folder);
        const Site found = site_of(one, where());
        if (found.place == Place::credentials && is_dangerous(found.on_read))
          report(found.on_read, "uses " + described(one, found), one, word.exact);
      }
      at = end + 1;
    }
  }
}

void Context::apply(Role role, const Word& word) {
  switch (role) {
    case Role::none:
    case Role::digits:
    case Role::ignored: return;
    case Role::scan: return scan(word);
    case Role::read: return read(word);
    case Role::tree: return read_tree(word);
    case Role::write:
    case Role::append: return write(word);
    case Role::create:
    case Role::folder:
      // What comes out may be a start-up file.
      if (const std::string path = path_of(word); path == where().home || path == "/root")
        return report(Effect::filesystem_destruction, "writes into a whole home folder", path, word.exact);
      return create(word);
    case Role::remove: return remove(word, false);
    case Role::shell: return shell(word, program);
    case Role::program: return command_words({word}, program);
    case Role::url: return fetch(word);
    case Role::sent: return send_file(word, {});
    case Role::library: return load_library(word);
    case Role::host: return;
    case Role::sql: return sql(word);
    case Role::script: return read(word);
  }
}

void Context::apply_options(const Arguments& arguments) {
  for (const auto& option : arguments.options) {
    if (option.spec && option.spec->effect)
      report(*option.spec->effect,
             program + (option.name.size() > 1 ? " --" : " -") + option.name +
                 (option.has_value ? " " + short_text(option.value.text) : std::string{}),
             option.value.text);
    if (!option.has_value) continue;
    apply(option.spec ? option.spec->role : Role::scan, option.value);
  }
}

void Context::fetched_into(const Word& word) {
  if (word.text == "-" || word.text == "/dev/stdout") return;
  write(word);
  run.files[path_of(word)].network = true;
}

std::optional<std::vector<Word>> Context::items_of(const Run& run, int command_index) {
  const auto printed = [&run](const auto& self, int index, int hops) -> std::optional<PrintedNames> {
    if (index < 0 || hops > 16 || static_cast<std::size_t>(index) >= run.script.commands.size()) return {};
    const Command& source = run.script.commands[static_cast<std::size_t>(index)];
    if (source.appends_arguments) return {};  // what it prints depends on what it is given
    if (source.pipe_from >= 0) {
      const auto input = self(self, source.pipe_from, hops + 1);
      if (auto passed = input ? names_passed(source.words, *input) : std::nullopt) return passed;
    }
    return names_printed(source.words);
  };
  const auto names = printed(printed, command_index, 0);
  if (!names || names->lines != PrintedNames::Lines::names) return {};
  return names->words();
}

// ---- A script ----------------------------------------------------------------------------------------------------------------------------------------------------

void starts_shell(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const std::string& text = c.words[i].text;
    for (auto at = text.find("/bin/"); at != std::string::npos; at = text.find("/bin/", at + 5)) {
      const std::string name = text.substr(at + 5, text.find_first_not_of("abcdefghijklmnopqrstuvwxyz", at + 5) - at - 5);
      std::size_t begin = at;
      while (begin > 0 && std::string_view("/usrlocal").find(text[begin - 1]) != std::string_view::npos) --begin;
      const bool interprets = begin > 0 && text[begin - 1] == '!';  // "#!/bin/sh"
      if (is_shell(name) && !interprets)
        return c.report(Effect::privilege_escalation, "opens a shell out of " + c.program + ", past what is judged", text, false);
    }
    if (text.find("system(") != std::string::npos && c.run.depth + 1 < deepest_assessment) {
      const std::size_t before = c.run.out.observations.size();
      c.code("python", c.words[i], c.program);
      auto& all = c.run.out.observations;
      all.erase(std::remove_if(all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size())), all.end(),
                               [](const Observation& o) { return !is_dangerous(o.effect); }),
                all.end());
    }
  }
}

namespace {

// Words that a shell itself understands and that do nothing by themselves.
bool is_quiet_builtin(std::string_view name) {
  static const std::unordered_set<std::string_view> quiet{
      ":",        "true",    "false",     "test",    "[",      "[[",     "((",       "cd",      "pushd",  "popd",    "dirs",    "local",
      "read",     "mapfile", "readarray", "shift",   "return", "break",  "continue", "exit",    "logout", "let",     "getopts", "hash",
      "umask",    "wait",    "jobs",      "fg",      "bg",     "disown", "times",    "type",    "caller", "suspend", "shopt",   "setopt",
      "unsetopt", "compgen", "complete",  "compopt", "bind",   "sleep",  "basename", "dirname", "seq",    "expr",    "bc",      "dc",
      "factor",   "nproc",   "tput",      "clear",   "reset",  "cal",    "yes_",     "arch",    "tty",    "stty",    "usleep",  "autoload",
      "zmodload", "emulate", "then",      "else",    "fi",     "do",     "done"};
  return quiet.contains(name);
}

void unknown_program(Context& c) {
  c.output.any = true;
  if (c.words.front().text.find('/') != std::string::npos) {
    c.run_file(c.words.front(), {});
  } else {
    c.report(Effect::execute, "runs " + short_text(c.program), c.program);
  }
  // What programs nobody knows call their gravest commands.
  std::size_t operands = 0;
  for (std::size_t i = 1; i < c.words.size() && operands < 2; ++i) {
    const std::string verb = lower_case(c.words[i].text);
    if (verb.empty() || verb[0] == '-') continue;
    ++operands;
    if (verb == "destroy" || verb == "nuke" || verb == "wipe" || verb == "erase" || verb == "factory-reset" || verb == "purge-all" ||
        verb.ends_with(":destroy") || verb == "delete-all" || verb == "destroy-all")
      c.report(Effect::filesystem_destruction, c.program + " " + verb + " may delete more than can be told", {}, false);
    else if ((verb == "upload" || verb == "upload-file" || verb == "share") && i + 1 < c.words.size())
      c.report(Effect::exfiltration, c.program + " " + verb + " may send files to another machine", {}, false);
  }
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const Word& word = c.words[i];
    if (word.exact && starts_command(word.text) && !starts_with(word.text, "-") && i + 1 < c.words.size()) {
      // "tool init bash": a shell's name without a command is only its name.
      if (is_shell(program_name(word.text)) && c.words[i + 1].text != "-c" && c.words[i + 1].text != "-i") continue;
      // Perhaps a wrapper: what it might start is judged for its dangers alone.
      const std::size_t before = c.run.out.observations.size();
      c.command_words({c.words.begin() + static_cast<std::ptrdiff_t>(i), c.words.end()}, c.program);
      auto& all = c.run.out.observations;
      all.erase(std::remove_if(all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size())), all.end(),
                               [](const Observation& o) { return !is_dangerous(o.effect) || !o.certain; }),
                all.end());
      break;
    }
  }
  // "-c 'text'" of a wrapper that nobody knows.
  for (std::size_t i = 1; i + 1 < c.words.size(); ++i) {
    const auto& option = c.words[i].text;
    if ((option == "-c" || option == "--command" || option == "-e" || option == "--exec" || option == "--eval") && c.words[i + 1].exact &&
        c.words[i + 1].text.find(' ') != std::string::npos) {
      Assessment aside;
      Run tried{.script = c.run.script, .action = c.run.action, .out = aside, .depth = c.run.depth + 1};
      assess_into(tried, c.words[i + 1].text, true, c.program, c.command.folder);
      for (auto& observation : aside.observations)
        if (is_dangerous(observation.effect) && observation.certain) c.run.out.observations.push_back(std::move(observation));
    }
  }
  starts_shell(c);
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    c.scan(c.words[i]);
    const std::string& option = c.words[i].text;
    const bool output = option == "-o" || option == "-w" || option == "--output" || option == "--out" || option == "--outfile" ||
                        option == "--output-file" || option == "--write" || option == "--log-file";
    const Word target = output && i + 1 < c.words.size()   ? c.words[i + 1]
                        : starts_with(option, "--output=") ? part_of(c.words[i], 9)
                                                           : Word{};
    if (target.text.empty()) continue;
    const Site site = site_of(c.path_of(target), c.where());
    if (is_dangerous(site.on_write) && site.place != Place::home && site.place != Place::elsewhere) c.write(target);
  }
}

// Frameworks bring commands of their own that drop and make the database anew.
void resets_database(Context& c) {
  bool migrate = false, database = false, manage = false;
  for (const auto& word : c.words) {
    const std::string& text = word.text;
    for (const std::string_view task :
         {"db:drop", "db:reset", "db:purge", "db:wipe", "db:fresh", "migrate:fresh", "migrate:reset", "migrate:refresh", "db:migrate:reset",
          "db:schema:load", "schema:drop", "database:drop", "db:drop:all", "db:setup:fresh"})
      if (text == task || (starts_with(text, task) && text[task.size()] == ':'))
        return c.report(Effect::database_destruction, text + " drops the database or its tables", text);
    if (text.ends_with("manage.py") || text == "django-admin") manage = true;
    if (manage && (text == "flush" || text == "reset_db" || text == "sqlflush"))
      return c.report(Effect::database_destruction, text + " empties the database");
    if (text == "migrate") migrate = true;
    if (text == "database" || text == "db") database = true;
    if ((migrate && text == "reset") || (database && text == "drop") || text == "--force-reset")
      return c.report(Effect::database_destruction, "drops the database or its tables");
  }
}

void assess_words(Context& c) {
  const Word& first = c.words.front();
  // A program that cannot be told.
  if (!first.exact || (first.glob && has_glob(first.text) && first.text != "[" && first.text != "[[")) {
    const Flow flow = c.flow_of(first);
    if (flow.network || flow.decoded) {
      c.report(Effect::remote_code, "runs what was fetched or decoded");
      return;
    }
    if (c.program.find(unknown_part) != std::string::npos || c.program.empty() || has_glob(c.program)) {
      c.report(Effect::unknown, "which program runs cannot be told before it runs; name the program", {}, false);
      for (std::size_t i = 1; i < c.words.size(); ++i) c.scan(c.words[i]);
      // Were it a program that deletes or writes, its arguments would tell what it can reach; as a reader, too.
      return;
    }
  }
  const std::string path = first.text.find('/') != std::string::npos ? c.path_of(first) : std::string{};
  // A link of this script to a program is that program.
  if (const std::string target = path.substr(path.rfind('/') + 1);
      !target.empty() && target != first.text.substr(first.text.rfind('/') + 1) && find_handler(target)) {
    c.program = target;
  }
  if (!path.empty()) {
    if (const auto copied = c.run.programs.find(path); copied != c.run.programs.end()) {
      c.program = copied->second;
    } else if (const auto known = c.run.files.find(path);
               (known != c.run.files.end() && (known->second.network || known->second.decoded)) || c.run.script.written.contains(path) ||
               c.run.action.written_files.contains(path)) {
      c.run_file(first, {});
      for (std::size_t i = 1; i < c.words.size(); ++i) c.scan(c.words[i]);
      return;
    } else if (const Site site = site_of(path, c.where()); site.place == Place::workspace || site.place == Place::temporary) {
      // A file of the workspace may be called like a program and be anything; its name is taken at its word all the same.
      if (!find_handler(c.program)) return unknown_program(c);
      c.report(Effect::execute, "runs " + short_text(path), path);
    }
  }
  if (is_quiet_builtin(c.program)) {
    if (c.program == "[" || c.program == "test" || c.program == "[[") {
      c.report(Effect::list, "tests a condition");
    } else {
      c.report(Effect::compute, "changes nothing");
    }
    return;
  }
  resets_database(c);
  if (const Handler handler = find_handler(c.program)) return handler(c);
  if (apply_table(c)) return;
  // Look-alikes of well-known names: RM on a file system without case, digits for letters.
  const std::string low = lower_case(c.program);
  if (low != c.program) {
    if (const Handler handler = find_handler(low)) {
      c.program = low;
      return handler(c);
    }
    if (std::string kept = std::exchange(c.program, low); !apply_table(c)) {
      c.program = std::move(kept);
    } else {
      return;
    }
  }
  unknown_program(c);
}

void assess_wrappers(Context& c) {
  for (const auto& wrapper : c.command.wrappers) {
    const std::string name = program_name(wrapper.substr(0, wrapper.find(' ')));
    if (name == "sudo" || name == "doas" || name == "pkexec" || name == "su" || name == "runuser" || name == "gosu" || name == "su-exec" ||
        name == "setpriv" || name == "sudoedit" || name == "run0" || name == "dzdo" || name == "sg" || name == "newgrp" ||
        name == "machinectl") {
      c.report(Effect::privilege_escalation,
               "runs " + short_text(c.program) + " as another user by " + name + "; run it as yourself, or ask for approval", c.program);
    } else if (wrapper == "endless loop") {
      if (c.command.background)
        c.report(Effect::tampering, "starts " + short_text(c.program) + " without end, in the background", c.program);
    } else if (name == "nsenter") {
      c.report(Effect::container_escape, "enters the namespaces of another process", c.program);
    } else if (name == "chroot") {
      c.report(Effect::privilege_escalation, "changes the root folder", c.program);
    } else if (name == "at" || name == "batch" || name == "systemd-run" || name == "crontab") {
      c.report(Effect::persistence, "runs later, by " + name, c.program);
    } else if (name == "strace" || name == "ltrace" || name == "gdb" || name == "valgrind") {
      c.report(Effect::execute, "runs under " + name, c.program);
    }
  }
}

void assess_redirects(Context& c) {
  for (const auto& redirect : c.command.redirects) {
    if (redirect.kind == Redirect::Kind::here) continue;
    if (is_dup(redirect.target)) continue;
    const std::string path = c.path_of(redirect.target);
    const bool network = starts_with(path, "/dev/tcp/") || starts_with(path, "/dev/udp/");
    if (network && (is_shell(c.program) || !language_of(c.program).empty())) {
      c.report(Effect::remote_code, "connects a shell to " + host_of(path.substr(9)) + " (a reverse shell)", host_of(path.substr(9)));
      continue;
    }
    if (redirect.kind == Redirect::Kind::read) {
      if (network) c.output.network = true;
      c.read(redirect.target);
      continue;
    }
    if (c.program == "echo" || c.program == "printf" || c.program == "cat") c.run.files[path] = c.output;
    else c.run.files[path].join(c.output);
    c.write(redirect.target);
    if (c.output.endless && site_of(path, c.where()).place != Place::harmless) c.report(Effect::tampering, "fills the disk", path);
    if (redirect.kind == Redirect::Kind::write && c.words.empty()) {
      // "> file" alone empties it.
      continue;
    }
  }
}

bool runs_elsewhere(const std::string& wrapper) {
  const std::string_view name = std::string_view(wrapper).substr(0, wrapper.find(' '));
  return name == "docker" || name == "podman" || name == "nerdctl" || name == "kubectl" || name == "oc" || name == "docker-compose" ||
         name == "ssh" || name == "mosh" || name == "autossh";
}

// "$(pwd)" is the folder the command runs in.
const std::vector<Word>* with_folder(const Run& run, std::size_t index, const Command& command, std::vector<Word>& changed) {
  if (index == 0 || std::none_of(command.words.begin(), command.words.end(), [](const Word& w) { return w.substitution && !w.exact; }))
    return &command.words;
  const Command& before = run.script.commands[index - 1];
  if (before.depth != command.depth + 1 || before.pipe_from >= 0 || before.words.empty()) return &command.words;
  const bool asks = before.words.size() == 1 ? before.words[0].text == "pwd"
                                             : before.words.size() == 3 && before.words[0].text == "git" &&
                                                   before.words[1].text == "rev-parse" && before.words[2].text == "--show-toplevel";
  if (!asks || (index >= 2 && run.script.commands[index - 2].depth > command.depth)) return &command.words;
  const std::string folder = command.folder.empty() ? run.action.where.working_folder : command.folder;
  if (folder.empty() || starts_with(folder, "/?")) return &command.words;
  changed = command.words;
  for (auto& word : changed) {
    const auto at = word.text.find(unknown_part);
    if (!word.substitution || at == std::string::npos) continue;
    word.text.replace(at, unknown_part.size(), folder);
    word.exact = word.text.find(unknown_part) == std::string::npos;
  }
  return &changed;
}

bool same_single_word(const Command& a, const Command& b) {
  return a.words.size() == 1 && b.words.size() == 1 && a.words[0].text == b.words[0].text;
}

}  // namespace

void assess_run(Run& run) {
  const auto& commands = run.script.commands;
  run.flows.resize(commands.size());
  static const std::vector<Word> no_words;
  for (std::size_t i = 0; i < commands.size() && run.out.problem.empty(); ++i) {
    const Command& command = commands[i];
    std::vector<Word> placed_folder;
    const std::vector<Word>* words = with_folder(run, i, command, placed_folder);
    std::vector<Word> extended;
    // What runs in a container or on another machine was judged with the command that starts it there.
    if (std::any_of(command.wrappers.begin(), command.wrappers.end(), runs_elsewhere)) continue;
    // xargs: what came through the pipe becomes arguments.
    const bool by_find = std::any_of(command.wrappers.begin(), command.wrappers.end(),
                                     [](const std::string& w) { return starts_with(w, "find") || starts_with(w, "fd"); });
    std::optional<std::vector<Word>> items;
    if (command.appends_arguments && !by_find && command.pipe_from >= 0) items = Context::items_of(run, command.pipe_from);
    if (command.appends_arguments && !by_find) {
      extended = *words;
      if (!items) items = std::vector<Word>{{.text = std::string(unknown_part), .exact = false}};
      bool placed = false;
      for (std::size_t w = 1; w < extended.size(); ++w) {
        const auto at = extended[w].text.find("{}");
        if (at == std::string::npos) continue;
        placed = true;
        if (items->size() == 1 || extended[w].text == "{}") {
          Word replaced = items->front();
          replaced.text = extended[w].text.substr(0, at) + replaced.text + extended[w].text.substr(at + 2);
          extended[w] = replaced;
        }
      }
      if (!placed) extended.insert(extended.end(), items->begin(), items->end());
      words = &extended;
    }
    const std::string name = words->empty() ? std::string{} : program_name(words->front().text);
    Context c(run, i, command, name, words->empty() ? no_words : *words);
    if (command.pipe_from >= 0 && static_cast<std::size_t>(command.pipe_from) < i) {
      c.input = run.flows[static_cast<std::size_t>(command.pipe_from)];
      const Command& source = commands[static_cast<std::size_t>(command.pipe_from)];
      const bool again = std::find(command.wrappers.begin(), command.wrappers.end(), "recursion") != command.wrappers.end();
      if (same_single_word(command, source) && (command.background || source.background || again) && !find_handler(name))
        c.report(Effect::tampering, "a function that starts itself twice fills the process table (a fork bomb)", name);
    }
    for (const auto& redirect : command.redirects) {
      if (redirect.kind == Redirect::Kind::here) {
        Flow body;
        if (redirect.body_exact) body.text = redirect.body;
        else if (command.excerpt.find("$(") != std::string::npos || command.excerpt.find('`') != std::string::npos)
          body.join(c.substituted());
        c.input = body;
      } else if (redirect.kind == Redirect::Kind::read && redirect.descriptor <= 0) {
        const std::string path = c.path_of(redirect.target);
        Flow from;
        if (const auto known = run.files.find(path); known != run.files.end()) from = known->second;
        else from.local = !starts_with(path, "/dev/");
        if (starts_with(path, "/dev/tcp/")) from.network = true;
        if (redirect.target.substitution) from.join(c.substituted());
        const Site site = site_of(path, c.where());
        from.secret = from.secret || site.on_read == Effect::credential_access;
        if (const auto text = run.script.written.find(path); text != run.script.written.end()) from.text = text->second;
        else if (const auto before = run.action.written_files.find(path); before != run.action.written_files.end())
          from.text = before->second;
        c.input = from;
      }
    }
    for (const auto& assignment : command.assignments) {
      if (!assignment.value.exact) {
        Flow flow = c.flow_of(assignment.value);
        flow.text.reset();
        run.variables[assignment.name] = flow;
      }
      assess_assignment(c, assignment);
    }
    assess_wrappers(c);
    // A shell that the parser looked into, because it knew what was decoded for it.
    if (c.input.decoded && std::any_of(command.wrappers.begin(), command.wrappers.end(),
                                       [](const std::string& w) { return is_shell(program_name(w.substr(0, w.find(' ')))); }))
      c.report(Effect::remote_code, "runs what was decoded at run time; write the command in clear");
    if (command.appends_arguments && (c.input.network || c.input.decoded) && !by_find && !language_of(c.program).empty() &&
        c.program != "awk")
      c.report(Effect::remote_code, "runs what was fetched or decoded");
    if (!c.words.empty()) assess_words(c);
    assess_redirects(c);
    if (c.words.empty() && command.redirects.empty() && !command.assignments.empty()) c.report(Effect::compute, "sets variables");
    run.flows[i] = c.output;
    // The output of a command line goes nowhere when it is redirected.
  }
  if (run.script.truncated)
    run.out.observations.push_back(
        {.effect = Effect::unknown, .certain = false, .reason = "the script holds more commands than can be judged; split it"});
  if (run.out.observations.empty()) run.out.observations.push_back({.effect = Effect::compute, .reason = "does nothing"});
}

namespace {

// Files that earlier calls fetched or decoded, as far as this script names them: what is downloaded in one call and run in the next is one attack.
void remember_downloads(Run& run) {
  if (run.action.history.empty()) return;
  std::set<std::string, std::less<>> names;
  for (const auto& command : run.script.commands) {
    for (const auto& word : command.words) {
      if (names.size() >= 32) break;
      const std::string name = word.text.substr(word.text.rfind('/') + 1);
      if (name.size() >= 2 && name.size() <= 255 && name[0] != '-') names.insert(name);
    }
  }
  for (const Call& call : run.action.history) {
    const bool fetches = call.arguments.find("://") != std::string::npos || call.arguments.find("base64") != std::string::npos ||
                         call.arguments.find("openssl") != std::string::npos;
    if (!fetches || call.arguments.size() > 65536) continue;
    if (std::none_of(names.begin(), names.end(), [&](const std::string& name) { return call.arguments.find(name) != std::string::npos; }))
      continue;
    const auto arguments = parse_json(call.arguments);
    if (!arguments.ok() || !arguments->is_object()) continue;
    for (const auto& [key, value] : arguments->as_object()) {
      if (!value.is_string()) continue;
      Action before = run.action;
      before.history.clear();
      const auto script = parse_shell(std::string(value.as_string()), before);
      if (!script.ok()) continue;
      Assessment ignored;
      Run earlier{.script = *script, .action = before, .out = ignored};
      assess_run(earlier);
      for (const auto& [path, flow] : earlier.files) {
        if (flow.network || flow.decoded) run.files[path].join(flow);
      }
    }
  }
}

}  // namespace

Assessment assess_script(const Script& script, const Action& action) {
  Assessment out;
  Run run{.script = script, .action = action, .out = out};
  remember_downloads(run);
  assess_run(run);
  constexpr std::size_t longest_folded = 65536;
  if (std::any_of(script.commands.begin(), script.commands.end(), [](const Command& command) { return !command.assignments.empty(); })) {
    for (const Command& command : script.commands) {
      for (const Word& word : command.words) {
        if (out.folded.size() + word.text.size() < longest_folded) out.folded += word.text + " ";
      }
      out.folded += "\n";
    }
  }
  return out;
}

Assessment assess_shell(std::string_view text, const Action& action) {
  auto script = parse_shell(text, action);
  if (!script) {
    Assessment out;
    out.problem = script.error().message;
    return out;
  }
  return assess_script(*script, action);
}

Assessment assess_code(std::string_view language, std::string_view text, const Action& action) {
  Assessment out;
  if (language == "sh" || language == "bash" || language == "shell") return assess_shell(text, action);
  const Script none;
  Run run{.script = none, .action = action, .out = out};
  assess_code_into(run, language, text, {}, language);
  if (out.observations.empty())
    out.observations.push_back({.effect = Effect::compute, .program = std::string(language), .reason = "computes"});
  return out;
}

}  // namespace hearth::safety
