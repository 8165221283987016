// git, its relatives, and the forges' own programs.
#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

bool is_forge(std::string_view host) {
  for (const std::string_view name : {"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "ssh.github.com",
                                      "dev.azure.com", "ssh.dev.azure.com", "gitea.com", "sourceforge.net"})
    if (host == name) return true;
  return false;
}
std::string host_of_remote(std::string_view text) {
  if (looks_like_url(text)) return host_of(text);
  return host_of(text.substr(0, text.find(':')));
}
bool is_repository_address(std::string_view text) {
  return looks_like_url(text) || (is_remote_path(text) && text.find('@') != std::string_view::npos) || starts_with(text, "ext::");
}

// A setting that makes git run something; true when it is one.
bool setting(Context& c, std::string_view name, const Word& value, bool stays) {
  const std::string key = lower_case(name);
  const auto ends = [&key](std::string_view end) { return key.size() > end.size() && key.ends_with(end); };
  const bool command =
      key == "core.pager" || key == "core.editor" || key == "core.sshcommand" || key == "core.askpass" || key == "core.gitproxy" ||
      key == "sequence.editor" || starts_with(key, "pager.") || key == "diff.external" || key == "gpg.program" || ends(".program") ||
      ends(".textconv") || (starts_with(key, "diff.") && ends(".command")) ||
      (starts_with(key, "filter.") && (ends(".clean") || ends(".smudge") || ends(".process"))) ||
      (starts_with(key, "merge.") && ends(".driver")) || ends("tool.cmd") ||
      ((starts_with(key, "mergetool.") || starts_with(key, "difftool.") || starts_with(key, "man.") || starts_with(key, "browser.")) &&
       (ends(".cmd") || ends(".path"))) ||
      key == "uploadpack.packobjectshook" || ends(".receivepack") || ends(".uploadpack") ||
      (starts_with(key, "trailer.") && (ends(".command") || ends(".cmd"))) || key == "interactive.difffilter" ||
      key == "sendemail.sendmailcmd" || key == "gc.recentobjectshook" || ends(".proxycommand");
  if (starts_with(key, "alias.")) {
    if (starts_with(value.text, "!")) {
      if (stays) c.report(Effect::persistence, "makes a git alias run a command", value.text, value.exact);
      c.shell(part_of(value, 1), "git alias");
    }
    return true;
  }
  if (key == "core.hookspath" || key == "init.templatedir" || key == "core.attributesfile_" || key == "include.path" ||
      starts_with(key, "includeif.")) {
    if (value.text == "/dev/null") return true;
    // husky and its kind keep hooks in the repository.
    if (key == "core.hookspath" && (value.text == ".husky" || value.text == ".githooks" || value.text == ".husky/_"))
      c.report(Effect::persistence, "makes git run hooks of " + value.text, value.text, value.exact);
    else c.report(Effect::persistence, "makes git run hooks or settings from " + value.text, value.text, value.exact);
    return true;
  }
  if (key == "core.fsmonitor") {
    if (value.text == "true" || value.text == "false") return true;
    c.report(Effect::persistence, "makes git run " + value.text, value.text, value.exact);
    return true;
  }
  if (key == "credential.helper" || (starts_with(key, "credential.") && ends(".helper"))) {
    if (starts_with(value.text, "cache") || value.text == "manager" || value.text == "osxkeychain" || value.text == "libsecret" ||
        value.text.empty())
      return true;
    c.report(Effect::credential_access, "gives git passwords to " + value.text, value.text, value.exact);
    if (starts_with(value.text, "!")) c.shell(part_of(value, 1), "git credential helper");
    return true;
  }
  if (key == "http.proxy" || key == "https.proxy" || ends(".insteadof") || ends(".pushinsteadof") || ends(".pushurl")) {
    c.report(Effect::supply_chain, "leads git to another address: " + value.text, value.text, value.exact);
    return true;
  }
  if (key == "http.sslverify" && (value.text == "false" || value.text == "0")) {
    c.report(Effect::supply_chain, "stops checking whom git talks to", value.text);
    return true;
  }
  if (starts_with(key, "protocol.") && value.text == "always") {
    c.report(Effect::remote_code, "lets an address run commands", value.text);
    return true;
  }
  if (command) {
    static const std::unordered_set<std::string> harmless{
        "cat",           "less", "more", "vim", "vi",   "nano", "emacs",   "nvim",    "true",      ":",           "delta", "bat",
        "diff-so-fancy", "code", "ssh",  "gpg", "gpg2", "meld", "less -R", "less -F", "less -FRX", "code --wait", "false", "hx"};
    if (harmless.contains(value.text)) return true;
    if (stays && program_name(value.text.substr(0, value.text.find(' '))) != "ssh" && !starts_with(value.text, "git-lfs"))
      c.report(Effect::persistence, "makes git run " + value.text, value.text, value.exact);
    Word text = value;
    if (starts_with(text.text, "!")) text.text.erase(0, 1);
    c.shell(text, "git");
    return true;
  }
  return false;
}

