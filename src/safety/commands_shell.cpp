// What a shell does itself, interpreters and their one-liners, and variables that make programs run code.
#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/base64.h"
#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

bool nested(const Context& c) { return c.run.depth > 0 || !c.command.wrappers.empty(); }

// Program text that comes through standard input.
void from_input(Context& c, std::string_view language) {
  const Flow& flow = c.input;
  const bool redirected = std::any_of(c.command.redirects.begin(), c.command.redirects.end(), [](const Redirect& r) {
    return r.kind == Redirect::Kind::here || (r.kind == Redirect::Kind::read && !r.target.text.empty() && r.target.text[0] != '&' &&
                                              r.target.text.find_first_not_of("0123456789") != std::string::npos);
  });
  const bool piped = c.command.pipe_from >= 0;
  if (flow.network) return c.report(Effect::remote_code, "runs what came over the network; download it, read it, then run it");
  if (flow.decoded) {
    c.report(Effect::remote_code, "runs what was decoded at run time; write the command in clear");
    if (flow.text) c.code(language, plain(*flow.text), c.program);
    return;
  }
  if (flow.text) {
    c.report(Effect::execute, "runs program text given to it");
    return c.code(language, plain(*flow.text), c.program);
  }
  if (redirected && flow.local && !flow.any) {
    for (const auto& redirect : c.command.redirects)
      if (redirect.kind == Redirect::Kind::read && redirect.target.text[0] != '&') c.run_file(redirect.target, language);
    return;
  }
  if (piped) {
    const Command& source = c.run.script.commands[static_cast<std::size_t>(c.command.pipe_from)];
    if (!source.words.empty() && program_name(source.words.front().text) == "cat" && source.words.size() > 1) {
      for (std::size_t i = 1; i < source.words.size(); ++i)
        if (!starts_with(source.words[i].text, "-")) c.run_file(source.words[i], language);
      return;
    }
    return c.report(Effect::unknown, "runs what another program prints, which cannot be told before it runs", {}, false);
  }
  if (redirected) return c.report(Effect::unknown, "runs text that cannot be told before it runs", {}, false);
  if (is_shell(c.program)) {
    if (nested(c)) c.report(Effect::privilege_escalation, "opens a shell out of another program, past what is judged");
    else c.report(Effect::unknown, "opens a shell whose commands cannot be seen; give it the command", {}, false);
    return;
  }
  c.report(Effect::execute, "starts " + c.program);
}

void shell(Context& c) {
  static const Grammar grammar(
      "-c=X -i -l,--login -s -e -u -x -v -n -p!privilege_escalation -o=_ -O=_ --rcfile,--init-file=I --norc --noprofile --posix "
      "-r,--restricted -f -a -b -h -m -k -t -C=_ --command=X --init-command=X");
  std::vector<Word> words = c.words;
  // "+x" and its kind are options, too.
  words.erase(std::remove_if(words.begin() + 1, words.end(), [](const Word& w) { return w.text.size() > 1 && w.text[0] == '+'; }),
              words.end());
  const auto args = parse_arguments(words, 1, grammar, Order::posix);
  if (c.input.shell) c.output.shell = true;
  if (args.any({"version", "help"})) return c.report(Effect::compute, "tells about itself");
  bool text = false;
  for (const auto& option : args.options) {
    if (option.name == "rcfile") c.run_file(option.value, "sh");
    if (option.name == "p") c.report(Effect::privilege_escalation, "keeps the rights of a set-id program");
    if (option.name != "c" && option.name != "command" && option.name != "init-command") continue;
    // The letters after -c in one word are options ("-ce"): then the text is the first operand.
    Word value = option.value;
    if (option.has_value && value.text.size() <= 4 && !value.text.empty() && value.text.find_first_not_of("eiluxvp") == std::string::npos &&
        !args.operands.empty())
      value = args.operands.front();
    text = true;
    const std::size_t before = c.run.out.observations.size();
    c.shell(value, c.program);
    if (c.run.out.observations.size() == before) c.report(Effect::compute, "runs nothing");
  }
  if (text) return;
  if (c.command.appends_arguments && !args.operands.empty() && args.operands.front().text == unknown_part)
    return c.report(Effect::unknown, "opens a shell, or runs a script whose name comes at run time", {}, false);
  if (!args.operands.empty() && !args.has("s")) {
    c.run_file(args.operands.front(), "sh");
    for (std::size_t i = 1; i < args.operands.size(); ++i) c.scan(args.operands[i]);
    return;
  }
  c.output.shell = true;
  from_input(c, "sh");
}

