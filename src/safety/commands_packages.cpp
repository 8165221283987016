// Package managers: what comes from the usual registry by its name is an ordinary installation; addresses, other sources, changed trust and publishing are not.
#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

bool is_usual_source(std::string_view host, const Surroundings& where) {
  static const std::unordered_set<std::string_view> usual{"pypi.org",
                                                          "files.pythonhosted.org",
                                                          "registry.npmjs.org",
                                                          "registry.yarnpkg.com",
                                                          "index.crates.io",
                                                          "crates.io",
                                                          "rubygems.org",
                                                          "proxy.golang.org",
                                                          "download.pytorch.org",
                                                          "test.pypi.org",
                                                          "conda.anaconda.org",
                                                          "repo.anaconda.com",
                                                          "packagist.org",
                                                          "repo.packagist.org",
                                                          "repo.maven.apache.org",
                                                          "npm.pkg.github.com",
                                                          "jsr.io",
                                                          "npm.jsr.io",
                                                          "pypi.nvidia.com",
                                                          "wheels.vllm.ai"};
  return usual.contains(host) || is_loopback(host) || is_trusted(host, where);
}

// What stands where a package name is expected.
void package(Context& c, const Word& word) {
  const std::string& text = word.text;
  if (text.empty()) return;
  const std::string low = lower_case(text);
  const auto source = [&](std::string what) {
    c.report(Effect::supply_chain, "installs " + what + " instead of a package of the registry; name a package", text, word.exact);
  };
  // "name @ https://…", "git+ssh://…", "github:user/repo"
  if (const auto url = low.find("://"); url != std::string::npos || starts_with(low, "git+") || starts_with(low, "github:") ||
                                        starts_with(low, "gitlab:") || starts_with(low, "bitbucket:") || starts_with(low, "gist:") ||
                                        starts_with(low, "git@")) {
    const std::string host =
        host_of(low.substr(low.find("://") == std::string::npos                   ? 0
                           : low.rfind(' ', low.find("://")) == std::string::npos ? 0
                                                                                  : low.rfind(' ', low.find("://")) + 1));
    if (is_loopback(host) || is_trusted(host, c.where())) return c.report(Effect::install, "installs from " + host, text);
    if (starts_with(low, "file://")) return c.report(Effect::install, "installs a local package", text);
    return source("from " + host + " (" + text + ")");
  }
  const bool of_system =
      low.ends_with(".deb") || low.ends_with(".rpm") || low.ends_with(".apk") || low.ends_with(".snap") || low.ends_with(".vsix");
  if (of_system) return source("a package file");
  if (text == "." || text[0] == '/' || starts_with(text, "./") || starts_with(text, "../") || text[0] == '~' || starts_with(text, ".[")) {
    const std::string path = c.path_of(part_of(word, 0, text.find('[')));
    const Site site = site_of(path, c.where());
    for (const auto& [file, flow] : c.run.files)
      if ((file == path || starts_with(path, file + "/")) && flow.network) return source("what was downloaded just before");
    if (site.place == Place::workspace) return c.report(Effect::install, "installs the workspace's own package", path);
    return source(path);
  }
  for (const std::string_view end :
       {".whl", ".tgz", ".tar.gz", ".deb", ".rpm", ".apk", ".gem", ".pkg.tar.zst", ".pkg.tar.xz", ".zip", ".snap", ".vsix"})
    if (low.ends_with(end)) {
      const std::string path = c.path_of(word);
      const auto known = c.run.files.find(path);
      if (known != c.run.files.end() && known->second.network) return source("what was downloaded just before");
      if (end == ".deb" || end == ".rpm" || end == ".apk" || end == ".snap" || starts_with(end, ".pkg") || end == ".vsix")
        return source("a package file");
      const Site site = site_of(path, c.where());
      if (site.place == Place::workspace) return c.report(Effect::install, "installs a package file of the workspace", path);
      return source("a package file");
    }
  // "user/repo" is a GitHub repository to npm; "@scope/name" is not.
  if (c.program == "npm" || c.program == "pnpm" || c.program == "yarn" || c.program == "bun")
    if (text[0] != '@' && std::count(text.begin(), text.end(), '/') == 1) return source("from GitHub (" + text + ")");
  c.report(Effect::install, "installs " + text, text, word.exact);
}