// A branch or path that someone may lose work in.
void discard(Context& c, std::string what) { c.report(Effect::history_destruction, std::move(what)); }

void git(Context& c) {
  static const Grammar global(
      "-C=? -c=c --config-env=c --exec-path?=e --git-dir=? --work-tree=? --namespace=_ -p,--paginate -P,--no-pager --bare "
      "--no-replace-objects --literal-pathspecs --list-cmds=_ --attr-source=_ --super-prefix=_");
  const auto head = parse_arguments(c.words, 1, global, Order::posix);
  for (const auto& option : head.options) {
    if (option.name == "c" && option.has_value) {
      const auto equals = option.value.text.find('=');
      if (equals != std::string::npos) setting(c, option.value.text.substr(0, equals), part_of(option.value, equals + 1), false);
    } else if (option.name == "exec-path" && option.has_value) {
      c.report(Effect::remote_code, "takes git's own programs from " + option.value.text, option.value.text);
    }
  }
  if (head.operands.empty()) return c.report(Effect::compute, "git tells about itself");
  const std::string verb = head.operands.front().text;
  if (c.program == "hub" && verb == "delete") return discard(c, "hub delete deletes a repository for everybody");
  if (!head.operands.front().exact) return c.report(Effect::unknown, "which git command runs cannot be told before it runs", {}, false);
  const std::vector<Word>& words = head.operands;
  const auto parse = [&words](const Grammar& grammar) { return parse_arguments(words, 1, grammar); };
  const std::size_t before = c.run.out.observations.size();

  if (verb == "push") {
    static const Grammar grammar(
        "-f,--force --force-with-lease?=_ --force-if-includes -d,--delete --mirror --prune --all --branches --tags --follow-tags "
        "-u,--set-upstream -n,--dry-run -o,--push-option=_ --receive-pack,--exec=X --repo=? --atomic -q -v --no-verify "
        "--thin --signed?=_ --recurse-submodules?=_ --progress -4 -6");
    const auto args = parse(grammar);
    c.apply_options(args);
    if (args.has("n")) return c.report(Effect::list, "tells what it would push");
    for (const std::string_view name : {"f", "force-with-lease", "d", "mirror", "prune"})
      if (args.has(name))
        discard(c, "git push " + std::string(name.size() > 1 ? "--" : "-") + std::string(name) +
                       " rewrites or deletes what others may have; push without it");
    for (std::size_t i = 1; i < args.operands.size(); ++i) {
      const auto& ref = args.operands[i].text;
      if (starts_with(ref, "+")) discard(c, "git push +REF rewrites what others may have; push without the plus sign");
      if (starts_with(ref, ":") && ref.size() > 1) discard(c, "git push :REF deletes a branch or tag of the remote");
    }
    const Word target = args.operands.empty() ? plain("") : args.operands.front();
    if (is_repository_address(target.text) || (args.value("repo") && is_repository_address(args.value("repo")->text)) ||
        c.run.remotes.contains(target.text)) {
      const std::string host = is_repository_address(target.text) ? host_of_remote(target.text) : std::string("a remote added just before");
      if (is_loopback(host) || is_trusted(host, c.where())) c.report(Effect::send, "pushes to " + host, host);
      else c.report(Effect::exfiltration, "pushes to " + host + " instead of a configured remote", host, target.exact);
    } else if (!target.text.empty() && (target.text[0] == '/' || target.text[0] == '.' || target.text[0] == '~')) {
      c.write(target);
    }
    c.report(Effect::change, "pushes to " + (target.text.empty() ? std::string("its remote") : target.text), target.text);
  } else if (verb == "reset") {
    static const Grammar grammar("--hard --soft --mixed --merge --keep -q -N -p,--patch --pathspec-from-file=R");
    const auto args = parse(grammar);
    if (args.any({"hard", "merge", "keep"}))
      discard(c, "git reset --hard discards changes that were never committed; git stash keeps them");
    c.report(Effect::change, "moves the branch or unstages");
  } else if (verb == "clean") {
    static const Grammar grammar("-f,--force -d -n,--dry-run -x -X -i,--interactive -q -e,--exclude=_");
    const auto args = parse(grammar);
    if (args.has("n") || !args.has("f")) return c.report(Effect::list, "tells what it would delete");
    discard(c, "git clean -f deletes files that were never committed; git clean -n shows them");
  } else if (verb == "checkout") {
    static const Grammar grammar(
        "-f,--force -b=_ -B=_ --orphan=_ --ours --theirs -m,--merge -p,--patch -t,--track?=_ --detach -q --guess -l --conflict=_ "
        "--pathspec-from-file=R --no-track --recurse-submodules --overwrite-ignore");
    const auto args = parse(grammar);
    const bool dashes = std::any_of(words.begin(), words.end(), [](const Word& w) { return w.text == "--"; });
    if (args.any({"f", "B"})) discard(c, "git checkout --force discards changes that were never committed");
    else if (dashes && args.operands.size() > (args.after) && !args.has("p"))
      discard(c, "git checkout -- FILE discards changes that were never committed");
    else if (args.has("pathspec-from-file")) discard(c, "git checkout of files discards changes that were never committed");
    else if (!args.any({"b", "orphan", "ours", "theirs", "p"})) {
      for (std::size_t i = 0; i < args.operands.size(); ++i) {
        const auto& text = args.operands[i].text;
        if (text == "." || text == "*" || starts_with(text, "./") || starts_with(text, ":/") || starts_with(text, "../") ||
            (i > 0 && !args.any({"b", "t"}))) {
          discard(c, "git checkout of files discards changes that were never committed");
          break;
        }
      }
    }
    c.report(Effect::change, "checks out " + (args.operands.empty() ? std::string("a branch") : args.operands.front().text));
  } else if (verb == "switch") {
    static const Grammar grammar(
        "-f,--force --discard-changes -c,--create=_ -C,--force-create=_ -d,--detach -m,--merge --orphan=_ -t,--track -q --guess");
    const auto args = parse(grammar);
    if (args.any({"f", "discard-changes", "C"})) discard(c, "git switch --force discards changes that were never committed");
    c.report(Effect::change, "switches branches");
  } else if (verb == "restore") {
    static const Grammar grammar("-S,--staged -W,--worktree -s,--source=_ -p,--patch -q --ours --theirs -m,--merge --pathspec-from-file=R");
    const auto args = parse(grammar);
    if ((!args.has("S") || args.has("W")) && !args.any({"p", "ours", "theirs"}))
      discard(c, "git restore discards changes that were never committed; --staged only unstages");
    c.report(Effect::change, "restores or unstages");
  } else if (verb == "stash") {
    const std::string sub = words.size() > 1 ? words[1].text : "push";
    if (sub == "drop" || sub == "clear") discard(c, "git stash " + sub + " deletes stashed changes");
    c.report(sub == "list" || sub == "show" ? Effect::list : Effect::change, "git stash " + sub);
  } else if (verb == "branch") {
    static const Grammar grammar(
        "-D -d,--delete -f,--force -M -m,--move -c,--copy -C -a,--all -r,--remotes -v -q -l,--list -t,--track?=_ -u,--set-upstream-to=_ "
        "--unset-upstream --merged?=_ --no-merged?=_ --contains?=_ --sort=_ --format=_ --points-at=_ "
        "--show-current --edit-description --column?=_ --color?=_");
    const auto args = parse(grammar);
    if (args.any({"D", "M", "C"}) || args.has("f"))
      discard(c, "git branch " + std::string(args.has("D") ? "-D" : "--force") +
                     " drops commits that may be on no other branch; -d refuses then");
    c.report(args.has("d") || !args.operands.empty() ? Effect::change : Effect::list, "branches");
  } else if (verb == "tag") {
    static const Grammar grammar(
        "-d,--delete -f,--force -a -s -m=_ -F=R -l,--list?=_ -n?=_ -u=_ -v --sort=_ --contains=_ --merged=_ --points-at=_ --format=_");
    const auto args = parse(grammar);
    if (args.any({"d", "f"})) discard(c, "git tag " + std::string(args.has("d") ? "-d" : "-f") + " deletes or moves a tag");
    c.report(args.operands.empty() ? Effect::list : Effect::change, "tags");
  } else if (verb == "filter-branch" || verb == "filter-repo" || verb == "replace" || verb == "fast-import" || verb == "bfg") {
    discard(c, "git " + verb + " rewrites history");
    for (std::size_t i = 1; i + 1 < words.size(); ++i)
      if (words[i].text.ends_with("-filter") || words[i].text.ends_with("-callback")) c.shell(words[i + 1], "git");
  } else if (verb == "reflog") {
    const std::string sub = words.size() > 1 ? words[1].text : "show";
    if (sub == "expire" || sub == "delete") discard(c, "git reflog " + sub + " removes what lost commits are found by");
    c.report(Effect::list, "git reflog");
  } else if (verb == "gc" || verb == "prune" || verb == "repack" || verb == "maintenance") {
    static const Grammar grammar(
        "--prune?=_ --aggressive --auto -q --force --expire=_ -n,--dry-run -v -a -d -A -f -F -l --cruft --no-prune --keep-largest-pack");
    const auto args = parse(grammar);
    if (verb == "maintenance" && !args.operands.empty() &&
        (args.operands.front().text == "start" || args.operands.front().text == "register"))
      c.report(Effect::persistence, "makes git run later by itself");
    const Word* when = args.value("prune");
    if ((when && when->text != "never") || (verb == "prune" && !args.has("n")))
      discard(c, "git " + verb + " deletes commits that no branch holds");
    c.report(Effect::change, "tidies the repository");
  } else if (verb == "update-ref" || verb == "symbolic-ref") {
    static const Grammar grammar("-d,--delete -m=_ --stdin -z --no-deref -q --short");
    const auto args = parse(grammar);
    if (args.any({"d", "stdin"}) || (verb == "update-ref" && args.operands.size() > 1))
      discard(c, "git update-ref moves or deletes a branch without any check");
    c.report(Effect::change, "changes a reference");
  } else if (verb == "rebase") {
    static const Grammar grammar(
        "-i,--interactive -x,--exec=X --onto=_ -r --rebase-merges?=_ --root --abort --continue --skip --quit --autosquash --autostash -m "
        "-s,--strategy=_ -X=_ -q -v -f --edit-todo --keep-base --signoff --update-refs");
    const auto args = parse(grammar);
    c.apply_options(args);
    c.report(Effect::change, "replays commits");
  } else if (verb == "worktree" || verb == "submodule") {
    const std::string sub = words.size() > 1 ? words[1].text : "list";
    const bool force = std::any_of(words.begin(), words.end(), [](const Word& w) { return w.text == "--force" || w.text == "-f"; });
    if ((sub == "remove" || sub == "deinit") && force)
      discard(c, "git " + verb + " " + sub + " --force discards changes that were never committed");
    if (sub == "foreach" && words.size() > 2) {
      Word text;
      for (std::size_t i = 2; i < words.size(); ++i)
        if (i > 2 || words[i].text[0] != '-') {
          text.text += (text.text.empty() ? "" : " ") + words[i].text;
          text.exact = text.exact && words[i].exact;
        }
      c.shell(text, "git submodule foreach");
    }
    if (sub == "add" && verb == "submodule")
      for (const auto& word : words)
        if (is_repository_address(word.text)) c.fetch(word);
    if (sub == "add" && verb == "worktree" && words.size() > 2)
      for (std::size_t i = 2; i < words.size(); ++i)
        if (words[i].text[0] != '-') {
          c.create(words[i]);
          break;
        }
    c.report(Effect::change, "git " + verb + " " + sub);
  } else if (verb == "remote") {
    const std::string sub = words.size() > 1 ? words[1].text : "-v";
    if (sub == "set-url" || sub == "add") {
      for (std::size_t i = 2; i < words.size(); ++i) {
        if (!is_repository_address(words[i].text) && words[i].exact) continue;
        const std::string host = host_of_remote(words[i].text);
        const bool usual = is_forge(host) || is_loopback(host) || is_trusted(host, c.where());
        if (sub == "add" && !usual && i > 2) c.run.remotes.insert(words[i - 1].text);
        if (starts_with(words[i].text, "ext::")) c.shell(part_of(words[i], 5), "git remote");
        if (sub == "set-url" && !usual)
          c.report(Effect::supply_chain, "changes where code is pulled from and pushed to: " + host, host, words[i].exact);
      }
    }
    c.report(sub == "add" || sub == "set-url" || sub == "remove" || sub == "rm" || sub == "rename" || sub == "prune" ? Effect::change
                                                                                                                     : Effect::list,
             "git remote " + sub);
  } else if (verb == "config") {
    static const Grammar grammar(
        "--global --system --local --worktree -f,--file=W --blob=_ --get --get-all --get-regexp --get-urlmatch --get-color=_ -l,--list "
        "--unset --unset-all --add --replace-all --type=_ --bool --int --path -z,--null --name-only --show-origin "
        "--show-scope -e,--edit --rename-section --remove-section --default=_ --includes --fixed-value --value=_ --all");
    const auto args = parse(grammar);
    std::vector<Word> operands = args.operands;
    if (!operands.empty() && (operands.front().text == "set" || operands.front().text == "get" || operands.front().text == "list" ||
                              operands.front().text == "unset")) {
      const std::string sub = operands.front().text;
      operands.erase(operands.begin());
      if (sub != "set") return c.report(Effect::list, "reads git's settings");
    }
    if (args.any({"get", "get-all", "get-regexp", "l", "get-urlmatch"}) ||
        (operands.size() < 2 && !args.any({"unset", "unset-all", "remove-section", "e"}))) {
      c.output.local = true;
      return c.report(Effect::list, "reads git's settings");
    }
    if (const Word* file = args.value("f")) c.write(*file);
    if (operands.size() >= 2) {
      setting(c, operands[0].text, operands[1], true);
      if (args.has("system")) c.report(Effect::privilege_escalation, "changes git's settings for everybody", operands[0].text);
    }
    c.report(Effect::change, "changes git's settings");
  } else if (verb == "credential" || starts_with(verb, "credential-")) {
    c.report(Effect::credential_access, "asks git for passwords");
    c.output.secret = true;
  } else if (verb == "clone" || verb == "fetch" || verb == "pull" || verb == "ls-remote" || verb == "archive" || verb == "init") {
    static const Grammar grammar(
        "-u,--upload-pack,--exec=X -c,--config=c --template=t -o,--origin,--output=o -b,--branch,--initial-branch=_ --depth=_ "
        "--reference=_ --separate-git-dir=W -j=_ --shallow-since=_ --filter=_ --recurse-submodules?=_ --recursive -q -v -n -s -l "
        "--bare --mirror --single-branch --no-tags --sparse -f,--force -a,--all -p,--prune -t,--tags --rebase?=_ -r --ff-only --no-ff "
        "--no-rebase -k --remote=u --format=_ --prefix=_ --add-file=R -X,--strategy-option=_ --heads --refs --shared?=_ "
        "--server-option=_ --deepen=_ --unshallow -m --set-upstream --dry-run");
    const auto args = parse(grammar);
    for (const auto& option : args.options) {
      if (!option.has_value || !option.spec) continue;
      const char role = static_cast<char>(option.spec->role);
      if (role == 'X') {
        c.report(Effect::remote_code, "runs a program of the caller's choice for git", option.value.text, option.value.exact);
        c.shell(option.value, "git");
      } else if (role == 'c') {
        const auto equals = option.value.text.find('=');
        if (equals != std::string::npos && verb == "clone")
          setting(c, option.value.text.substr(0, equals), part_of(option.value, equals + 1), true);
      } else if (role == 't') {
        if (!option.value.text.empty()) c.report(Effect::persistence, "takes hooks from a template", option.value.text);
      } else if (role == 'o') {
        if (verb == "archive") c.write(option.value);
      } else {
        c.apply(option.spec->role, option.value);
      }
    }
    if (verb == "clone" && !args.operands.empty()) {
      const Word& source = args.operands.front();
      if (is_repository_address(source.text) || begins_unknown(source)) c.fetch(source);
      else c.read_tree(source);
      Word folder;
      if (args.operands.size() > 1) {
        folder = args.operands[1];
        c.create(folder);
      } else {
        std::string base = source.text.substr(source.text.find_last_of("/:") == std::string::npos ? 0 : source.text.find_last_of("/:") + 1);
        if (base.ends_with(".git")) base.resize(base.size() - 4);
        folder = plain(base);
      }
      if (is_repository_address(source.text)) c.run.files[c.path_of(folder)].network = true;
      c.report(Effect::write, "clones a repository");
    } else {
      for (const auto& operand : args.operands)
        if (is_repository_address(operand.text)) c.fetch(operand);
      if (verb == "init") {
        for (const auto& operand : args.operands) c.create(operand);
        c.report(Effect::write, "makes a repository");
      } else {
        c.report(verb == "archive" ? Effect::read : Effect::fetch, "git " + verb);
      }
    }
    c.output.network = false;
  } else if (verb == "rm") {
    static const Grammar grammar("-r -f,--force -n,--dry-run --cached -q --ignore-unmatch --pathspec-from-file=R");
    const auto args = parse(grammar);
    if (args.any({"n"})) return c.report(Effect::list, "tells what it would delete");
    for (const auto& operand : args.operands) {
      if (args.has("cached")) continue;
      if (operand.text == "." || operand.text == "*" || operand.text == "./") discard(c, "git rm deletes everything");
      else c.remove(operand, args.has("r"));
    }
    c.report(Effect::change, "takes files out of version control");
  } else if (verb == "bisect") {
    if (words.size() > 2 && words[1].text == "run") c.command_words({words.begin() + 2, words.end()}, "git bisect");
    c.report(Effect::change, "git bisect");
  } else if (verb == "grep") {
    static const Grammar grammar("-O,--open-files-in-pager?=X -e=_ -f=R");
    c.apply_options(parse(grammar));
    c.report(Effect::read, "searches the repository");
  } else if (verb == "difftool" || verb == "mergetool") {
    static const Grammar grammar("-x,--extcmd=X -t,--tool=_ -y -d -g");
    c.apply_options(parse(grammar));
    c.report(Effect::execute, "opens a tool");
  } else if (verb == "send-email" || verb == "imap-send" || verb == "request-pull") {
    static const Grammar grammar("--to=_ --sendmail-cmd=X --smtp-server=X --cc=_");
    c.apply_options(parse(grammar));
    c.report(verb == "request-pull" ? Effect::read : Effect::exfiltration, "mails commits");
  } else if (verb == "daemon" || verb == "instaweb" || verb == "http-backend" || verb == "serve") {
    c.report(Effect::exfiltration, "offers the repository to the network");
  } else if (verb == "lfs" || verb == "annex") {
    c.report(Effect::change, "git " + verb);
  } else if (verb == "svn" || verb == "p4") {
    c.report(Effect::change, "git " + verb);
  } else {
    static const std::unordered_set<std::string_view> looks{
        "status",       "log",           "diff",        "show",       "blame",         "ls-files",     "ls-tree",
        "rev-parse",    "rev-list",      "describe",    "shortlog",   "cat-file",      "name-rev",     "merge-base",
        "for-each-ref", "show-ref",      "whatchanged", "cherry",     "count-objects", "fsck",         "var",
        "help",         "version",       "diff-tree",   "diff-index", "diff-files",    "check-ignore", "check-attr",
        "show-branch",  "verify-commit", "verify-tag",  "range-diff", "annotate",      "--version",    "--help",
        "hash-object",  "patch-id",      "column",      "stripspace", "merge-tree",    "ls",           "st",
        "rev"};
    static const std::unordered_set<std::string_view> writes{
        "add",       "commit",    "merge",        "cherry-pick", "revert",         "mv",
        "am",        "apply",     "format-patch", "notes",       "bundle",         "sparse-checkout",
        "pack-refs", "read-tree", "write-tree",   "commit-tree", "update-index",   "checkout-index",
        "stage",     "rerere",    "pack-objects", "mktree",      "unpack-objects", "hook",
        "citool",    "gui",       "gitk",         "flow"};
    static const Grammar grammar(
        "-o,--output,--output-directory=W -m,--message=_ -F,--file=R -S?=_ -C=_ --author=_ --date=_ -G=_ --grep=_ --format=_ --pretty=_ "
        "--since=_ --until=_ --after=_ --before=_ -n=_ -L=_ -U=_ --ext-diff --textconv -c=_ -X=_ -s=_ --fixup=_ --cleanup=_ --trailer=_");
    if (looks.contains(verb)) {
      const auto args = parse(grammar);
      c.apply_options(args);
      for (const auto& operand : args.operands) c.scan(operand);
      c.report(Effect::list, "git " + verb);
      c.output.local = verb == "diff" || verb == "show" || verb == "cat-file" || verb == "log" || verb == "blame" || verb == "ls-files" ||
                       verb == "status";
      if (verb == "cat-file" || verb == "show") c.report(Effect::read, "reads the repository");
    } else if (writes.contains(verb)) {
      const auto args = parse(grammar);
      if (verb != "commit" && verb != "merge" && verb != "notes") c.apply_options(args);
      else if (const Word* file = args.value("F")) c.read(*file);
      if (verb == "add")
        for (const auto& operand : args.operands) c.scan(operand);
      c.report(Effect::change, "git " + verb);
    } else {
      c.report(Effect::execute, "runs git " + verb, verb);
      for (std::size_t i = 1; i < words.size(); ++i) c.scan(words[i]);
    }
  }
  (void)before;
}