const Grammar& grammar_of(std::string_view language) {
  static const std::unordered_map<std::string_view, Grammar> grammars = [] {
    std::unordered_map<std::string_view, Grammar> out;
    out.emplace("python", Grammar("-c=c -m=m -W=_ -X=_ -O -B -E -i -I -s -S -u -v -b -q -x -Q=_ --check-hash-based-pycs=_ --version -V"));
    out.emplace(
        "perl",
        Grammar("-e,-E=c -n -p -i?=_ -l?=9 -0?=9 -a -w -M,-m=_ -I=_ -F?=_ -s -x?=_ -T -t -C?=_ -d?=_ -D=_ -c -v -u -U -W -X -S -f"));
    out.emplace("ruby",
                Grammar("-e=c -n -p -i?=_ -l -0?=9 -a -w -r=L -I=_ -F=_ -s -x?=_ -T?=_ -C=_ -K=_ -E=_ -c -v -W?=_ --disable=_ --enable=_"));
    out.emplace("node",
                Grammar("-e,--eval=c -p,--print=c -r,--require=L --import=L --loader,--experimental-loader=L -i,--interactive -c,--check "
                        "--inspect?=_ --inspect-brk?=_ --max-old-space-size=_ --env-file=_ --test --watch -h -v -C=_ --input-type=_ "
                        "-A,--allow-all --allow-run?=_ --allow-read?=_ --allow-write?=_ --allow-net?=_"));
    out.emplace("php", Grammar("-r,-B,-E,-R=c -f=f -F=f -S=_ -t=_ -d=_ -c=R -z=L -a -n -l -i -m -v -s -w"));
    out.emplace("lua", Grammar("-e=c -l=L -i -v -E"));
    out.emplace("r", Grammar("-e=c -f,--file=f --args --vanilla --slave --no-save -q --quiet --no-environ --no-restore"));
    out.emplace("julia", Grammar("-e,-E,--eval,--print=c -L,--load=L -p=_ -t,--threads=_ -J=L --project?=_ -O=_ -q"));
    out.emplace("applescript", Grammar("-e=c -l=_ -s=_ -i"));
    out.emplace("tcl", Grammar("-c=c -f=f -encoding=_ -d -D=_ -b"));
    out.emplace("powershell",
                Grammar("-Command,-c,-command,-CommandWithArgs=c -EncodedCommand,-enc,-e,-ec,-encodedcommand=b -File,-f,-file=f "
                        "-NoProfile,-nop,-noprofile -ExecutionPolicy,-ep,-executionpolicy=_ -NonInteractive,-noni -WindowStyle,-w=_ "
                        "-NoLogo -Version,-version=_ -NoExit,-noexit -InputFormat=_ -OutputFormat=_ -Help -Login -WorkingDirectory=_ "
                        "-ConfigurationName=_ -Sta -Mta"));
    out.emplace("groovy", Grammar("-e=c -p -n -i?=_ -cp,-classpath=_ --startup=_ -s -f=f"));
    out.emplace("elixir", Grammar("-e,--eval=c -r=L -S=_ -pa=_ -pz=_"));
    out.emplace("erlang", Grammar("-eval=c -noshell -noinput -s=_ -run=_ -pa=_"));
    out.emplace("lisp", Grammar("-c,-e,-x,-eval,--eval,-execute,--execute,--non-interactive-eval=c -l,--load,-load,--script,-s=f "
                                "-f,--funcall,-funcall=_ --batch,-batch -Q -q --no-userinit --non-interactive -nw"));
    out.emplace("octave", Grammar("--eval=c --no-gui -q --silent -p,--path=_"));
    out.emplace("haskell", Grammar("-e=c"));
    out.emplace("ocaml", Grammar("-e=c -I=_"));
    out.emplace("swift", Grammar("-e=c"));
    return out;
  }();
  const auto found = grammars.find(language);
  static const Grammar none("");
  return found == grammars.end() ? none : found->second;
}

void python_module(Context& c, const Word& module, const std::vector<Word>& rest) {
  std::vector<Word> inner = rest;
  const std::string& name = module.text;
  if (name == "pip" || name == "pipx" || name == "uv" || name == "poetry" || name == "twine" || name == "conda" || name == "ensurepip" ||
      name == "easy_install") {
    inner.insert(inner.begin(), plain(name));
    return c.command_words(std::move(inner), "python -m");
  }
  if (name == "timeit") {
    for (const auto& word : rest)
      if (!starts_with(word.text, "-")) c.code("python", word, "timeit");
    return;
  }
  if (name == "http.server" || name == "SimpleHTTPServer" || name == "pyftpdlib" || name == "uploadserver") {
    Word folder = plain(".");
    for (std::size_t i = 0; i < rest.size(); ++i)
      if ((rest[i].text == "-d" || rest[i].text == "--directory") && i + 1 < rest.size()) folder = rest[i + 1];
      else if (starts_with(rest[i].text, "--directory=")) folder = part_of(rest[i], 12);
    const Site site = site_of_tree(c.path_of(folder), c.where());
    if (site.place == Place::workspace || site.place == Place::temporary)
      return c.report(Effect::execute, "serves a folder of the workspace");
    return c.report(Effect::exfiltration, "offers " + c.path_of(folder) + " to everybody on the network", c.path_of(folder), folder.exact);
  }
  if (name == "pdb" || name == "cProfile" || name == "profile" || name == "trace" || name == "runpy" || name == "coverage") {
    for (const auto& word : rest)
      if (word.text.ends_with(".py")) c.run_file(word, "python");
  }
  for (const auto& word : rest) c.scan(word);
  c.report(Effect::execute, "runs the Python module " + name, name);
}