// Options that take packages from elsewhere or stop checking them; across the managers.
void sources(Context& c, const std::vector<Word>& words) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& text = words[i].text;
    const auto equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const Word value = equals != std::string::npos ? part_of(words[i], equals + 1) : i + 1 < words.size() ? words[i + 1] : plain("");
    if (name == "--index-url" || name == "--extra-index-url" || name == "--index" || name == "--default-index" || name == "--registry" ||
        name == "--find-links" || name == "--source" || name == "--index-strategy_" || name == "--repository-url" || name == "--mirror" ||
        name == "--cache-min_" || name == "--repo" || name == "--repository" || name == "--repofrompath" || name == "--channel-url" ||
        name == "--add-repo" || name == "--clear-sources_" || ((name == "-i" || name == "-f") && c.program == "pip") ||
        (name == "-X" && c.program == "apk") || (name == "-s" && c.program == "gem") || name == "--upgrade-from_" || name == "--proxy") {
      if (value.text.find("://") == std::string::npos && name != "--registry" && name != "--find-links") continue;
      const std::string host = host_of(value.text);
      if (value.exact && is_usual_source(host, c.where())) continue;
      if (name == "--find-links" && value.text.find("://") == std::string::npos &&
          site_of(c.path_of(value), c.where()).place == Place::workspace)
        continue;
      if (name == "-f" && value.text.find("://") == std::string::npos) continue;
      c.report(Effect::supply_chain, "takes packages from " + host + "; use the usual registry", host, value.exact);
    } else if (name == "--trusted-host" || name == "--allow-unauthenticated" || name == "--force-yes" || name == "--no-gpg-checks" ||
               name == "--nogpgcheck" || name == "--no-gpg-check" || name == "--allow-untrusted" ||
               name == "--allow-insecure-repositories" || name == "--allow-downgrades_" || name == "--no-verify-ssl" ||
               name == "--insecure-registry" || name == "--force-bad-verify" || name == "--no-signature" || name == "--nosignature" ||
               name == "--devmode" || name == "--dangerous" || name == "--unsafe-perm" ||
               (name == "--strict-ssl" && value.text == "false") || text == "--no-strict-ssl" || text == "--strict-ssl=false") {
      c.report(Effect::supply_chain, "stops checking where packages come from (" + name + ")", name);
    } else if (name == "-o" || name == "--option" || name == "--setopt" || starts_with(text, "-oAPT") || starts_with(text, "-oDPkg") ||
               starts_with(text, "-oDpkg") || starts_with(text, "-oAcquire")) {
      const std::string setting = starts_with(text, "-o") && text.size() > 2 && text[2] != '=' ? text.substr(2) : value.text;
      const std::string low = lower_case(setting);
      if (low.find("invoke") != std::string::npos || low.find("post-install") != std::string::npos ||
          low.find("pre-install") != std::string::npos || low.find("pluginpath") != std::string::npos) {
        const auto at = setting.find('=');
        c.report(Effect::privilege_escalation, "makes the package manager run a command", setting);
        Word command = value;
        command.text = at == std::string::npos ? "" : setting.substr(setting.find_first_not_of('=', at));
        if (!command.text.empty()) c.shell(command, c.program);
      } else if (low.find("allowunauthenticated") != std::string::npos || low.find("allowinsecure") != std::string::npos ||
                 low.find("verify-peer=false") != std::string::npos || low.find("gpgcheck=0") != std::string::npos ||
                 low.find("check-valid-until=false") != std::string::npos) {
        c.report(Effect::supply_chain, "stops checking where packages come from", setting);
      }
    }
  }
}

// The first operand, skipping options and the values of those that take one.
struct Verb {
  std::string name;
  std::vector<Word> rest;  // operands after it
};
Verb verb_of(const std::vector<Word>& words, std::string_view value_options) {
  Verb verb;
  bool ended = false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& text = words[i].text;
    if (!ended && text == "--") {
      ended = true;
      continue;
    }
    if (!ended && text.size() > 1 && text[0] == '-') {
      if (text.find('=') == std::string::npos && (" " + std::string(value_options) + " ").find(" " + text + " ") != std::string::npos) ++i;
      continue;
    }
    if (verb.name.empty()) verb.name = text;
    else verb.rest.push_back(words[i]);
  }
  return verb;
}

void packages(Context& c, const std::vector<Word>& names) {
  for (const auto& name : names) package(c, name);
}

void requirements(Context& c, const std::vector<Word>& words) {
  for (std::size_t i = 1; i + 1 < words.size(); ++i)
    if (words[i].text == "-r" || words[i].text == "--requirement" || words[i].text == "-c" || words[i].text == "--constraint") {
      const Word& file = words[i + 1];
      if (looks_like_url(file.text)) {
        c.report(Effect::supply_chain, "takes the list of packages from " + host_of(file.text), host_of(file.text));
        continue;
      }
      c.read(file);
      const auto path = c.path_of(file);
      const std::string* text = nullptr;
      if (const auto known = c.run.script.written.find(path); known != c.run.script.written.end()) text = &known->second;
      else if (const auto earlier = c.run.action.written_files.find(path); earlier != c.run.action.written_files.end())
        text = &earlier->second;
      if (text && (text->find("://") != std::string::npos || text->find("--index") != std::string::npos ||
                   text->find("--extra") != std::string::npos))
        c.report(Effect::supply_chain, "installs from addresses that " + path + " names", path);
    }
}