void mercurial(Context& c) {
  std::string verb;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    if (c.words[i].text == "--config" && i + 1 < c.words.size()) {
      const auto& value = c.words[++i].text;
      const auto equals = value.find('=');
      if (equals != std::string::npos &&
          (starts_with(value, "alias.") || starts_with(value, "hooks.") || starts_with(value, "extensions.") ||
           starts_with(value, "ui.ssh") || starts_with(value, "pager."))) {
        if (starts_with(value, "extensions.")) c.report(Effect::remote_code, "loads an extension", value);
        else c.shell(part_of(c.words[i], value.find_first_not_of('!', equals + 1)), "hg");
      }
      continue;
    }
    if (c.words[i].text[0] != '-' && verb.empty()) verb = c.words[i].text;
  }
  const auto has = [&c](std::string_view option) {
    return std::any_of(c.words.begin(), c.words.end(), [option](const Word& w) { return w.text == option; });
  };
  if (verb == "strip" || verb == "purge" || verb == "rollback" || (verb == "update" && (has("-C") || has("--clean"))) ||
      (verb == "up" && has("-C")) || verb == "revert" || (verb == "push" && (has("-f") || has("--force"))) || verb == "obliterate" ||
      verb == "uncommit" || (verb == "bookmark" && has("-d")))
    discard(c, c.program + " " + verb + " discards or rewrites history or changes");
  if (c.program == "svn" && (verb == "delete" || verb == "rm" || verb == "del" || verb == "remove"))
    for (const auto& word : c.words)
      if (looks_like_url(word.text)) discard(c, "svn delete of an address deletes it for everybody");
  if (c.program == "svnadmin" || c.program == "svndumpfilter") discard(c, c.program + " changes a repository's insides");
  for (const auto& word : c.words)
    if (looks_like_url(word.text)) c.fetch(word);
  c.report(Effect::change, c.program + " " + verb);
}