void interpreter(Context& c) {
  std::string_view language = language_of(c.program);
  std::vector<Word> words = c.words;
  std::size_t from = 1;
  if ((c.program == "deno" || c.program == "bun") && words.size() > 1) {
    const std::string& verb = words[1].text;
    if (verb == "eval") {
      for (std::size_t i = 2; i < words.size(); ++i)
        if (words[i].text[0] != '-') return c.code("node", words[i], c.program);
    }
    if (verb == "run") from = 2;
    else if (verb == "install" || verb == "add" || verb == "i" || verb == "x" || verb == "create" || verb == "publish" ||
             verb == "remove" || verb == "update" || verb == "link" || verb == "pm") {
      for (const auto& programs : {package_programs()})
        for (const auto& named : programs)
          if (named.name == "npm") return named.handler(c);
    } else if (verb == "test" || verb == "build" || verb == "fmt" || verb == "lint" || verb == "check" || verb == "task" ||
               verb == "upgrade") {
      return c.report(Effect::execute, "runs " + c.program + " " + verb);
    }
  }
  const auto args = parse_arguments(words, from, grammar_of(language), Order::posix);
  if (args.any({"version", "V", "v", "help", "h"}) && args.operands.empty() && args.options.size() == 1)
    return c.report(Effect::compute, "tells about itself");
  bool text = false;
  c.run.given = args.operands;
  if (c.input.text) {
    for (std::string_view rest = *c.input.text; !rest.empty() && c.run.given.size() < 256;) {
      const auto end = std::min(rest.find('\n'), rest.size());
      if (end > 0) c.run.given.push_back(plain(rest.substr(0, end)));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  for (const auto& option : args.options) {
    if (!option.has_value) continue;
    const char role = option.spec ? static_cast<char>(option.spec->role) : '?';
    if (role == 'c') {
      text = true;
      c.report(Effect::execute, "runs " + c.program + " text");
      c.code(language, option.value, c.program);
    } else if (role == 'b') {
      text = true;
      c.report(Effect::remote_code, "runs an encoded command; write it in clear");
    } else if (role == 'm') {
      return python_module(c, option.value, args.operands);
    } else if (role == 'f') {
      text = true;
      c.run_file(option.value, language);
    } else if (option.name == "d" && language == "php") {
      if (lower_case(option.value.text).find("auto_prepend") != std::string::npos)
        c.report(Effect::remote_code, "makes PHP run a file before anything else", option.value.text);
    } else if (option.name == "M" && language == "perl") {
      continue;
    } else {
      c.apply(option.spec ? option.spec->role : Role::scan, option.value);
    }
  }
  std::size_t first = 0;
  if (language == "php" && args.has("S")) {
    const std::string host = host_of(args.value("S")->text);
    const Word folder = args.value("t") ? *args.value("t") : plain(".");
    const Site site = site_of_tree(c.path_of(folder), c.where());
    if (site.place == Place::workspace || site.place == Place::temporary)
      return c.report(Effect::execute, "serves a folder of the workspace");
    return c.report(Effect::exfiltration, "offers " + c.path_of(folder) + " to the network", host);
  }
  if (!text) {
    if (args.operands.empty() || args.operands.front().text == "-" || args.operands.front().text == "/dev/stdin")
      return from_input(c, language);
    c.run_file(args.operands.front(), language);
    first = 1;
  }
  const bool in_place = args.has("i") && (language == "perl" || language == "ruby");
  const bool loops = args.any({"n", "p"}) && text;
  for (std::size_t i = first; i < args.operands.size(); ++i) {
    if (in_place) c.write(args.operands[i]);
    else if (loops) c.read(args.operands[i]);
    else c.scan(args.operands[i]);
  }
  if (loops) c.output.join(c.input);
  else if (text) c.output.any = true;
  // What code reads, it may print.
  for (const auto& observation : c.run.out.observations) {
    if (observation.program != c.program) continue;
    if (observation.effect == Effect::credential_access) c.output.secret = true;
    if (observation.effect == Effect::read) c.output.local = true;
    if (observation.effect == Effect::fetch) c.output.network = true;
  }
}

void awk(Context& c) {
  static const Grammar grammar(
      "-F,--field-separator=_ -v,--assign=_ -f,--file=f -e,--source=c -i,--include=_ -l,--load=L -o,--pretty-print?=W -p,--profile?=W "
      "-d,--dump-variables?=W -E,--exec=f -S,--sandbox -W=_ -b -c -P -r -t -M -n -N -O -s -h -V");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  bool text = false;
  bool in_place = false;
  for (const auto& option : args.options) {
    if (!option.has_value) continue;
    const char role = option.spec ? static_cast<char>(option.spec->role) : '?';
    if (role == 'c') {
      text = true;
      c.code("awk", option.value, "awk");
    } else if (role == 'f') {
      text = true;
      c.run_file(option.value, "awk");
    } else if (option.name == "i") {
      in_place = option.value.text == "inplace";
    } else if (option.spec) {
      c.apply(option.spec->role, option.value);
    }
  }
  std::size_t first = 0;
  if (!text && !args.operands.empty()) {
    c.code("awk", args.operands.front(), "awk");
    first = 1;
  }
  for (std::size_t i = first; i < args.operands.size(); ++i) {
    const auto& operand = args.operands[i];
    const auto equals = operand.text.find('=');
    if (equals != std::string::npos && operand.text.find('/') > equals) continue;  // a variable
    in_place ? c.write(operand) : c.read(operand);
  }
  c.output.join(c.input);
  if (c.input.network || c.input.local) c.output.network |= c.input.network;
  c.report(Effect::compute, "processes text");
}

// ---- Builtins ------------------------------------------------------------------------------------------------------------------------------------------------

void eval(Context& c) {
  Word all;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    if (i > 1) all.text += ' ';
    all.text += c.words[i].text;
    all.exact = all.exact && c.words[i].exact;
    all.substitution = all.substitution || c.words[i].substitution;
  }
  if (all.text.empty()) return c.report(Effect::compute, "runs nothing");
  // eval "$(ssh-agent)", "$(brew shellenv)" and their kind print settings for the shell.
  if (!all.exact && all.substitution && all.text == unknown_part) {
    for (std::size_t i = c.index; i > 0; --i) {
      const Command& before = c.run.script.commands[i - 1];
      if (before.depth <= c.command.depth) break;
      if (before.words.empty() || before.pipe_from >= 0) break;
      const std::string name = program_name(before.words.front().text);
      static const std::unordered_set<std::string> settings{"ssh-agent",
                                                            "brew",
                                                            "direnv",
                                                            "pyenv",
                                                            "rbenv",
                                                            "nodenv",
                                                            "fnm",
                                                            "starship",
                                                            "zoxide",
                                                            "dircolors",
                                                            "opam",
                                                            "conda",
                                                            "mise",
                                                            "thefuck",
                                                            "docker-machine",
                                                            "minikube",
                                                            "keychain",
                                                            "goenv",
                                                            "jenv",
                                                            "atuin",
                                                            "lesspipe",
                                                            "luarocks",
                                                            "register-python-argcomplete",
                                                            "poetry",
                                                            "resize"};
      const bool asks = before.words.size() > 1 && std::any_of(before.words.begin() + 1, before.words.end(), [](const Word& w) {
                          return w.text == "init" || w.text == "hook" || w.text == "shellenv" || w.text == "completion" ||
                                 w.text == "completions" || w.text == "activate" || w.text == "shell-init" || w.text == "docker-env" ||
                                 w.text == "env";
                        });
      if ((settings.contains(name) || (asks && !find_handler(name))) && before.words.front().text.find('/') == std::string::npos)
        return c.report(Effect::execute, "takes over settings that " + name + " prints", name);
    }
  }
  c.shell(all, "eval");
}

void source(Context& c) {
  if (c.words.size() < 2) return c.command.pipe_from >= 0 ? from_input(c, "sh") : c.report(Effect::compute, "reads nothing");
  const std::string path = c.path_of(c.words[1]);
  const Site site = site_of(path, c.where());
  if (site.place == Place::startup || site.place == Place::system) return c.report(Effect::execute, "reads settings from " + path, path);
  if (c.input.network || c.input.decoded) {
    if (path == "/dev/stdin" || starts_with(path, "/dev/fd") || starts_with(path, "/proc/self/fd"))
      return c.report(Effect::remote_code, "runs what was fetched or decoded");
  }
  c.run_file(c.words[1], "sh");
}

void exec(Context& c) {
  static const Grammar grammar("-a=_ -c -l");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  if (!args.operands.empty()) c.command_words(args.operands, "exec");
  else c.report(Effect::compute, "changes where input and output go");
}

void run_words(Context& c) {
  static const Grammar grammar("-v -V -p");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  if (args.any({"v", "V"})) return c.report(Effect::list, "looks for a program");
  if (args.operands.empty()) return c.report(Effect::compute, "does nothing");
  c.command_words(args.operands, c.program);
}

void declare(Context& c) {
  bool any = false;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const Word& word = c.words[i];
    const auto equals = word.text.find('=');
    if (word.text.empty() || word.text[0] == '-' || equals == std::string::npos) continue;
    any = true;
    Assignment assignment{.name = word.text.substr(0, equals), .value = part_of(word, equals + 1), .exported = true};
    if (assignment.name.ends_with('+')) assignment.name.pop_back();
    if (!assignment.value.exact) {
      Flow flow = c.flow_of(assignment.value);
      flow.text.reset();
      c.run.variables[assignment.name] = flow;
    }
    assess_assignment(c, assignment);
  }
  const bool dumps = c.words.size() == 1 || (c.words.size() == 2 && (c.words[1].text == "-p" || c.words[1].text == "-x"));
  if (dumps) {
    c.output.secret = true;
    return c.report(Effect::list, "prints the environment");
  }
  if (!any || c.run.out.observations.empty()) c.report(Effect::compute, "sets variables");
}