void pip(Context& c) {
  static const std::string values =
      "-r --requirement -c --constraint -e --editable -t --target --prefix --root -i --index-url --extra-index-url -f --find-links "
      "--trusted-host --python --index --default-index --proxy --cert --timeout --retries --log --cache-dir --platform --python-version "
      "--only-binary --no-binary --src "
      "-p -d --dest --format --exclude --with --from -n --name -C --config-settings --upgrade-strategy --progress-bar --report --group "
      "--directory --project -w --wheel-dir";
  std::vector<Word> words = c.words;
  if (c.program == "uv" && words.size() > 1 && words[1].text == "pip") words.erase(words.begin() + 1);
  const Verb verb = verb_of(words, values);
  sources(c, words);
  const std::string& v = verb.name;
  if (v == "install" || v == "add" || v == "wheel" || v == "download" || v == "inject" || v == "sync" || v == "upgrade" ||
      (v == "tool" && !verb.rest.empty())) {
    requirements(c, words);
    std::vector<Word> names = verb.rest;
    if (v == "tool" && !names.empty()) {
      const std::string sub = names.front().text;
      names.erase(names.begin());
      if (sub == "run") {
        if (!names.empty()) {
          package(c, names.front());
          names.erase(names.begin());
        }
        return c.report(Effect::execute, "runs a tool of the registry");
      }
    }
    for (std::size_t i = 1; i + 1 < words.size(); ++i) {
      if (words[i].text == "-e" || words[i].text == "--editable") package(c, words[i + 1]);
      if (words[i].text == "-t" || words[i].text == "--target" || words[i].text == "--prefix" || words[i].text == "--root")
        c.create(words[i + 1]);
    }
    packages(c, names);
    return c.report(Effect::install, "installs packages");
  }
  if (v == "uninstall" || v == "remove") return c.report(Effect::remove, "removes packages");
  if (v == "config") {
    if (!verb.rest.empty() && verb.rest.front().text == "set") return c.report(Effect::supply_chain, "changes where packages come from");
    return c.report(Effect::list, "reads settings");
  }
  if (v == "publish" || v == "upload") return c.report(Effect::supply_chain, "publishes a package");
  if (v == "run" || v == "shell") {
    if (v == "run") {
      for (std::size_t i = 1; i < words.size(); ++i)
        if (words[i].text == "--with" && i + 1 < words.size()) package(c, words[i + 1]);
      for (std::size_t i = 1; i < words.size(); ++i)
        if (words[i].text == "run") {
          std::vector<Word> inner(words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
          while (!inner.empty() && starts_with(inner.front().text, "-")) {
            const bool takes = (" " + values + " ").find(" " + inner.front().text + " ") != std::string::npos &&
                               inner.front().text.find('=') == std::string::npos;
            inner.erase(inner.begin());
            if (takes && !inner.empty()) inner.erase(inner.begin());
          }
          if (inner.empty()) break;
          if (inner.front().text.ends_with(".py")) return c.run_file(inner.front(), "python");
          return c.command_words(std::move(inner), c.program);
        }
    }
    return c.report(Effect::execute, "runs in the project's environment");
  }
  if (v == "source" || v == "repositories") return c.report(Effect::supply_chain, "changes where packages come from");
  if (v == "list" || v == "show" || v == "freeze" || v == "check" || v == "search" || v == "index" || v == "inspect" || v == "debug" ||
      v == "help" || v == "cache" || v == "tree" || v == "info" || v == "env" || v.empty())
    return c.report(Effect::list, "tells about packages");
  c.report(Effect::execute, c.program + " " + v);
  for (const auto& word : verb.rest) c.scan(word);
}

void twine(Context& c) {
  const Verb verb = verb_of(c.words, "-r --repository --repository-url -u -p");
  if (verb.name == "check") return c.report(Effect::list, "checks a package");
  c.report(Effect::supply_chain, "publishes a package");
}

void easy_install(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (c.words[i].text[0] != '-') package(c, c.words[i]);
  sources(c, c.words);
  c.report(Effect::install, "installs packages");
}

void npm_script(Context& c, std::string_view name) {
  // A package.json that was written before says what the script is.
  const std::string path = canonical_path("package.json", c.where(), c.command.folder);
  const std::string* text = nullptr;
  if (const auto known = c.run.script.written.find(path); known != c.run.script.written.end()) text = &known->second;
  else if (const auto earlier = c.run.action.written_files.find(path); earlier != c.run.action.written_files.end()) text = &earlier->second;
  if (!text) return;
  for (const std::string& key : {std::string(name), "pre" + std::string(name), "post" + std::string(name)}) {
    const auto at = text->find("\"" + key + "\"");
    if (at == std::string::npos) continue;
    const auto colon = text->find(':', at + key.size() + 2);
    const auto quote = colon == std::string::npos ? colon : text->find('"', colon);
    if (quote == std::string::npos) continue;
    std::string script;
    for (std::size_t i = quote + 1; i < text->size() && (*text)[i] != '"'; ++i) {
      if ((*text)[i] == '\\' && i + 1 < text->size()) {
        ++i;
        script += (*text)[i] == 'n' ? '\n' : (*text)[i] == 't' ? '\t' : (*text)[i];
      } else {
        script += (*text)[i];
      }
    }
    c.shell(plain(script), "npm run");
  }
}

void npm(Context& c) {
  static const std::string values =
      "--registry --prefix -C --cwd --dir -w --workspace --filter -F --tag --access --otp --loglevel -c --call -p --package --node-options "
      "--userconfig --cache --omit --include";
  const Verb verb = verb_of(c.words, values);
  const std::string& v = verb.name;
  sources(c, c.words);
  const auto option = [&c](std::string_view a, std::string_view b) -> const Word* {
    for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
      if (c.words[i].text == a || c.words[i].text == b) return &c.words[i + 1];
    return nullptr;
  };
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (starts_with(c.words[i].text, "--script-shell")) c.report(Effect::remote_code, "runs scripts with another shell", c.words[i].text);
  if (v == "install" || v == "i" || v == "add" || v == "ci" || v == "in" || v == "isntall" || v == "update" || v == "upgrade" ||
      v == "up" || v == "global" || v == "install-test" || v == "it" || v == "dedupe" || v == "rebuild" || v == "link" || v == "ln" ||
      v == "import" || (v.empty() && c.program == "yarn")) {
    std::vector<Word> names = verb.rest;
    if (v == "global" && !names.empty()) names.erase(names.begin());
    packages(c, names);
    npm_script(c, "install");
    npm_script(c, "prepare");
    return c.report(Effect::install, "installs packages");
  }
  if (v == "uninstall" || v == "remove" || v == "rm" || v == "un" || v == "unlink" || v == "prune" || v == "r")
    return c.report(Effect::remove, "removes packages");
  if (v == "publish" || v == "unpublish" || v == "deprecate" || v == "owner" || v == "dist-tag" || v == "access" || v == "adduser" ||
      v == "login" || v == "logout" || v == "token" || v == "profile" || v == "org" || v == "team" || v == "hook" || v == "star") {
    if (v == "token" || v == "login" || v == "adduser" || v == "logout" || v == "profile" || v == "star" || v == "hook")
      return c.report(v == "star" ? Effect::change : Effect::credential_access, "handles the registry's tokens");
    if (v == "publish" && std::any_of(c.words.begin(), c.words.end(), [](const Word& w) { return w.text == "--dry-run"; }))
      return c.report(Effect::list, "tells what it would publish");
    if (v == "access" || v == "dist-tag" || v == "owner" || v == "team" || v == "org")
      if (!verb.rest.empty() && (verb.rest[0].text == "ls" || verb.rest[0].text == "list" || verb.rest[0].text == "get"))
        return c.report(Effect::list, "asks the registry");
    return c.report(Effect::supply_chain, "npm " + v + " changes what others install");
  }
  if (v == "config" || v == "set" || v == "c" || v == "get") {
    const bool sets =
        v == "set" ||
        (!verb.rest.empty() && (verb.rest.front().text == "set" || verb.rest.front().text == "delete" || verb.rest.front().text == "edit"));
    if (!sets) {
      for (const auto& word : verb.rest)
        if (names_secret(word.text)) return c.report(Effect::credential_access, "reads the registry's token", word.text);
      return c.report(Effect::list, "reads settings");
    }
    std::string all;
    for (const auto& word : verb.rest) all += lower_case(word.text) + " ";
    for (const std::string_view name : {"registry", "proxy", "strict-ssl", "cafile", "_auth", "script-shell", "npmregistryserver",
                                        "init-module", "node-options", "git ", "shell ", "ca ", "prefix"})
      if (all.find(name) != std::string::npos) {
        const auto url = all.find("://");
        if (name == "registry" && url != std::string::npos &&
            is_usual_source(host_of(all.substr(all.rfind(' ', url) == std::string::npos ? 0 : all.rfind(' ', url) + 1)), c.where()))
          break;
        if (name == "prefix") return c.report(Effect::change, "changes settings");
        return c.report(Effect::supply_chain, "changes where packages come from or what they run");
      }
    return c.report(Effect::change, "changes settings");
  }
  if (v == "exec" || v == "x" || v == "dlx" || v == "create" || v == "init" || v == "innit") {
    if (const Word* call = option("-c", "--call")) c.shell(*call, "npm exec");
    if (const Word* from = option("-p", "--package")) package(c, *from);
    if (!verb.rest.empty()) {
      if (v == "create" || v == "init" || v == "innit") {
        package(c, verb.rest.front());
      } else {
        std::vector<Word> inner = verb.rest;
        if (is_shell(program_name(inner.front().text)) || find_handler(program_name(inner.front().text)))
          return c.command_words(std::move(inner), "npm exec");
        package(c, inner.front());
        for (std::size_t i = 1; i < inner.size(); ++i) c.scan(inner[i]);
      }
    }
    return c.report(Effect::execute, "runs a program of a package");
  }
  if (v == "run" || v == "run-script" || v == "rum" || v == "urn" || v == "test" || v == "t" || v == "tst" || v == "start" || v == "stop" ||
      v == "restart") {
    std::string script = v == "t" || v == "tst" ? "test" : v;
    if (v == "run" || v == "run-script" || v == "rum" || v == "urn") script = verb.rest.empty() ? "" : verb.rest.front().text;
    npm_script(c, script);
    return c.report(Effect::execute, "runs the project's script " + script, script);
  }
  if (v == "cache" || v == "store") return c.report(Effect::change, "tidies the cache");
  static const std::unordered_set<std::string_view> looks{
      "ls",   "list",   "ll",   "la",    "outdated", "audit",    "view",    "info", "show", "v",      "search",
      "s",    "se",     "find", "why",   "explain",  "help",     "version", "root", "bin",  "doctor", "fund",
      "ping", "whoami", "pack", "query", "sbom",     "licenses", "docs",    "home", "repo", "bugs",   ""};
  if (looks.contains(v)) return c.report(v == "pack" ? Effect::write : Effect::list, "tells about packages");
  // yarn and pnpm run scripts by their bare name.
  npm_script(c, v);
  c.report(Effect::execute, "runs the project's script " + v, v);
  for (const auto& word : verb.rest) c.scan(word);
}

void npx(Context& c) {
  std::vector<Word> inner;
  const Word* from = nullptr;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const std::string& text = c.words[i].text;
    if (!inner.empty()) {
      inner.push_back(c.words[i]);
    } else if ((text == "-p" || text == "--package" || text == "--from" || text == "--with" || text == "--python") &&
               i + 1 < c.words.size()) {
      from = &c.words[++i];
      package(c, *from);
    } else if ((text == "-c" || text == "--call") && i + 1 < c.words.size()) {
      c.shell(c.words[++i], "npx");
    } else if (starts_with(text, "--package=") || starts_with(text, "--from=")) {
      package(c, part_of(c.words[i], text.find('=') + 1));
    } else if (text[0] != '-') {
      inner.push_back(c.words[i]);
    }
  }
  sources(c, c.words);
  if (!inner.empty()) {
    const std::string name = program_name(inner.front().text);
    if (is_shell(name) || (find_handler(name) && name != "http")) return c.command_words(std::move(inner), "npx");
    if (!from) package(c, inner.front());
    for (std::size_t i = 1; i < inner.size(); ++i) c.scan(inner[i]);
  }
  c.report(Effect::execute, "runs a program of a package" + (inner.empty() ? std::string{} : ": " + inner.front().text),
           inner.empty() ? std::string{} : inner.front().text);
}