void forge(Context& c) {
  std::vector<std::string> verbs;
  std::vector<Word> operands;
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    if (!c.words[i].text.empty() && c.words[i].text[0] == '-') continue;
    if (verbs.size() < 3) verbs.push_back(c.words[i].text);
    operands.push_back(c.words[i]);
  }
  const std::string noun = verbs.empty() ? "" : verbs[0], verb = verbs.size() > 1 ? verbs[1] : "";
  const auto has = [&c](std::string_view a, std::string_view b = {}) {
    return std::any_of(c.words.begin(), c.words.end(), [a, b](const Word& w) { return w.text == a || (!b.empty() && w.text == b); });
  };
  if (noun == "auth" && (verb == "token" || (verb == "status" && has("-t", "--show-token")))) {
    c.output.secret = true;
    return c.report(Effect::credential_access, "prints the token of the forge");
  }
  if (noun == "config" && verb == "get" && verbs.size() > 2 && names_secret(verbs[2]))
    return c.report(Effect::credential_access, "prints the token of the forge");
  if ((noun == "repo" || noun == "project" || noun == "release" || noun == "codespace" || noun == "cs" || noun == "gist" ||
       noun == "org") &&
      (verb == "delete" || verb == "archive" || verb == "rename"))
    return discard(c, c.program + " " + noun + " " + verb + " deletes or closes it for everybody");
  if (noun == "repo" && (verb == "edit" || verb == "create") && (has("--visibility=public") || has("public") || has("--public")))
    return c.report(Effect::exfiltration, "makes a repository public");
  if (noun == "gist" && verb == "create") return c.report(Effect::exfiltration, "publishes files as a gist");
  if (noun == "release" && verb == "upload") return c.report(Effect::supply_chain, "publishes files of a release");
  if ((noun == "release" && verb == "create")) return c.report(Effect::supply_chain, "publishes a release");
  if ((noun == "ssh-key" || noun == "gpg-key" || noun == "deploy-key") || (noun == "repo" && verb == "deploy-key"))
    return c.report(verb == "list" ? Effect::list : Effect::persistence, "changes which keys may log in");
  if (noun == "extension" && (verb == "install" || verb == "upgrade")) return c.report(Effect::supply_chain, "installs an extension");
  if (noun == "alias" && verb == "set") {
    if (operands.size() > 3 && starts_with(operands[3].text, "!")) c.shell(part_of(operands[3], 1), "gh alias");
    return c.report(Effect::change, "names a command");
  }
  if (noun == "secret" || noun == "variable")
    return c.report(verb == "list" || verb == "ls" ? Effect::list
                    : verb == "delete"             ? Effect::filesystem_destruction
                                                   : Effect::change,
                    "changes secrets of a repository");
  if (noun == "api") {
    const bool deletes = has("DELETE");
    const bool input = std::any_of(c.words.begin(), c.words.end(), [](const Word& w) { return starts_with(w.text, "--input"); });
    if (deletes) return discard(c, "deletes through the forge's API");
    if (input) return c.report(Effect::exfiltration, "sends a file to the forge");
    return c.report(has("POST") || has("PATCH") || has("PUT") || has("-f", "-F") ? Effect::change : Effect::query, "asks the forge's API");
  }
  // A text for everybody who may see the repository: issue, comment, description.
  for (std::size_t i = 1; i + 1 < c.words.size(); ++i) {
    const std::string& option = c.words[i].text;
    const Word& value = c.words[i + 1];
    if (option == "-F" || option == "--body-file" || option == "--notes-file") {
      if (value.text == "-") c.send_flow(c.input, "the forge", "as a text");
      else if (is_dangerous(site_of(c.path_of(value), c.where()).on_read) || names_secret(value.text)) c.send_file(value, "the forge");
    } else if ((option == "-b" || option == "--body" || option == "-m" || option == "--message") && !value.exact) {
      c.send_word(value, "the forge", "as a text");
    }
  }
  static const std::unordered_set<std::string_view> looks{"list", "view",   "status", "diff",   "checks",
                                                          "ls",   "browse", "watch",  "search", "show"};
  c.report(looks.contains(verb) || looks.contains(noun) ? Effect::query : Effect::change, c.program + " " + noun + " " + verb);
  for (const auto& operand : operands) c.scan(operand);
}

constexpr auto programs = std::to_array<Named>({{"git", git},
                                                {"hub", git},
                                                {"hg", mercurial},
                                                {"svn", mercurial},
                                                {"svnadmin", mercurial},
                                                {"bzr", mercurial},
                                                {"fossil", mercurial},
                                                {"darcs", mercurial},
                                                {"jj", mercurial},
                                                {"gh", forge},
                                                {"glab", forge},
                                                {"tea", forge}});

}  // namespace

std::span<const Named> version_control_programs() { return programs; }

}  // namespace hearth::safety