void set(Context& c) {
  if (c.words.size() == 1) {
    c.output.secret = true;
    return c.report(Effect::list, "prints the shell's variables");
  }
  for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
    if (c.words[i].text == "+o" && c.words[i + 1].text == "history") return c.report(Effect::tampering, "switches the shell history off");
  c.report(Effect::compute, "sets shell options");
}

void unset(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (starts_with(c.words[i].text, "HIST")) return c.report(Effect::tampering, "switches the shell history off", c.words[i].text);
  c.report(Effect::compute, "unsets variables");
}

void alias(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const auto equals = c.words[i].text.find('=');
    if (equals == std::string::npos) continue;
    const std::size_t before = c.run.out.observations.size();
    c.shell(part_of(c.words[i], equals + 1), "alias");
    auto& all = c.run.out.observations;
    all.erase(std::remove_if(all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size())), all.end(),
                             [](const Observation& o) { return !is_dangerous(o.effect) || !o.certain; }),
              all.end());
  }
  c.report(Effect::compute, "names commands");
}

void trap(Context& c) {
  static const Grammar grammar("-l -p");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  if (args.operands.size() > 1 && args.operands.front().text != "-" && !args.operands.front().text.empty()) {
    const std::size_t before = c.run.out.observations.size();
    c.shell(args.operands.front(), "trap");
    // Variables of this script are not known in there: what depends on them is left to the commands that set them.
    auto& all = c.run.out.observations;
    all.erase(std::remove_if(all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size())), all.end(),
                             [](const Observation& o) { return !is_dangerous(o.effect) || !o.certain; }),
              all.end());
  }
  c.report(Effect::compute, "sets what happens at the end");
}