// apt, dnf, apk, pacman and the other managers of a whole system.
void system_packages(Context& c) {
  static const std::string values =
      "-t --target-release -c --config-file -o --option --installroot --root -r -R --repo --repository -X --dbpath --releasever "
      "--enablerepo --disablerepo --setopt --classic_ --channel -b";
  const Verb verb = verb_of(c.words, values);
  const std::string& v = verb.name;
  sources(c, c.words);
  for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
    if ((c.words[i].text == "-c" || c.words[i].text == "--config-file" || c.words[i].text == "--config") && c.program != "apk")
      c.report(Effect::supply_chain, "takes the package manager's settings from " + c.words[i + 1].text, c.words[i + 1].text);
  const std::string& first_option = c.words.size() > 1 ? c.words[1].text : v;
  if (c.program == "pacman" || c.program == "yay" || c.program == "paru") {
    const bool sync = std::any_of(c.words.begin() + 1, c.words.end(), [](const Word& w) {
      return (w.text.size() > 1 && w.text[0] == '-' && w.text[1] != '-' && w.text.find('S') != std::string::npos) || w.text == "--sync";
    });
    const bool upgrade =
        std::any_of(c.words.begin() + 1, c.words.end(), [](const Word& w) { return starts_with(w.text, "-U") || w.text == "--upgrade"; });
    const bool removes =
        std::any_of(c.words.begin() + 1, c.words.end(), [](const Word& w) { return starts_with(w.text, "-R") || w.text == "--remove"; });
    std::vector<Word> names = verb.rest;
    if (!v.empty()) names.insert(names.begin(), plain(v));
    if (upgrade) {
      for (const auto& name : names)
        c.report(Effect::supply_chain, "installs a package file instead of a package of the repositories", name.text, name.exact);
      return;
    }
    if (removes) return c.report(Effect::process_control, "removes packages from the system");
    if (sync) {
      if (first_option.find('s') != std::string::npos || first_option.find('i') != std::string::npos)
        return c.report(Effect::list, "tells about packages");
      packages(c, names);
      return c.report(Effect::install, "installs packages");
    }
    return c.report(Effect::list, "tells about packages");
  }
  if (v == "install" || v == "add" || v == "in" || v == "reinstall" || v == "localinstall" || v == "groupinstall" || v == "refresh" ||
      v == "upgrade" || v == "update" || v == "dist-upgrade" || v == "full-upgrade" || v == "distro-sync" || v == "build-dep" ||
      v == "source" || v == "download" || v == "up" || v == "swap" || v == "module" || v == "bundle" || v == "dup") {
    if (v == "download" || v == "source") return c.report(Effect::fetch, "downloads packages");
    packages(c, verb.rest);
    return c.report(Effect::install, v == "update" ? "updates the list of packages" : "installs packages");
  }
  if (v == "remove" || v == "purge" || v == "autoremove" || v == "erase" || v == "del" || v == "uninstall" || v == "rm" || v == "unlink" ||
      v == "revert" || v == "disable") {
    if (c.program == "brew" || v == "autoremove") return c.report(Effect::remove, "removes packages");
    return c.report(Effect::process_control, "removes packages from the system");
  }
  if (v == "config-manager" || v == "edit-sources" || v == "tap" || v == "addrepo" || v == "ar" || v == "modifyrepo" || v == "removerepo" ||
      v == "rr" || v == "repo" || v == "remote-add" || v == "connect" || v == "alias" || v == "key" || v == "mark_" || v == "pin-add" ||
      v == "untap" || v == "remote-modify" || v == "cask_") {
    if (v == "tap" && (verb.rest.empty() || starts_with(verb.rest.front().text, "homebrew/")))
      return c.report(Effect::list, "lists sources of packages");
    return c.report(Effect::supply_chain, "changes where packages come from");
  }
  if (v == "changelog" || v == "list" || v == "search" || v == "show" || v == "info" || v == "policy" || v == "check" || v == "depends" ||
      v == "rdepends" || v == "provides" || v == "whatprovides" || v == "repolist" || v == "history" || v == "help" || v == "version" ||
      v == "find" || v == "deps" || v == "outdated" || v == "doctor" || v == "config" || v == "home" || v == "leaves" || v == "uses" ||
      v == "desc" || v == "repos" || v == "lr" || v == "se" || v == "if" || v == "madison" || v == "stats" || v == "indextargets" ||
      v.empty() || v == "services" || v == "connections" || v == "interfaces" || v == "changes" || v == "--prefix" || v == "log")
    return c.report(Effect::list, "tells about packages");
  if (v == "clean" || v == "autoclean" || v == "cleanup" || v == "cache" || v == "makecache" || v == "mark" || v == "hold" ||
      v == "unhold" || v == "pin" || v == "link" || v == "switch" || v == "refresh_")
    return c.report(Effect::change, "tidies packages");
  if (v == "run") return c.report(Effect::execute, "runs a packaged program");
  if (v == "exec" && !verb.rest.empty()) return c.command_words(verb.rest, c.program);
  c.report(Effect::execute, c.program + " " + v);
  for (const auto& word : verb.rest) c.scan(word);
}