void env(Context& c) {
  static const Grammar grammar(
      "-i,--ignore-environment -u,--unset=_ -0,--null -C,--chdir=_ -S,--split-string=X -v,--debug --block-signal?=_ --default-signal?=_ "
      "--ignore-signal?=_");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  c.apply_options(args);
  std::size_t i = 0;
  while (i < args.operands.size() && args.operands[i].text.find('=') != std::string::npos && args.operands[i].text[0] != '/') ++i;
  if (i == args.operands.size() && !args.has("S")) {
    c.output.secret = true;
    return c.report(Effect::list, "prints the environment");
  }
  c.command_words(args.operands, "env");
}

void printenv(Context& c) {
  c.output.secret = c.words.size() == 1;
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (names_secret(c.words[i].text)) {
      c.output.secret = true;
      return c.report(Effect::credential_access, "prints the secret " + c.words[i].text + " of the environment", c.words[i].text);
    }
  c.report(Effect::list, "prints the environment");
}

void kill(Context& c) {
  std::size_t i = 1;
  bool asks = false;
  bool signal = false;
  std::vector<Word> targets;
  bool ended = false;
  for (; i < c.words.size(); ++i) {
    const std::string& text = c.words[i].text;
    if (!ended && text == "--") {
      ended = true;
    } else if (!ended && (text == "-s" || text == "-n" || text == "--signal" || text == "-q")) {
      ++i;
      signal = true;
    } else if (!ended && (text == "-l" || text == "-L" || text == "--list" || text == "-0")) {
      asks = true;
      signal = true;
    } else if (!ended && !signal && targets.empty() && text.size() > 1 && text[0] == '-' && i + 1 < c.words.size()) {
      signal = true;
    } else if (!ended && text.size() > 2 && starts_with(text, "--")) {
      continue;
    } else {
      targets.push_back(c.words[i]);
    }
  }
  if (asks) return c.report(Effect::list, "asks about signals or processes");
  for (const auto& target : targets) {
    if (target.text == "-1") c.report(Effect::process_control, "ends every process it may", target.text);
    else if (target.text == "1") c.report(Effect::process_control, "ends the first process of the machine", target.text);
    else if (target.text == "0") c.report(Effect::change, "ends its own group of processes", target.text);
    else if (target.exact) c.report(Effect::change, "ends the process " + target.text, target.text);
    else if (target.substitution) {
      bool own = false;
      for (std::size_t at = c.index; at > 0; --at) {
        const Command& before = c.run.script.commands[at - 1];
        if (before.depth <= c.command.depth) break;
        if (before.words.empty()) continue;
        const std::string name = program_name(before.words.front().text);
        if (name == "jobs") own = true;
        if (name == "cat" && before.words.size() == 2 &&
            site_of(canonical_path(before.words[1].text, c.where(), before.folder), c.where()).place <= Place::temporary)
          own = true;
        if (name == "lsof" &&
            std::any_of(before.words.begin(), before.words.end(), [](const Word& w) { return w.text.find(':') != std::string::npos; }))
          own = true;
      }
      if (own) c.report(Effect::change, "ends a process of its own");
      else c.report(Effect::process_control, "ends processes that are found at run time; name the pid", {}, false);
    } else if (c.command.appends_arguments) {
      c.report(Effect::process_control, "ends processes that are found at run time; name the pid", {}, false);
    } else {
      c.report(Effect::change, "ends a process", {}, false);
    }
  }
  if (targets.empty()) c.report(Effect::compute, "ends nothing");
}

void xargs(Context& c) {
  static const Grammar grammar(
      "-0,--null -a,--arg-file=R -d,--delimiter=_ -E=_ -I=_ -i?=_ -L=_ -l?=_ -n,--max-args=_ -P,--max-procs=_ -p -r,--no-run-if-empty -s=_ "
      "-t,--verbose -x -o -J=_ -R=_");
  const auto args = parse_arguments(c.words, 1, grammar, Order::posix);
  c.apply_options(args);
  if (args.operands.empty()) {
    c.output.join(c.input);
    return c.report(Effect::compute, "prints its input");
  }
  auto inner = args.operands;
  auto items = Context::items_of(c.run, c.command.pipe_from);
  if (!items) items = std::vector<Word>{{.text = std::string(unknown_part), .exact = false}};
  inner.insert(inner.end(), items->begin(), items->end());
  c.command_words(std::move(inner), "xargs");
}