void package_files(Context& c) {  // dpkg, rpm
  static const Grammar rpm(
      "-i,--install -U,--upgrade -F,--freshen -e,--erase -q,--query -V,--verify -a -l,--list -p -f -K,--checksig --import=k --eval,-E=l "
      "--define,-D=_ --pipe=X --initdb --rebuilddb --nodeps --force -h -v --root=? --dbpath=? --nosignature --setperms --setugids "
      "--restore");
  static const Grammar dpkg(
      "-i,--install -r,--remove -P,--purge -l,--list -L,--listfiles -S,--search -s,--status -c,--contents -I,--info -x,--extract -X -e "
      "-b,--build --configure --unpack --print-architecture --get-selections --set-selections --clear-selections --add-architecture=_ "
      "--remove-architecture=_ --root=? --admindir=? "
      "--pre-invoke=X --post-invoke=X --status-logger=X -R,--recursive -a --force-all --force-depends --compare-versions --audit -C "
      "--verify -V -p,--print-avail -W,--show -f,--showformat=_");
  const bool is_rpm = starts_with(c.program, "rpm");
  const auto args = parse_arguments(c.words, 1, is_rpm ? rpm : dpkg);
  for (const auto& option : args.options) {
    if (!option.has_value || !option.spec) continue;
    const char role = static_cast<char>(option.spec->role);
    if (role == 'k') c.report(Effect::supply_chain, "trusts another key for packages", option.value.text);
    else if (role == 'l') {
      if (option.value.text.find("%(") != std::string::npos || option.value.text.find("lua") != std::string::npos) {
        c.report(Effect::privilege_escalation, "runs a macro that runs commands", option.value.text);
        const auto at = option.value.text.find("%(");
        if (at != std::string::npos) c.shell(part_of(option.value, at + 2, option.value.text.rfind(')') - at - 2), "rpm");
      }
    } else if (option.value.text.find("://") == std::string::npos) c.apply(option.spec->role, option.value);
  }
  const bool installs = is_rpm ? (args.any({"U", "F"}) || (args.has("i") && !args.has("q"))) : args.any({"i", "unpack"});
  const bool removes = is_rpm ? args.has("e") : args.any({"r", "P", "clear-selections", "set-selections"});
  if (installs) {
    for (const auto& operand : args.operands)
      c.report(Effect::supply_chain, "installs the package file " + operand.text + "; install a package by name", operand.text,
               operand.exact);
    return;
  }
  if (removes) return c.report(Effect::process_control, "removes packages from the system");
  if (!is_rpm && args.any({"x", "X", "b"}) && args.operands.size() > 1) c.write(args.operands[1]);
  c.report(Effect::list, "tells about packages");
}