void tr(Context& c) {
  c.report(Effect::compute, "replaces characters");
  c.output = c.input;
  c.output.text.reset();
  std::vector<Word> sets;
  bool deletes = false;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    if (c.words[i].text.size() > 1 && c.words[i].text[0] == '-' && sets.empty())
      deletes = deletes || c.words[i].text.find('d') != std::string::npos;
    else sets.push_back(c.words[i]);
  }
  // Two ranges of letters: a rotation, which hides text.
  if (!deletes && sets.size() == 2) {
    const auto expand = [](std::string_view set) {
      std::string out;
      for (std::size_t i = 0; i < set.size(); ++i) {
        if (i + 2 < set.size() && set[i + 1] == '-' && set[i] <= set[i + 2]) {
          for (char ch = set[i]; ch <= set[i + 2]; ++ch) out += ch;
          i += 2;
        } else {
          out += set[i];
        }
      }
      return out;
    };
    const std::string from = expand(sets[0].text), to = expand(sets[1].text);
    const bool changes_case = lower_case(from) == lower_case(to) || sets[0].text.find("[:") != std::string::npos;
    if (from.size() > 4 && to.size() > 4 && !changes_case) c.output.decoded = true;
    if (c.input.text && !from.empty() && !to.empty() && sets[0].text.find("[:") == std::string::npos) {
      std::string text = *c.input.text;
      for (char& ch : text)
        if (const auto at = from.find(ch); at != std::string::npos) ch = to[std::min(at, to.size() - 1)];
      c.output.text = std::move(text);
    }
  }
}

// Programs whose output is their input in other clothes.
void transform(Context& c) {
  const std::string program = c.program;
  const bool packer = program != "base64" && program != "base32" && program != "basenc" && program != "base58" && program != "xxd" &&
                      program != "rev" && program != "uudecode";
  const bool to_output =
      packer && std::any_of(c.words.begin() + 1, c.words.end(), [](const Word& w) {
        return w.text == "--stdout" || w.text == "--to-stdout" || w.text == "--list" || w.text == "--test" ||
               (w.text.size() > 1 && w.text[0] == '-' && w.text[1] != '-' && w.text.find_first_of("clt") != std::string::npos);
      });
  if (to_output || program == "zcat" || program == "bzcat" || program == "xzcat" || program == "zstdcat") {
    c.output.join(c.input);
    c.output.text.reset();
    for (std::size_t i = 1; i < c.words.size(); ++i)
      if (!starts_with(c.words[i].text, "-")) c.read(c.words[i]);
    c.report(Effect::compute, program + " packs or unpacks to its output");
  } else {
    apply_table(c);
  }
  const bool decodes = [&] {
    if (program == "gunzip" || program == "bunzip2" || program == "unxz" || program == "zcat" || program == "bzcat" || program == "xzcat" ||
        program == "unzstd" || program == "zstdcat" || program == "uudecode" || program == "unlzma" || program == "uncompress")
      return true;
    for (std::size_t i = 1; i < c.words.size(); ++i) {
      const std::string& text = c.words[i].text;
      if (text.size() < 2 || text[0] != '-') continue;
      if (starts_with(text, "--d") || starts_with(text, "--unc") || starts_with(text, "--rev")) return true;
      if (text[1] != '-' && text.find_first_of(program == "xxd" ? "r" : "dD") != std::string::npos) return true;
    }
    return program == "rev" || program == "tac";
  }();
  if (!decodes) return;
  // A plain file that is unpacked in place is no program text yet.
  c.output.decoded = true;
  c.output.text.reset();
  std::optional<std::string> source = c.input.text;
  if (source) {
    if (starts_with(program, "base64")) c.output.text = base64_decode_loosely(*source);
    else if (program == "xxd") c.output.text = hex_decode_loosely(*source, " \t\r\n\\x,");
    else if (program == "rev") {
      std::string text = *source;
      const bool newline = !text.empty() && text.back() == '\n';
      if (newline) text.pop_back();
      std::reverse(text.begin(), text.end());
      c.output.text = text + (newline ? "\n" : "");
    }
  }
}

void cat(Context& c) {
  apply_table(c);
  const bool operands =
      std::any_of(c.words.begin() + 1, c.words.end(), [](const Word& w) { return w.text.empty() || w.text[0] != '-' || w.text == "-"; });
  if (!operands && c.input.text) c.output.text = c.input.text;
}

constexpr auto programs = std::to_array<Named>({
    {"eval", eval},
    {"source", source},
    {".", source},
    {"exec", exec},
    {"command", run_words},
    {"builtin", run_words},
    {"export", declare},
    {"declare", declare},
    {"typeset", declare},
    {"readonly", declare},
    {"local", declare},
    {"set", set},
    {"unset", unset},
    {"alias", alias},
    {"trap", trap},
    {"env", env},
    {"genv", env},
    {"printenv", printenv},
    {"kill", kill},
    {"xargs", xargs},
    {"gxargs", xargs},
    {"tr", tr},
    {"gtr", tr},
    {"awk", awk},
    {"gawk", awk},
    {"mawk", awk},
    {"nawk", awk},
    {"cat", cat},
    {"base64", transform},
    {"base32", transform},
    {"basenc", transform},
    {"base58", transform},
    {"xxd", transform},
    {"rev", transform},
    {"gunzip", transform},
    {"gzip", transform},
    {"zcat", transform},
    {"bzip2", transform},
    {"bunzip2", transform},
    {"bzcat", transform},
    {"xz", transform},
    {"unxz", transform},
    {"xzcat", transform},
    {"zstd", transform},
    {"unzstd", transform},
    {"zstdcat", transform},
    {"uudecode", transform},
    {"lzma", transform},
    {"unlzma", transform},
    {"lz4", transform},
    {"brotli", transform},
    {"python", interpreter},
    {"pypy", interpreter},
    {"ipython", interpreter},
    {"perl", interpreter},
    {"ruby", interpreter},
    {"jruby", interpreter},
    {"irb", interpreter},
    {"node", interpreter},
    {"nodejs", interpreter},
    {"deno", interpreter},
    {"bun", interpreter},
    {"ts-node", interpreter},
    {"tsx", interpreter},
    {"php", interpreter},
    {"lua", interpreter},
    {"luajit", interpreter},
    {"texlua", interpreter},
    {"Rscript", interpreter},
    {"R", interpreter},
    {"littler", interpreter},
    {"julia", interpreter},
    {"osascript", interpreter},
    {"tclsh", interpreter},
    {"wish", interpreter},
    {"expect", interpreter},
    {"jimsh", interpreter},
    {"pwsh", interpreter},
    {"powershell", interpreter},
    {"groovy", interpreter},
    {"scala", interpreter},
    {"jshell", interpreter},
    {"elixir", interpreter},
    {"erl", interpreter},
    {"guile", interpreter},
    {"sbcl", interpreter},
    {"clisp", interpreter},
    {"racket", interpreter},
    {"emacs", interpreter},
    {"octave", interpreter},
    {"octave-cli", interpreter},
    {"qjs", interpreter},
    {"jjs", interpreter},
    {"js", interpreter},
    {"ghc", interpreter},
    {"runghc", interpreter},
    {"ocaml", interpreter},
    {"swift", interpreter},
    {"gjs", interpreter},
    {"sh", shell},
    {"bash", shell},
    {"dash", shell},
    {"zsh", shell},
    {"ksh", shell},
    {"mksh", shell},
    {"pdksh", shell},
    {"ash", shell},
    {"fish", shell},
    {"csh", shell},
    {"tcsh", shell},
    {"rbash", shell},
    {"rksh", shell},
    {"yash", shell},
    {"posh", shell},
    {"elvish", shell},
    {"xonsh", shell},
    {"nu", shell},
    {"lksh", shell},
    {"oksh", shell},
    {"hush", shell},
    {"-bash", shell},
    {"-sh", shell},
});

}  // namespace

std::span<const Named> shell_programs() { return programs; }