void sources_tool(Context& c) {
  if (c.program == "apt-key" && c.words.size() > 1 &&
      (c.words[1].text == "list" || c.words[1].text == "finger" || c.words[1].text == "export"))
    return c.report(Effect::list, "lists keys");
  if ((c.program == "trust" && c.words.size() > 1 && c.words[1].text == "list") ||
      (c.program == "pacman-key" && c.words.size() > 1 && starts_with(c.words[1].text, "--list")))
    return c.report(Effect::list, "lists keys");
  c.report(Effect::supply_chain, "changes where packages come from or whom they are trusted from");
}

void conda(Context& c) {
  const Verb verb = verb_of(c.words, "-n --name -p --prefix -c --channel -f --file");
  const std::string& v = verb.name;
  for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
    if ((c.words[i].text == "-c" || c.words[i].text == "--channel") && c.words[i + 1].text.find("://") != std::string::npos &&
        !is_usual_source(host_of(c.words[i + 1].text), c.where()))
      c.report(Effect::supply_chain, "takes packages from " + host_of(c.words[i + 1].text), c.words[i + 1].text);
  sources(c, c.words);
  if (v == "run") {
    std::vector<Word> inner;
    bool skipping = true;
    for (std::size_t i = 2; i < c.words.size(); ++i) {
      if (skipping && c.words[i].text[0] == '-') {
        if (c.words[i].text == "-n" || c.words[i].text == "-p" || c.words[i].text == "--name" || c.words[i].text == "--prefix" ||
            c.words[i].text == "--cwd")
          ++i;
        continue;
      }
      skipping = false;
      inner.push_back(c.words[i]);
    }
    return c.command_words(std::move(inner), "conda run");
  }
  if (v == "install" || v == "create" || v == "update" || v == "upgrade" || v == "env") {
    if (v != "env") packages(c, verb.rest);
    if (v == "env" && !verb.rest.empty() && verb.rest.front().text == "remove") return c.report(Effect::remove, "removes an environment");
    return c.report(Effect::install, "installs packages");
  }
  if (v == "remove" || v == "uninstall" || v == "clean") return c.report(Effect::remove, "removes packages");
  if (v == "config") {
    for (const auto& word : c.words)
      if (word.text == "--add" || word.text == "--set" || word.text == "--prepend" || word.text == "--append") {
        for (const auto& value : c.words)
          if (value.text.find("://") != std::string::npos || value.text == "ssl_verify")
            return c.report(Effect::supply_chain, "changes where packages come from", value.text);
        return c.report(Effect::change, "changes settings");
      }
  }
  c.report(Effect::list, "tells about packages");
}