void assess_assignment(Context& c, const Assignment& assignment) {
  const std::string& name = assignment.name;
  const Word& value = assignment.value;
  if (name == "LD_PRELOAD" || name == "LD_AUDIT" || name == "DYLD_INSERT_LIBRARIES" || name == "LD_PRELOAD_32" || name == "LD_PRELOAD_64") {
    if (value.text.empty()) return;
    const std::string path = c.path_of(value);
    const Site site = site_of(path, c.where());
    if (value.exact && site.place == Place::system) return c.report(Effect::execute, "loads " + path + " into programs", path);
    return c.report(Effect::persistence, "loads " + path + " into every program it starts, by " + name, path, value.exact);
  }
  if (name == "BASH_ENV" || name == "ENV" || name == "PROMPT_COMMAND" || name == "PYTHONSTARTUP" || name == "PERL5DB" ||
      name == "ZDOTDIR" || name == "PERL5OPT" || name == "RUBYOPT" || name == "DOTNET_STARTUP_HOOKS" || name == "GCONV_PATH" ||
      name == "PYTHONHOME" || name == "GIT_TEMPLATE_DIR" || name == "GIT_EXEC_PATH" || name == "GIT_CONFIG_GLOBAL" ||
      name == "GIT_CONFIG_SYSTEM" || name == "npm_config_script_shell" || name == "PYTHONINSPECT_" || name == "BASH_FUNC_") {
    if (value.text.empty() || value.text == "/dev/null") return;
    if ((name == "ENV" && value.text.find('/') == std::string::npos) ||
        ((name == "RUBYOPT" || name == "PERL5OPT") && starts_with(value.text, "-W")))
      return;
    return c.report(Effect::persistence, "makes other programs run code of its choice, by " + name, value.text, value.exact);
  }
  if (starts_with(name, "BASH_FUNC_")) return c.report(Effect::persistence, "replaces a command for every shell it starts", name);
  if (name == "NODE_OPTIONS" || name == "JAVA_TOOL_OPTIONS" || name == "_JAVA_OPTIONS" || name == "JDK_JAVA_OPTIONS" ||
      name == "MAVEN_OPTS" || name == "GRADLE_OPTS") {
    for (const std::string_view word : {"--require", "-r ", "--import", "--loader", "--experimental-loader", "-javaagent", "-agentpath",
                                        "-agentlib", "--inspect=0.0.0.0", "OnOutOfMemoryError", "OnError"})
      if (value.text.find(word) != std::string::npos)
        return c.report(Effect::persistence, "makes other programs load code of its choice, by " + name, value.text, value.exact);
    return;
  }
  static const std::unordered_set<std::string_view> commands{"GIT_SSH_COMMAND",
                                                             "GIT_SSH",
                                                             "GIT_PROXY_COMMAND",
                                                             "GIT_EXTERNAL_DIFF",
                                                             "GIT_PAGER",
                                                             "PAGER",
                                                             "MANPAGER",
                                                             "EDITOR",
                                                             "VISUAL",
                                                             "GIT_EDITOR",
                                                             "GIT_SEQUENCE_EDITOR",
                                                             "BROWSER",
                                                             "SUDO_ASKPASS",
                                                             "SSH_ASKPASS",
                                                             "GIT_ASKPASS",
                                                             "LESSOPEN",
                                                             "LESSCLOSE",
                                                             "SYSTEMD_PAGER",
                                                             "AWS_PAGER",
                                                             "PSQL_PAGER",
                                                             "PSQL_EDITOR",
                                                             "RSYNC_RSH",
                                                             "CVS_RSH",
                                                             "SVN_SSH",
                                                             "HGEDITOR",
                                                             "SVN_EDITOR",
                                                             "FCEDIT",
                                                             "CC",
                                                             "CXX",
                                                             "SHELL",
                                                             "RUSTC_WRAPPER",
                                                             "MAKESHELL",
                                                             "FZF_DEFAULT_COMMAND",
                                                             "SVN_MERGE",
                                                             "MAILER",
                                                             "GH_PAGER",
                                                             "DELTA_PAGER",
                                                             "KUBE_EDITOR"};
  if (commands.contains(name)) {
    if (value.text.empty()) return;
    std::string text = value.text;
    if ((name == "LESSOPEN" || name == "LESSCLOSE") && !text.empty()) text.erase(0, text.find_first_not_of("|-"));
    Word command = value;
    command.text = text;
    const std::size_t before = c.run.out.observations.size();
    c.shell(command, name);
    // Naming a program there is no run of it yet, unless it is dangerous.
    auto& all = c.run.out.observations;
    for (std::size_t i = std::min(before, all.size()); i < all.size(); ++i)
      if (all[i].effect == Effect::unknown && is_shell(program_name(text)))
        all[i] = {.effect = Effect::compute, .program = c.program, .reason = "names a shell"};
    return;
  }
  if (name == "TAR_OPTIONS" || name == "MAKEFLAGS" || name == "RIPGREP_CONFIG_PATH") {
    if (value.text.find("exec=") != std::string::npos || value.text.find("--eval") != std::string::npos ||
        value.text.find("--to-command") != std::string::npos)
      c.report(Effect::remote_code, "makes a program run commands, by " + name, value.text);
    return;
  }
  if (name == "HISTFILE" || name == "HISTSIZE" || name == "HISTFILESIZE" || name == "SAVEHIST" || name == "HISTIGNORE" ||
      name == "HISTCONTROL") {
    if (name == "HISTFILE"      ? value.text == "/dev/null" || value.text.empty()
        : name == "HISTCONTROL" ? value.text == "ignoreboth" || value.text == "ignorespace"
                                : value.text == "0" || value.text == "*")
      c.report(Effect::tampering, "switches the shell history off", name);
    return;
  }
  if (name == "PATH") {
    std::string_view path = value.text;
    while (!path.empty()) {
      const auto piece = path.substr(0, path.find(':'));
      path.remove_prefix(std::min(path.size(), piece.size() + 1));
      if (starts_with(piece, unknown_part) || starts_with(piece, "$")) break;
      if (piece.empty() || piece == "." || starts_with(piece, "/tmp") || starts_with(piece, "/dev/shm") || starts_with(piece, "/var/tmp"))
        return c.report(Effect::persistence,
                        "looks for programs in " + std::string(piece.empty() ? "." : piece) + " before those of the system",
                        std::string(piece), value.exact);
      if (starts_with(piece, "/usr") || starts_with(piece, "/bin")) break;
    }
    return;
  }
  if (name == "PIP_INDEX_URL" || name == "PIP_EXTRA_INDEX_URL" || name == "UV_INDEX_URL" || name == "UV_EXTRA_INDEX_URL" ||
      name == "UV_DEFAULT_INDEX" || name == "UV_INDEX" || lower_case(name) == "npm_config_registry" || name == "YARN_REGISTRY" ||
      name == "GOPROXY" || name == "PIP_TRUSTED_HOST" || name == "BUNDLE_MIRROR__ALL" || name == "CARGO_REGISTRY_DEFAULT" ||
      name == "GONOSUMDB" || name == "GONOSUMCHECK" || name == "GOINSECURE" || name == "GOSUMDB" || name == "HOMEBREW_BOTTLE_DOMAIN") {
    const std::string host = host_of(value.text.substr(0, value.text.find(',')));
    static const std::unordered_set<std::string> usual{
        "pypi.org",        "registry.npmjs.org", "registry.yarnpkg.com", "proxy.golang.org",    "direct", "off", "sum.golang.org",
        "index.crates.io", "rubygems.org",       "test.pypi.org",        "download.pytorch.org"};
    if (value.exact &&
        (usual.contains(host) || is_loopback(host) || is_trusted(host, c.where()) || (value.text == "off" && name == "GOPROXY")))
      return;
    c.report(Effect::supply_chain, "takes packages from " + (host.empty() ? std::string("another source") : host) + ", by " + name, host,
             value.exact);
    return;
  }
}

}  // namespace hearth::safety