// Language managers with the same few verbs: cargo, gem, go, composer, …
void language_packages(Context& c) {
  static const std::string values =
      "--git --path --registry --index --version -v --features --target -j --manifest-path -o -p --package --bin --example -i "
      "--install-dir --source -s -C -f --ldflags -ldflags -run -tags -mod --toolchain --branch --tag --rev --root -C --working-dir -d "
      "--config -Z --test --profile --exec";
  const Verb verb = verb_of(c.words, values);
  const std::string& v = verb.name;
  sources(c, c.words);
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const std::string& text = c.words[i].text;
    const auto value = [&] {
      return text.find('=') != std::string::npos ? part_of(c.words[i], text.find('=') + 1)
             : i + 1 < c.words.size()            ? c.words[i + 1]
                                                 : plain("");
    };
    if ((text == "--git" || starts_with(text, "--git=")) && c.program != "bundle") {
      const Word url = value();
      if (!is_trusted(host_of(url.text), c.where()))
        c.report(Effect::supply_chain, "installs from " + host_of(url.text) + " instead of the registry", url.text, url.exact);
    } else if (text == "--config" && c.program == "cargo") {
      const Word setting = value();
      for (const std::string_view name : {"runner", "rustc", "linker", "wrapper", "registry", "source", "credential"})
        if (setting.text.find(name) != std::string::npos)
          c.report(Effect::remote_code, "makes cargo run or trust something else", setting.text);
    } else if (text == "-exec" || starts_with(text, "-exec=") || starts_with(text, "-toolexec=") || text == "-toolexec" ||
               text == "-vettool" || starts_with(text, "-vettool=")) {
      if (c.program == "go") {
        c.report(Effect::remote_code, "makes go run " + value().text, value().text);
        c.shell(value(), "go");
      }
    }
  }
  if (v == "install" || v == "add" || v == "get" || v == "require" || v == "update" || v == "i" || v == "fetch" || v == "create-project" ||
      v == "global" || v == "deps.get" || v == "pub" || v == "mod" || v == "upgrade" || v == "binstall" || v == "bundle") {
    if (c.program == "go" && v == "mod") return c.report(Effect::install, "resolves modules");
    for (const auto& name : verb.rest) {
      if (c.program == "go" || c.program == "composer") {  // names of modules hold hosts or vendors
        if (starts_with(name.text, "http") || name.text.find("://") != std::string::npos) package(c, name);
        else c.report(Effect::install, "installs " + name.text, name.text, name.exact);
      } else if (c.program == "gem" && name.text.ends_with(".gem")) {
        package(c, name);
      } else {
        package(c, name);
      }
    }
    return c.report(Effect::install, "installs packages");
  }
  if (c.program == "dotnet" && v == "publish") return c.report(Effect::execute, "builds for distribution");
  if (v == "publish" || v == "push" || v == "yank" || v == "owner" || v == "login" || v == "signin" || v == "release" || v == "deploy" ||
      v == "unyank" || v == "upload") {
    if (v == "publish" &&
        std::any_of(c.words.begin(), c.words.end(), [](const Word& w) { return w.text == "--dry-run" || w.text == "-n"; }))
      return c.report(Effect::list, "tells what it would publish");
    return c.report(Effect::supply_chain, "publishes a package or changes who may");
  }
  if (v == "sources" || v == "config" || v == "source") {
    for (const auto& word : c.words)
      if (word.text == "-a" || word.text == "--add" || word.text.find("://") != std::string::npos || word.text == "-u" ||
          starts_with(word.text, "repositories") || word.text == "disable-tls" || word.text == "secure-http")
        return c.report(Effect::supply_chain, "changes where packages come from");
    return c.report(Effect::list, "reads settings");
  }
  if (v == "exec" || (v == "run" && c.program == "bundle")) {
    std::vector<Word> inner;
    bool found = false;
    for (std::size_t i = 1; i < c.words.size(); ++i) {
      if (found) inner.push_back(c.words[i]);
      if (!found && c.words[i].text == v) found = true;
    }
    while (!inner.empty() && inner.front().text == "--") inner.erase(inner.begin());
    if (!inner.empty()) return c.command_words(std::move(inner), c.program);
  }
  if (v == "run" && c.program == "go") {
    for (const auto& name : verb.rest) {
      if (name.text.find('@') != std::string::npos) c.report(Effect::install, "fetches " + name.text, name.text);
      else if (name.text.ends_with(".go")) {
        c.run_file(name, "go");
        break;
      }
    }
  }
  if (v == "clean" || v == "uninstall" || v == "remove" || v == "cleanup")
    return c.report(Effect::remove, "removes what was built or installed");
  if (v == "list" || v == "search" || v == "info" || v == "tree" || v == "show" || v == "env" || v == "version" || v == "help" ||
      v == "doc" || v == "metadata" || v == "outdated" || v == "audit" || v == "vet" || v == "check" || v.empty()) {
    if (v == "env" && c.program == "go" && std::any_of(c.words.begin(), c.words.end(), [](const Word& w) { return w.text == "-w"; })) {
      for (const auto& word : c.words)
        if (starts_with(word.text, "GOPROXY") || starts_with(word.text, "GOSUMDB") || starts_with(word.text, "GONOSUM") ||
            starts_with(word.text, "GOINSECURE") || starts_with(word.text, "GOFLAGS") || starts_with(word.text, "CC="))
          return c.report(Effect::supply_chain, "changes where modules come from", word.text);
      return c.report(Effect::change, "changes settings");
    }
    return c.report(v == "vet" || v == "check" ? Effect::execute : Effect::list, c.program + " " + v);
  }
  c.report(Effect::execute, c.program + " " + v);
  for (const auto& word : verb.rest) c.scan(word);
}

void cpan(Context& c) {
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (c.words[i].text[0] != '-') package(c, c.words[i]);
  c.report(Effect::install, "installs packages");
}

constexpr auto programs = std::to_array<Named>({
    {"pip", pip},
    {"pipx", pip},
    {"uv", pip},
    {"poetry", pip},
    {"pipenv", pip},
    {"pdm", pip},
    {"rye", pip},
    {"hatch", pip},
    {"twine", twine},
    {"flit", twine},
    {"easy_install", easy_install},
    {"ensurepip", easy_install},
    {"npm", npm},
    {"pnpm", npm},
    {"yarn", npm},
    {"cnpm", npm},
    {"npx", npx},
    {"pnpx", npx},
    {"bunx", npx},
    {"uvx", npx},
    {"apt", system_packages},
    {"apt-get", system_packages},
    {"aptitude", system_packages},
    {"nala", system_packages},
    {"yum", system_packages},
    {"dnf", system_packages},
    {"dnf5", system_packages},
    {"microdnf", system_packages},
    {"zypper", system_packages},
    {"apk", system_packages},
    {"pacman", system_packages},
    {"yay", system_packages},
    {"paru", system_packages},
    {"snap", system_packages},
    {"flatpak", system_packages},
    {"brew", system_packages},
    {"port", system_packages},
    {"emerge", cpan},
    {"nix-env", cpan},
    {"opkg", system_packages},
    {"pkg", system_packages},
    {"xbps-install", cpan},
    {"slackpkg", system_packages},
    {"winget", system_packages},
    {"choco", system_packages},
    {"scoop", system_packages},
    {"dpkg", package_files},
    {"rpm", package_files},
    {"apt-key", sources_tool},
    {"add-apt-repository", sources_tool},
    {"apt-add-repository", sources_tool},
    {"rpmkeys", sources_tool},
    {"yum-config-manager", sources_tool},
    {"update-ca-certificates", sources_tool},
    {"update-ca-trust", sources_tool},
    {"trust", sources_tool},
    {"pacman-key", sources_tool},
    {"conda", conda},
    {"mamba", conda},
    {"micromamba", conda},
    {"cargo", language_packages},
    {"gem", language_packages},
    {"bundle", language_packages},
    {"bundler", language_packages},
    {"go", language_packages},
    {"composer", language_packages},
    {"luarocks", language_packages},
    {"dotnet", language_packages},
    {"nuget", language_packages},
    {"rustup", language_packages},
    {"cpan", cpan},
    {"cpanm", cpan},
    {"asdf", language_packages},
    {"mise", language_packages},
    {"nvm", language_packages},
    {"pod", language_packages},
    {"mix_", language_packages},
});

}  // namespace

std::span<const Named> package_programs() { return programs; }

}  // namespace hearth::safety
