// The machine itself: services, processes, disks, the network; and the operand shapes of the table.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

bool says(const Context& c, std::string_view word) {
  return std::any_of(c.words.begin() + 1, c.words.end(), [word](const Word& w) { return w.text == word; });
}
std::string operand(const Arguments& arguments, std::size_t i) {
  return i < arguments.operands.size() ? arguments.operands[i].text : std::string{};
}

void systemctl(Context& c) {
  static const Grammar grammar(
      "--user --system -H,--host=_ -M=_ -t,--type=_ --state=_ -p,--property=_ -a,--all -l,--full -n,--lines=_ -o,--output=_ --now "
      "-f,--force -q --no-pager --no-block --runtime -s,--signal=_ --kill-whom=_ --root=? --preset-mode=_ --job-mode=_ --no-legend "
      "--failed");
  const auto args = parse_arguments(c.words, 1, grammar);
  const std::string verb = operand(args, 0), unit = operand(args, 1);
  static const std::unordered_set<std::string> looks{"",
                                                     "status",
                                                     "list-units",
                                                     "list-unit-files",
                                                     "show",
                                                     "cat",
                                                     "is-active",
                                                     "is-enabled",
                                                     "is-failed",
                                                     "list-timers",
                                                     "list-sockets",
                                                     "list-dependencies",
                                                     "help",
                                                     "get-default",
                                                     "show-environment",
                                                     "list-jobs",
                                                     "is-system-running",
                                                     "list-machines",
                                                     "--version"};
  if (looks.contains(verb)) return c.report(Effect::list, "asks about services", unit);
  if (verb == "enable" || verb == "reenable" || verb == "link" || verb == "edit" || verb == "preset" || verb == "add-wants" ||
      verb == "add-requires" || verb == "set-default" || verb == "revert" || verb == "set-environment" || verb == "import-environment" ||
      verb == "set-property") {
    c.report(Effect::persistence,
             "systemctl " + verb + " makes " + (unit.empty() ? std::string("a service") : unit) + " start by itself or changes it", unit);
    if (verb == "link" || verb == "enable")
      if (args.operands.size() > 1 && args.operands[1].text.find('/') != std::string::npos) c.read(args.operands[1]);
    return;
  }
  if (verb == "start" || verb == "daemon-reload" || verb == "unmask" || verb == "reset-failed" || verb == "reload") {
    if (unit == "rescue" || unit == "emergency" || starts_with(unit, "rescue.") || starts_with(unit, "poweroff") ||
        starts_with(unit, "reboot") || starts_with(unit, "halt"))
      return c.report(Effect::process_control, "changes the state of the whole machine", unit);
    return c.report(Effect::change, "systemctl " + verb, unit);
  }
  c.report(Effect::process_control, "systemctl " + verb + " stops or changes " + (unit.empty() ? std::string("the machine") : unit), unit);
}

void dbus_reach(Context& c) {
  std::string all;
  for (const auto& word : c.words) all += lower_case(word.text) + " ";
  if (all.find("unixexec:") != std::string::npos) return c.report(Effect::remote_code, "starts a program through D-Bus");
  for (const std::string_view name : {"poweroff", "reboot", "startunit", "stopunit", "killunit", "enableunit", "hibernate", "suspend",
                                      "setpassword", "createuser", "deleteuser", "starttransientunit"})
    if (all.find(name) != std::string::npos)
      return c.report(name == "enableunit" || name == "starttransientunit" ? Effect::persistence : Effect::process_control,
                      "controls the machine through D-Bus");
  c.report(all.find(" call ") != std::string::npos || starts_with(all, "dbus-send") || starts_with(all, "gdbus call") ? Effect::change
                                                                                                                      : Effect::list,
           "talks to D-Bus");
}

// The verbs of cloud programs: the last words that are no names.
void cloud(Context& c) {
  std::vector<std::string> verbs;
  for (std::size_t i = 1; i < c.words.size() && verbs.size() < 6; ++i)
    if (!c.words[i].text.empty() && c.words[i].text[0] != '-') verbs.push_back(lower_case(c.words[i].text));
  const auto has = [&verbs](std::string_view verb) { return std::find(verbs.begin(), verbs.end(), verb) != verbs.end(); };
  const auto begins = [&verbs](std::initializer_list<std::string_view> names) {
    return std::any_of(verbs.begin(), verbs.end(), [&](const std::string& verb) {
      return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
        return verb == name || (starts_with(verb, std::string(name) + "-") || starts_with(verb, std::string(name) + ":"));
      });
    });
  };
  std::string all;
  for (const auto& verb : verbs) all += (all.empty() ? "" : " ") + verb;
  const std::string& program = c.program;
  if (verbs.empty() || has("help") || verbs.front() == "version" || verbs.front() == "--version")
    return c.report(Effect::compute, program + " tells about itself");
  // Files that go up or come down.
  if ((program == "aws" && verbs.front() == "s3") || program == "gsutil" || program == "s3cmd" || program == "s5cmd" ||
      program == "azcopy" || (program == "gcloud" && verbs.front() == "storage") || program == "b2" || program == "minio" ||
      (program == "az" && verbs.front() == "storage")) {
    std::vector<Word> paths;
    static const Grammar grammar(
        "--profile=_ --region=_ --endpoint-url=_ --acl=_ --exclude=_ --include=_ --storage-class=_ --content-type=_ -f,--file=S "
        "-n,--name=_ -c,--container-name=_ --account-name=_ -d=_ -s,--source=S --destination=_ -m -r --recursive --delete --force "
        "--cache-control=_ --metadata=_ --sse=_ -q --quiet --dryrun --expires-in=_");
    const auto args = parse_arguments(c.words, 1, grammar);
    const bool sends = has("cp") || has("mv") || has("sync") || has("put") || has("rsync") || has("upload") || has("upload-batch") ||
                       has("copy") || has("upload-file") || has("upload_file");
    for (const auto& word : args.operands) paths.push_back(word);
    const auto remote = [](const Word& word) {
      return starts_with(word.text, "s3://") || starts_with(word.text, "gs://") || starts_with(word.text, "b2://") ||
             starts_with(word.text, "https://") || starts_with(word.text, "az://");
    };
    if (has("rm") || has("rb") || has("del") || has("delete") || has("delete-batch") || has("remove") || has("delete-bucket") ||
        has("delete_file_version"))
      return c.report(Effect::filesystem_destruction, "deletes stored files or buckets: " + all, all);
    if (sends && paths.size() >= 2) {
      const Word& target = paths.back();
      bool some = false;
      for (std::size_t i = 0; i + 1 < paths.size(); ++i) {
        if (remote(paths[i])) continue;
        const auto& text = paths[i].text;
        if (text.find('/') == std::string::npos && text.find('.') == std::string::npos && text != "-" && i < 2 && !begins_unknown(paths[i]))
          continue;  // a verb
        some = true;
        if (remote(target)) {
          c.read_tree(paths[i]);
          c.send_file(paths[i], target.text);
        }
      }
      if (remote(target) && !some && paths.size() > 2 && !remote(paths[paths.size() - 2])) {
        c.send_file(paths[paths.size() - 2], target.text);
        some = true;
      }
      if (!remote(target)) {
        c.fetched_into(target);
        c.report(Effect::fetch, "copies from a store", all);
      }
      if (std::any_of(c.words.begin(), c.words.end(),
                      [](const Word& w) { return w.text == "--delete" || w.text == "-d" || w.text == "--delete-removed"; }) &&
          (has("sync") || has("rsync")))
        c.report(Effect::filesystem_destruction, "deletes what its source does not hold");
      return c.report(Effect::change, program + " " + all);
    }
    if (has("download") || has("download-batch")) {
      if (const Word* file = args.value("f")) c.fetched_into(*file);
      return c.report(Effect::fetch, "copies from a store", all);
    }
    c.apply_options(args);
    if (sends) return c.report(Effect::exfiltration, "sends files to a store", all);
    if (has("presign") || has("signurl") || has("make_bucket_public"))
      return c.report(Effect::exfiltration, "makes a stored file public", all);
    if (has("acl") || has("iam") || has("setacl") || has("website"))
      return c.report(Effect::privilege_escalation, "changes who may read stored files", all);
    return c.report(has("ls") || has("list") || has("du") || has("stat") || has("cat") ? Effect::query : Effect::change,
                    program + " " + all);
  }
  // Secrets.
  static const std::array<std::string_view, 37> secrets{"get-secret-value",
                                                        "batch-get-secret-value",
                                                        "get-session-token",
                                                        "assume-role",
                                                        "assume-role-with-web-identity",
                                                        "get-federation-token",
                                                        "get-login-password",
                                                        "get-login",
                                                        "get-authorization-token",
                                                        "create-access-key",
                                                        "create-login-profile",
                                                        "get-password-data",
                                                        "get-parameters-by-path",
                                                        "export-credentials",
                                                        "print-access-token",
                                                        "print-identity-token",
                                                        "get-access-token",
                                                        "get-credentials",
                                                        "list-keys",
                                                        "list-credentials",
                                                        "auth:token",
                                                        "reset-credentials",
                                                        "get-api-key",
                                                        "get-kubeconfig",
                                                        "show-connection-string",
                                                        "get-login-url",
                                                        "create-service-account-key",
                                                        "access-token",
                                                        "get-ssh-key",
                                                        "config:get",
                                                        "get-api-keys",
                                                        "versions_access",
                                                        "update-kubeconfig_",
                                                        "decrypt",
                                                        "generate-data-key",
                                                        "reveal",
                                                        "list-api-keys"};
  for (const auto& verb : verbs)
    if (std::find(secrets.begin(), secrets.end(), verb) != secrets.end()) {
      c.output.secret = true;
      return c.report(Effect::credential_access, "asks for credentials: " + all, all);
    }
  if ((has("secrets") || has("secret") || has("keyvault") || has("keys")) &&
      (has("access") || has("show") || has("get") || has("list-keys") || has("download") || has("reveal") ||
       (has("create") && has("keys"))) &&
      !has("list")) {
    c.output.secret = true;
    return c.report(Effect::credential_access, "reads secrets: " + all, all);
  }
  if (verbs.front() == "configure" && verbs.size() > 1 && verbs[1] == "get")
    return c.report(names_secret(verbs.back()) ? Effect::credential_access : Effect::list, "reads settings");
  if ((begins({"get-parameter", "get-parameters"})) && says(c, "--with-decryption"))
    return c.report(Effect::credential_access, "reads secrets: " + all, all);
  if (verbs.front() == "config" && says(c, "--show-secrets")) return c.report(Effect::credential_access, "reads secrets");
  // Rights.
  if (has("iam") || has("add-iam-policy-binding") || has("set-iam-policy") || has("role") || has("authorize-security-group-ingress") ||
      begins({"attach-user-policy", "attach-role-policy", "put-user-policy", "put-role-policy", "add-user-to-group",
              "create-policy-version", "update-assume-role-policy", "put-bucket-policy", "put-bucket-acl"})) {
    const bool looks = begins({"list", "get", "describe", "show", "simulate"});
    return c.report(looks ? Effect::query : Effect::privilege_escalation, looks ? program + " " + all : "changes who may do what: " + all,
                    all);
  }
  // Auditing.
  if ((has("cloudtrail") || has("logs") || has("config-service") || has("guardduty") || has("logging")) &&
      begins({"delete", "stop", "disable", "remove"}))
    return c.report(Effect::tampering, "switches off or deletes logs: " + all, all);
  // Databases.
  const bool database = has("rds") || has("dynamodb") || has("sql") || has("cosmosdb") || has("redshift") || has("elasticache") ||
                        has("spanner") || has("bigtable") || has("firestore") || has("documentdb") || has("db") || has("postgres") ||
                        has("pg") || program == "bq" || has("firestore:delete") || program == "prisma" || program == "pscale" ||
                        has("database") || has("d1");
  if (begins({"delete",       "destroy",
              "terminate",    "remove",
              "rm",           "purge",
              "deprovision",  "drop",
              "teardown",     "down",
              "reset",        "erase",
              "unregistervm", "undefine",
              "nuke",         "deregister",
              "batch-delete", "release-address",
              "unregister",   "schedule-key-deletion",
              "empty"}) ||
      has("apps:destroy") || has("pg:reset") || has("projects:delete") || has("firestore:delete")) {
    if (has("cluster") && (program == "kind" || program == "k3d" || program == "minikube"))
      return c.report(Effect::change, "deletes a local cluster");
    if (program == "minikube") return c.report(Effect::change, "deletes a local cluster");
    return c.report(
        database || has("pg:reset") || has("firestore:delete") ? Effect::database_destruction
        : has("volume") || has("disk") || has("snapshot") || has("bucket") ||
                begins({"delete-volume", "delete-snapshot", "delete-bucket", "delete-file-system", "delete-object", "delete-objects"})
            ? Effect::filesystem_destruction
            : Effect::process_control,
        "deletes or ends: " + all, all);
  }
  if (begins({"stop", "shutdown", "reboot", "poweroff", "deallocate", "restart", "suspend", "kill", "disable", "drain", "pause",
              "force-stop", "halt", "detach", "controlvm"})) {
    if (program == "colima" || program == "minikube" || program == "limactl" || program == "multipass" || program == "vagrant" ||
        program == "orb")
      return c.report(Effect::change, program + " " + all);
    return c.report(Effect::process_control, "stops: " + all, all);
  }
  if (has("deploy") || has("publish") || has("release")) return c.report(Effect::change, "deploys", all);
  if ((has("send-command") || has("run-command") || has("invoke") || has("execute-command") || has("start-session") || has("exec") ||
       has("ssh")))
    return c.report(Effect::execute, "runs a command elsewhere: " + all, all);
  if (begins({"describe", "list",    "get",    "show", "ls", "info",  "status",   "logs", "tail",    "whoami", "view",   "search", "query",
              "account",  "version", "config", "env",  "ps", "check", "validate", "diff", "preview", "synth",  "output", "wait"}))
    return c.report(Effect::query, program + " " + all, all);
  c.report(Effect::change, program + " " + all, all);
  for (std::size_t i = 1; i < c.words.size(); ++i) {
    const auto& text = c.words[i].text;
    if (starts_with(text, "file://") || starts_with(text, "fileb://")) c.send_file(part_of(c.words[i], text.find("://") + 3), program);
    else c.scan(c.words[i]);
  }
}

// A command of vim: ":!ls", ":w file", ":call system('…')".
void editor_command(Context& c, const Word& word) {
  std::string_view text = word.text;
  std::size_t at = 0;
  const auto skip = [&] {
    while (at < text.size() && (text[at] == ':' || text[at] == ' ' || text[at] == '\t')) ++at;
    while (at < text.size() &&
           (text[at] == '%' || text[at] == '.' || text[at] == '$' || text[at] == ',' || (text[at] >= '0' && text[at] <= '9')))
      ++at;
    while (at < text.size() && text[at] == ' ') ++at;
  };
  skip();
  for (int round = 0; round < 32 && at < text.size(); ++round) {
    const auto bar = std::min(text.find('|', at), text.size());
    std::string_view command = text.substr(at, bar - at);
    if (starts_with(command, "!")) return c.shell(part_of(word, at + 1), c.program);
    const auto space = std::min(command.find_first_of(" !"), command.size());
    const std::string verb(command.substr(0, space));
    Word rest = part_of(word, at + std::min(command.find_first_not_of(" !", space), command.size()),
                        bar - at - std::min(command.find_first_not_of(" !", space), command.size()));
    const bool bang = space < command.size() && command[space] == '!';
    if (verb == "r" || verb == "read" || verb == "w" || verb == "write" || verb == "wq" || verb == "x" || verb == "saveas" ||
        verb == "sav" || verb == "e" || verb == "edit") {
      const auto mark = command.find('!');
      const bool runs = mark != std::string_view::npos && command.find_first_not_of(' ', verb.size()) == mark &&
                        (mark > verb.size() || verb == "r" || verb == "read");
      if (runs && mark + 1 < command.size()) return c.shell(part_of(word, at + mark + 1), c.program);
      if (!rest.text.empty()) verb == "r" || verb == "read" || verb == "e" || verb == "edit" ? c.read(rest) : c.write(rest);
    } else if (verb == "sh" || verb == "shell" || verb == "term" || verb == "terminal" || verb == "ter") {
      if (rest.text.empty()) c.report(Effect::privilege_escalation, "opens a shell out of an editor");
      else c.shell(rest, c.program);
    } else if (verb == "py" || verb == "py3" || verb == "python" || verb == "python3" || verb == "pyx") {
      return c.code("python", part_of(word, at + std::min(command.find_first_not_of(" !", space), command.size())), c.program);
    } else if (verb == "lua") {
      return c.code("lua", part_of(word, at + std::min(command.find_first_not_of(" !", space), command.size())), c.program);
    } else if (verb == "perl" || verb == "ruby") {
      return c.code(verb, part_of(word, at + std::min(command.find_first_not_of(" !", space), command.size())), c.program);
    } else if (verb == "so" || verb == "source" || verb == "luafile" || verb == "pyfile") {
      c.run_file(rest, {});
    } else {
      for (const std::string_view call : {"system(", "systemlist(", "termopen(", "jobstart(", "job_start(", "term_start("}) {
        const auto found = text.find(call, at);
        if (found == std::string_view::npos) continue;
        const auto open = text.find_first_of("'\"", found);
        if (open == std::string_view::npos) c.report(Effect::unknown, "runs a command out of an editor", {}, false);
        else c.shell(part_of(word, open + 1, text.find(text[open], open + 1) - open - 1), c.program);
        return;
      }
    }
    (void)bang;
    at = bar + 1;
    skip();
  }
}

void makefile(Context& c, const std::string& text) {
  std::string recipes;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (starts_with(line, "\t")) {
      line.remove_prefix(1);
      while (!line.empty() && (line[0] == '@' || line[0] == '-' || line[0] == '+')) line.remove_prefix(1);
      // $$ is make's dollar sign.
      std::string one;
      for (std::size_t i = 0; i < line.size(); ++i) {
        one += line[i];
        if (line[i] == '$' && i + 1 < line.size() && line[i + 1] == '$') ++i;
      }
      recipes += one + "\n";
    } else if (const auto colon = std::min(line.find(':'), line.size()), inline_recipe = line.find(';', colon);
               inline_recipe != std::string_view::npos && line.substr(0, inline_recipe).find('=') == std::string_view::npos) {
      recipes += std::string(line.substr(inline_recipe + 1)) + "\n";
    } else if (const auto shell = line.find("$(shell "); shell != std::string_view::npos) {
      recipes += std::string(line.substr(shell + 8, line.rfind(')') - shell - 8)) + "\n";
    }
  }
  if (!recipes.empty()) c.shell(plain(recipes), "make");
}

const std::string* known_text(const Context& c, const std::string& path) {
  if (const auto known = c.run.script.written.find(path); known != c.run.script.written.end()) return &known->second;
  if (const auto known = c.run.action.written_files.find(path); known != c.run.action.written_files.end()) return &known->second;
  return nullptr;
}

bool shape(Context& c, std::string_view name, const Arguments& args, std::optional<Effect> effect, const std::string& reason) {
  const auto own = [&](std::string target = {}) {
    c.report(effect.value_or(Effect::change), c.program + " " + (reason.empty() ? std::string("changes the system") : reason),
             std::move(target));
  };
  if (name == "date") {
    for (const auto& word : args.operands)
      if (!word.text.empty() && word.text[0] != '+' && word.text.find_first_not_of("0123456789.") == std::string::npos)
        return c.report(Effect::tampering, "sets the clock"), true;
    c.report(Effect::compute, "tells the time");
    return true;
  }
  if (name == "watch") {
    if (args.operands.empty()) return true;
    Word text;
    for (const auto& word : args.operands) {
      text.text += (text.text.empty() ? "" : " ") + word.text;
      text.exact = text.exact && word.exact;
    }
    c.shell(text, "watch");
    return true;
  }
  if (name == "sevenzip") {
    const std::string verb = operand(args, 0);
    for (std::size_t i = 1; i < args.operands.size(); ++i) {
      const Word& word = args.operands[i];
      if (verb == "a" || verb == "u" || verb == "rn" || verb == "d") i == 1 ? c.write(word) : c.read_tree(word);
      else if (i == 1) c.read(word);
    }
    for (const auto& word : args.operands)
      if (args.operands.size() == 1) c.read(word);
    if (verb == "x" || verb == "e") c.report(Effect::write, "unpacks an archive");
    return true;
  }
  if (name == "fdisk") {
    if (args.any({"l", "d", "s", "x", "verify", "p", "v", "i", "L", "J"})) return c.report(Effect::list, "lists partitions"), true;
    if (args.operands.empty()) return c.report(Effect::list, "tells about itself"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "parted") {
    const bool looks =
        args.has("l") || std::all_of(args.operands.begin() + std::min<std::ptrdiff_t>(1, static_cast<std::ptrdiff_t>(args.operands.size())),
                                     args.operands.end(), [](const Word& w) {
                                       return w.text == "print" || w.text == "unit" || w.text == "free" || w.text == "s" ||
                                              w.text == "GiB" || w.text == "MiB" || w.text == "help" || w.text == "all" || w.text == "quit";
                                     });
    if (looks && (args.has("l") || args.operands.size() > 1)) return c.report(Effect::list, "lists partitions"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "wipefs") {
    const bool erases = args.any({"a", "all", "o", "offset", "f", "t"}) && !args.has("n");
    if (!erases) return c.report(Effect::list, "lists signatures"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "fsck") {
    if (args.any({"n", "N", "l"})) return c.report(Effect::list, "looks at a file system"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "mdadm") {
    if (args.any({"detail", "D", "examine", "E", "query", "Q", "scan"}) &&
        !args.any({"assemble", "A", "create", "C", "stop", "S", "zero-superblock"}))
      return c.report(Effect::list, "looks at a disk array"), true;
    return own(), true;
  }
  if (name == "mount") {
    if (args.operands.empty() && !args.has("a")) return c.report(Effect::list, "lists what is mounted"), true;
    const std::string source = operand(args, 0);
    const Word* options = args.value("o");
    if (options && options->text.find("remount") != std::string::npos)
      return c.report(Effect::privilege_escalation, "mounts again with other rights", operand(args, 0)), true;
    if (starts_with(source, "/dev/"))
      return c.report(Effect::container_escape, "mounts a disk, so that everything on it can be read and changed", source), true;
    if (args.any({"B", "R"}) || (options && options->text.find("bind") != std::string::npos))
      return c.report(Effect::container_escape, "mounts a folder at another place", source), true;
    return c.report(Effect::container_escape, "mounts a file system", source), true;
  }
  if (name == "passwd") {
    if (args.has("S")) return c.report(Effect::list, "tells about a password"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "alternatives") {
    if (args.any({"list", "display", "query"})) return c.report(Effect::list, "lists alternatives"), true;
    return c.report(Effect::persistence, "changes which program a name starts for everybody"), true;
  }
  if (name == "firewall") {
    const bool looks = args.any({"L", "S", "C"}) && !args.any({"F", "A", "I", "D", "P", "X", "Z"});
    const bool listing = says(c, "list") || says(c, "show") || says(c, "status") || says(c, "-s") || says(c, "-sr");
    if (looks || (listing && !says(c, "flush"))) return c.report(Effect::list, "lists rules of the firewall"), true;
    return own(), true;
  }
  if (name == "rarely") {
    const bool looks = args.any({"l", "L", "E", "help", "dump"}) || (args.operands.empty() && args.options.empty()) || says(c, "status") ||
                       says(c, "list") || says(c, "--sb-state") || says(c, "--version") || says(c, "-h") || says(c, "show");
    if (looks) return c.report(Effect::list, "tells about the system"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "flags") {
    const bool changes = std::any_of(args.options.begin(), args.options.end(), [](const auto& o) {
      for (const std::string_view verb :
           {"add", "remove", "set", "change", "new", "delete", "reload", "complete-reload", "panic", "runtime", "load", "direct"})
        if (starts_with(o.name, verb)) return true;
      return false;
    });
    if (!changes) return c.report(Effect::list, "asks the firewall"), true;
    return own(), true;
  }
  if (name == "protection") {
    const bool looks = args.has("l") || says(c, "status") || says(c, "-l") || says(c, "list") || (says(c, "-s") && c.program == "auditctl");
    if (c.program == "setenforce" && (says(c, "1") || says(c, "Enforcing")))
      return c.report(Effect::change, "switches access control on"), true;
    if (looks) return c.report(Effect::list, "asks about access control"), true;
    return own(), true;
  }
  if (name == "sysctl") {
    const bool sets = args.any({"w", "p", "system"}) || std::any_of(args.operands.begin(), args.operands.end(),
                                                                    [](const Word& w) { return w.text.find('=') != std::string::npos; });
    for (const auto& word : args.operands) c.scan(word);
    if (!sets) return c.report(Effect::list, "reads kernel settings"), true;
    for (const auto& word : args.operands) {
      const std::string low = lower_case(word.text);
      if (low.find("core_pattern") != std::string::npos || low.find("modprobe") != std::string::npos ||
          low.find("ptrace") != std::string::npos || low.find("randomize") != std::string::npos)
        return c.report(Effect::privilege_escalation, "changes a kernel setting that protects the machine", word.text), true;
    }
    return c.report(Effect::tampering, "changes kernel settings", operand(args, 0)), true;
  }
  if (name == "addresses") {
    std::string object = operand(args, 0), verb = operand(args, 1);
    if (args.has("batch")) return c.report(Effect::tampering, "changes the network"), true;
    if (starts_with(object, "netns") && verb == "exec" && args.operands.size() > 3) {
      c.report(Effect::privilege_escalation, "runs in another network namespace");
      c.command_words({args.operands.begin() + 3, args.operands.end()}, "ip netns");
      return true;
    }
    for (const std::string_view change : {"add", "del", "delete", "set", "flush", "change", "replace", "append", "up", "down", "a_"})
      if (verb == change || (verb.size() >= 2 && change.size() > verb.size() && starts_with(change, verb) && verb != "a" && verb != "s"))
        return c.report(Effect::tampering, fmt::format("changes the network: ip {} {}", object, verb)), true;
    return c.report(Effect::list, "tells about the network"), true;
  }
  if (name == "network") {
    const auto& p = c.program;
    static const std::unordered_set<std::string> looks{
        "show", "status", "list",    "dev",  "device", "-n",   "-a",    "general",    "connection",   "query",     "con",
        "d",    "g",      "monitor", "get",  "info",   "link", "wifi",  "statistics", "scan",         "interface", "phy",
        "ls",   "-s",     "-l",      "stat", "-v",     "-e",   "radio", "networking", "connectivity", "-t",        "-f"};
    bool changes =
        p == "ifup" || p == "ifdown" || p == "dhclient" || p == "dhcpcd" || p == "wg-quick" || p == "macchanger" || p == "wondershaper";
    for (const auto& word : args.operands) {
      const std::string& t = word.text;
      for (const std::string_view verb : {"add",
                                          "del",
                                          "delete",
                                          "up",
                                          "down",
                                          "set",
                                          "flush",
                                          "modify",
                                          "block",
                                          "unblock",
                                          "off",
                                          "on",
                                          "disconnect",
                                          "connect",
                                          "replace",
                                          "change",
                                          "remove",
                                          "reload",
                                          "reapply",
                                          "addbr",
                                          "delbr",
                                          "addif",
                                          "delif",
                                          "apply",
                                          "try",
                                          "netmask",
                                          "mtu",
                                          "promisc",
                                          "-promisc",
                                          "hw",
                                          "disable",
                                          "enable",
                                          "-setdnsservers",
                                          "-setairportpower",
                                          "setkey",
                                          "edit",
                                          "import",
                                          "revert",
                                          "reset-statistics",
                                          "renew",
                                          "setconf",
                                          "hotspot"})
        if (t == verb) changes = true;
    }
    for (const auto& option : args.options)
      if (p == "ethtool" && option.name == "s") changes = true;
    if (p == "ifconfig" && args.operands.size() >= 2) changes = true;
    if (p == "route" && !args.operands.empty() && operand(args, 0) != "get") changes = true;
    (void)looks;
    if (!changes) return c.report(Effect::list, "tells about the network"), true;
    return c.report(Effect::tampering, p + " changes the network"), true;
  }
  if (name == "history") {
    c.output.local = true;
    c.output.secret = true;
    if (!args.any({"c", "d"})) c.report(Effect::list, "shows the shell history");
    return true;
  }
  if (name == "kill_names") {
    if (args.any({"l", "V"})) return c.report(Effect::list, "lists signals"), true;
    if (args.operands.empty() && args.options.empty() && c.program != "xkill") return true;
    return own(operand(args, 0)), true;
  }
  if (name == "shutdown") {
    if (c.program == "shutdown" && args.has("c")) return c.report(Effect::change, "calls a shutdown off"), true;
    if (c.program == "init" && operand(args, 0).empty()) return c.report(Effect::list, "does nothing"), true;
    return own(), true;
  }
  if (name == "capture") {
    const bool reads = args.has("r");
    if (reads) return c.report(Effect::read, "reads a capture"), true;
    return c.report(Effect::credential_access, "listens to what goes over the network"), true;
  }
  if (name == "nmap") {
    for (const auto& option : args.options)
      if (option.name == "interactive") c.report(Effect::privilege_escalation, "opens a shell out of nmap");
    for (const auto& word : c.words)
      if (starts_with(word.text, "--script=") || word.text == "--script") {
        const std::string value = word.text.size() > 9 ? word.text.substr(9) : operand(args, 0);
        if (value.find('/') != std::string::npos || value.ends_with(".nse") || value.find(".lua") != std::string::npos)
          c.report(Effect::remote_code, "runs a script out of a scanner", value);
        for (const std::string_view kind : {"exploit", "brute", "vuln", "dos", "malware", "intrusive"})
          if (value.find(kind) != std::string::npos) c.report(Effect::remote_code, "attacks other machines", value);
      }
    for (const auto& word : args.operands) c.send_word(word, host_of(word.text), "in a name");
    c.report(Effect::query, "looks at other machines", operand(args, 0));
    return true;
  }
  if (name == "crontab") {
    if (args.has("l")) return c.report(Effect::list, "lists scheduled commands"), true;
    if (args.has("r")) return c.report(Effect::persistence, "deletes all scheduled commands"), true;
    if (args.operands.empty() && c.command.pipe_from < 0 && !args.has("e") && c.command.redirects.empty())
      return c.report(Effect::list, "lists scheduled commands"), true;
    for (const auto& word : args.operands)
      if (word.text != "-") c.read(word);
    return c.report(Effect::persistence, "schedules commands to run later"), true;
  }
  if (name == "later") {
    if (args.has("l")) return c.report(Effect::list, "lists scheduled commands"), true;
    if (c.input.text) c.shell(plain(*c.input.text), c.program);
    return own(), true;
  }
  if (name == "boot") {
    const std::string verb = operand(args, 0);
    if (args.has("l") || verb == "list" || verb == "print" || verb == "show" || verb == "status" || verb == "blame" ||
        verb == "dumpstate" || (verb.empty() && c.program != "insserv"))
      return c.report(Effect::list, "lists what starts at boot"), true;
    if (c.program == "launchctl" && (verb == "stop" || verb == "remove" || verb == "unload" || verb == "bootout" || verb == "kill" ||
                                     verb == "kickstart" || verb == "reboot"))
      return c.report(Effect::process_control, "stops a service", verb), true;
    if (c.program == "launchctl" && (verb == "start" || verb == "getenv")) return c.report(Effect::change, "starts a service", verb), true;
    for (std::size_t i = 1; i < args.operands.size(); ++i) c.scan(args.operands[i]);
    return own(verb), true;
  }
  if (name == "service") {
    if (args.has("status-all") || args.operands.size() < 2) {
      if (operand(args, 0).find('/') != std::string::npos)
        return c.report(Effect::privilege_escalation, "runs " + operand(args, 0) + " as a service"), true;
      return c.report(Effect::list, "lists services"), true;
    }
    const std::string verb = operand(args, 1);
    if (operand(args, 0).find('/') != std::string::npos)
      return c.report(Effect::privilege_escalation, "runs " + operand(args, 0) + " as a service"), true;
    if (verb == "status") return c.report(Effect::list, "asks about a service"), true;
    if (verb == "start" || verb == "reload") return c.report(Effect::change, "starts a service", operand(args, 0)), true;
    return c.report(Effect::process_control, "stops or changes the service " + operand(args, 0), operand(args, 0)), true;
  }
  if (name == "run") {
    // Skip numbers and masks that belong to the program, up to the command.
    std::size_t at = 0;
    const auto& p = c.program;
    if (p == "gnome-terminal" || p == "xterm" || p == "konsole" || p == "ssh-agent") at = 0;
    while (at < args.operands.size() && (args.operands[at].text.find_first_not_of("0123456789,-.:xabcdefABCDEF%") == std::string::npos ||
                                         args.operands[at].text.find('=') != std::string::npos || args.operands[at].text == "stat" ||
                                         args.operands[at].text == "record" || args.operands[at].text == ":::")) {
      // Assignments stay for the command; a mask that is also a word ("cafe") is rare.
      if (args.operands[at].text.find('=') != std::string::npos) break;
      if (find_handler(program_name(args.operands[at].text))) break;
      ++at;
    }
    if (at >= args.operands.size()) return c.report(Effect::execute, "runs " + p), true;
    if (p == "hyperfine" || p == "parallel" || p == "sem" || p == "pexec" || p == "entr" || p == "watchexec" || p == "chronic" ||
        p == "script" || p == "cmd") {
      for (std::size_t i = at; i < args.operands.size(); ++i)
        if (args.operands[i].text.find(' ') != std::string::npos) {
          c.shell(args.operands[i], p);
          return true;
        }
    }
    const std::size_t before = c.run.out.observations.size();
    c.command_words({args.operands.begin() + static_cast<std::ptrdiff_t>(at), args.operands.end()}, p);
    if (c.run.out.observations.size() == before) c.report(Effect::execute, "runs " + p);
    return true;
  }
  if (name == "tmux") {
    const std::string verb = operand(args, 0);
    if (verb == "kill-server") return c.report(Effect::process_control, "ends every terminal session"), true;
    if (verb == "send-keys" || verb == "send") {
      for (std::size_t i = 1; i < args.operands.size(); ++i) {
        const auto& text = args.operands[i].text;
        if (text == "Enter" || text == "C-m" || text == "C-c" || text == "C-d") continue;
        if (text.find(' ') != std::string::npos || text.size() > 1) c.shell(args.operands[i], "tmux");
      }
      return c.report(Effect::execute, "types into a terminal session"), true;
    }
    for (std::size_t i = 1; i < args.operands.size(); ++i)
      if (args.operands[i].text.find(' ') != std::string::npos ||
          ((verb == "new-session" || verb == "new" || verb == "new-window" || verb == "neww" || verb == "run-shell" || verb == "run" ||
            verb == "split-window") &&
           i + 1 == args.operands.size() && find_handler(program_name(args.operands[i].text))))
        c.shell(args.operands[i], "tmux");
    return c.report(Effect::execute, "opens or changes a terminal session"), true;
  }
  if (name == "editor") {
    for (const auto& option : args.options)
      if (option.has_value && option.spec && static_cast<char>(option.spec->role) == 'v') editor_command(c, option.value);
    for (const auto& word : args.operands) {
      if (!word.text.empty() && word.text[0] == '+') {
        editor_command(c, part_of(word, 1));
        continue;
      }
      if (c.program == "ed" || c.program == "red") {
        if (starts_with(word.text, "!")) {
          c.shell(part_of(word, 1), "ed");
          continue;
        }
      }
      c.scan(word);
      c.program == "view" || c.program == "rview" ? c.read(word) : c.write(word);
    }
    if (c.input.text) {
      std::string_view rest = *c.input.text;
      while (!rest.empty()) {
        const auto line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        if (starts_with(line, "!")) c.shell(plain(line.substr(1)), c.program);
        else if (starts_with(line, "w ") || starts_with(line, "W ") || starts_with(line, "f ")) {
          if (line.size() > 2 && line[2] == '!') c.shell(plain(line.substr(3)), c.program);
          else c.write(plain(line.substr(2)));
        } else if ((starts_with(line, "r !") || starts_with(line, "e !"))) c.shell(plain(line.substr(3)), c.program);
        else if (starts_with(line, ":")) editor_command(c, plain(line));
      }
    } else if (c.input.network || c.input.decoded) {
      c.report(Effect::remote_code, "feeds what was fetched or decoded to an editor");
    }
    c.report(Effect::execute, "opens an editor");
    return true;
  }
  if (name == "make") {
    for (const auto& option : args.options) {
      if (!option.has_value) continue;
      if (option.name == "eval") makefile(c, option.value.text);
      if (option.name == "f" && (option.value.text == "-" || option.value.text == "/dev/stdin")) {
        if (c.input.network || c.input.decoded) c.report(Effect::remote_code, "runs a makefile that was fetched or decoded");
        if (c.input.text) makefile(c, *c.input.text);
        else if (!c.input.network && !c.input.decoded) c.report(Effect::unknown, "runs a makefile that cannot be told", {}, false);
      } else if (option.name == "f") {
        const std::string path = c.path_of(option.value);
        for (const auto& [file, flow] : c.run.files)
          if (file == path && flow.network) c.report(Effect::remote_code, "runs a makefile that was fetched just before", path);
        if (const auto* text = known_text(c, path)) makefile(c, *text);
      }
    }
    for (const auto& word : args.operands)
      if (const auto equals = word.text.find('='); equals != std::string::npos) {
        const std::string key = word.text.substr(0, equals);
        if (key == "SHELL" || key == "CC" || key == "CXX" || key == "LD" || key == "AR" || key == "INSTALL" ||
            word.text.find_first_of(";|&`$(") != std::string::npos) {
          if (is_shell(program_name(word.text.substr(equals + 1)))) continue;
          c.shell(part_of(word, equals + 1), "make");
        }
      }
    if (!args.value("f")) {
      const std::string folder = args.value("C") ? args.value("C")->text + "/" : std::string{};
      for (const std::string_view file : {"Makefile", "makefile", "GNUmakefile"})
        if (const auto* text = known_text(c, canonical_path(folder + std::string(file), c.where(), c.command.folder))) makefile(c, *text);
    }
    for (const auto& word : args.operands)
      if (word.text == "install" || word.text == "uninstall") c.report(Effect::install, "installs what was built");
    return c.report(Effect::execute, "runs a build"), true;
  }
  if (name == "lookup") {
    const Word* file = args.value("f");
    (void)file;
    std::string host;
    for (const auto& word : args.operands) {
      host = host_of(starts_with(word.text, "@") ? word.text.substr(1) : word.text);
      if (!word.exact) c.send_word(word, host, "in a name that is looked up");
    }
    if (c.program == "ping" || c.program == "ping6" || c.program == "nping" || c.program == "hping") {
      for (const auto& option : args.options)
        if (option.name == "p" && option.has_value && !option.value.exact) c.send_word(option.value, host, "in the pattern of a ping");
      const bool flood = std::any_of(args.options.begin(), args.options.end(), [](const auto& o) { return o.name == "f"; });
      if (flood && !is_loopback(host)) c.report(Effect::tampering, "floods a host", host);
    }
    const bool mixed = std::any_of(args.operands.begin(), args.operands.end(),
                                   [](const Word& w) { return w.text.find(unknown_part) != std::string::npos && w.text != unknown_part; });
    if ((c.command.appends_arguments && mixed) || (c.input.secret && c.command.pipe_from >= 0))
      c.send_flow(c.input, host, "in names that are looked up");
    c.output.network = true;
    return c.report(Effect::fetch, "asks the network about " + (host.empty() ? std::string("a host") : host), host), true;
  }
  if (name == "mail") {
    std::string to;
    for (const auto& word : args.operands)
      if (word.text.find('@') != std::string::npos) to = word.text;
    const bool input = c.command.pipe_from >= 0 || !c.command.redirects.empty();
    if (c.program == "mail" || c.program == "mailx" || c.program == "mutt")
      if (args.operands.empty() && args.options.empty() && !input) return c.report(Effect::credential_access, "reads mail"), true;
    if (input) c.send_flow(c.input, to, "by mail");
    for (const auto& option : args.options)
      if (option.has_value && !option.value.exact && option.spec && option.spec->role == Role::ignored)
        c.send_word(option.value, to, "by mail");
    return c.report(Effect::send, "sends mail to " + to, to), true;
  }
  if (name == "net") {
    const std::string host = host_of(operand(args, 0));
    c.output.network = true;
    if (c.input.shell) return c.report(Effect::remote_code, "connects a shell to " + host, host), true;
    if (c.command.pipe_from >= 0 || c.input.local || c.input.secret) c.send_flow(c.input, host, "from its input");
    return c.report(Effect::fetch, "connects to " + host, host), true;
  }
  if (name == "ftp") {
    const std::string host = host_of(operand(args, 0));
    std::string text = c.input.text.value_or("");
    for (const auto& option : args.options)
      if (option.has_value && option.spec && static_cast<char>(option.spec->role) == 'f') text += "\n" + option.value.text;
    for (const auto& word : args.operands)
      if (word.text.find(' ') != std::string::npos) text += "\n" + word.text;
    bool sends = c.program == "ncftpput";
    std::string_view rest = text;
    while (!rest.empty()) {
      auto line = rest.substr(0, rest.find_first_of("\n;"));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      const auto begin = line.find_first_not_of(" \t");
      if (begin == std::string_view::npos) continue;
      line.remove_prefix(begin);
      if (line[0] == '!') c.shell(plain(line.substr(1)), c.program);
      for (const std::string_view verb : {"put ", "mput ", "send ", "mirror -R", "reput ", "append "})
        if (starts_with(line, verb)) {
          sends = true;
          const auto file = line.substr(verb.size());
          c.send_file(plain(file.substr(0, file.find(' '))), host);
        }
      if (starts_with(line, "rm ") || starts_with(line, "del") || starts_with(line, "mdel") || starts_with(line, "rmdir"))
        c.report(Effect::filesystem_destruction, "deletes on " + host, host);
    }
    for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
      if (c.words[i].text == "put") {
        sends = true;
        c.send_file(c.words[i + 1], host);
      }
    if (sends) c.report(Effect::exfiltration, "sends files to " + host, host);
    else if ((c.command.pipe_from >= 0 || c.input.local) && !c.input.text)
      c.report(Effect::exfiltration, "does on " + host + " what another program prints", host, false);
    return c.report(Effect::fetch, "connects to " + host, host), true;
  }
  if (name == "rclone") {
    const std::string verb = operand(args, 0);
    if (verb == "copy" || verb == "sync" || verb == "move" || verb == "copyto" || verb == "moveto" || verb == "rcat" || verb == "bisync") {
      const std::string target = args.operands.back().text;
      if (is_remote_path(target) || starts_with(target, ":")) {
        if (args.operands.size() > 2 && !is_remote_path(args.operands[1].text)) {
          c.read_tree(args.operands[1]);
          c.send_file(args.operands[1], target);
        } else if (verb == "rcat") {
          c.send_flow(c.input, target, "from its input");
        }
      } else {
        c.write(args.operands.back());
      }
      return c.report(Effect::change, "rclone " + verb), true;
    }
    if (verb == "delete" || verb == "purge" || verb == "deletefile" || verb == "rmdirs" || verb == "cleanup")
      return c.report(Effect::filesystem_destruction, "deletes stored files", operand(args, 1)), true;
    if (verb == "config")
      return c.report(says(c, "show") || says(c, "dump") ? Effect::credential_access : Effect::change, "handles credentials of stores"),
             true;
    if (verb == "serve") return c.report(Effect::exfiltration, "offers files to the network"), true;
    return c.report(Effect::query, "rclone " + verb), true;
  }
  if (name == "upload") {
    if ((c.program == "croc" || c.program == "wormhole" || c.program == "magic-wormhole") && operand(args, 0) != "send")
      return c.report(Effect::fetch, "receives files"), true;
    bool some = false;
    for (const auto& word : args.operands) {
      if (word.text == "send" || word.text == "create") continue;
      some = true;
      c.send_file(word, c.program);
    }
    if (!some) c.send_flow(c.command.pipe_from >= 0 ? c.input : Flow{.local = true}, c.program, "by uploading it");
    return true;
  }
  if (name == "tunnel") {
    if (args.any({"version", "help"})) return c.report(Effect::list, "tells about itself"), true;
    return own(operand(args, 0)), true;
  }
  if (name == "input") {
    if (operand(args, 0) == "list" || args.options.size() + args.operands.size() == 0) return c.report(Effect::list, "lists devices"), true;
    for (const auto& word : c.words)
      if (starts_with(word.text, "test") || starts_with(word.text, "--test") || c.program == "showkey" || c.program == "logkeys" ||
          c.program == "evtest" || c.program == "lkl")
        return c.report(Effect::credential_access, "records what people type"), true;
    return c.report(Effect::change, "changes an input device"), true;
  }
  if (name == "server") {
    const std::string verb = operand(args, 0);
    if (args.any({"t", "v", "V", "version"}) || verb == "validate" || verb == "fmt" || verb == "configtest" || verb == "version")
      return c.report(Effect::list, "checks settings"), true;
    for (const auto& option : args.options)
      if (option.has_value && option.name == "s") return c.report(Effect::process_control, "stops or reloads a server"), true;
    if (c.program == "ttyd" || c.program == "gotty" || c.program == "wetty" || starts_with(c.program, "shellinabox") ||
        c.program == "x11vnc" || c.program == "vncserver" || c.program == "sshd" || c.program == "dropbear" || c.program == "telnetd" ||
        c.program == "in.telnetd" || c.program == "xinetd" || c.program == "inetd" || c.program == "xrdp" || c.program == "tigervnc")
      return c.report(Effect::remote_code, "lets others log in to this machine"), true;
    for (const auto& word : args.operands) {
      const Site site = site_of_tree(c.path_of(word), c.where());
      if (word.text.find('/') != std::string::npos && site.place != Place::workspace && site.place != Place::temporary)
        return c.report(Effect::exfiltration, "offers " + word.text + " to the network", word.text), true;
    }
    return c.report(Effect::execute, "starts a server"), true;
  }
  if (name == "openssl") {
    const std::string verb = operand(args, 0);
    if (verb == "s_client" || verb == "s_server" || verb == "s_time") {
      std::string host;
      for (std::size_t i = 1; i + 1 < c.words.size(); ++i)
        if (c.words[i].text == "-connect" || c.words[i].text == "-host") host = host_of(c.words[i + 1].text);
      c.output.network = true;
      if (c.input.shell) return c.report(Effect::remote_code, "connects a shell to " + host, host), true;
      if (c.command.pipe_from >= 0 && (c.input.local || c.input.secret)) c.send_flow(c.input, host, "from its input");
      for (const auto& redirect : c.command.redirects)
        if (redirect.kind == Redirect::Kind::read && c.input.local) c.send_flow(c.input, host, "from its input");
      return c.report(Effect::fetch, "connects to " + host, host), true;
    }
    const bool decodes = says(c, "-d") || says(c, "-decrypt");
    const std::vector<Word>& w = c.words;
    for (std::size_t i = 1; i + 1 < w.size(); ++i) {
      if (w[i].text == "-engine" || w[i].text == "-provider-path" || w[i].text == "-provider_path") c.load_library(w[i + 1]);
      if (w[i].text == "-CAfile" || w[i].text == "-cert" || w[i].text == "-key" || w[i].text == "-inkey" || w[i].text == "-signkey" ||
          w[i].text == "-CAkey")
        c.scan(w[i + 1]);
      if (w[i].text == "-keyout" || w[i].text == "-writerand") c.write(w[i + 1]);
    }
    if (decodes) {
      c.output.decoded = true;
      c.output.text.reset();
      if (const Word* in = args.value("in")) c.run.files[c.path_of(*in)].decoded |= false;
      if (const Word* out = args.value("out")) c.run.files[c.path_of(*out)].decoded = true;
    }
    for (std::size_t i = 1; i < args.operands.size(); ++i) c.scan(args.operands[i]);
    return c.report(Effect::compute, "openssl " + verb), true;
  }
  if (name == "cloud") return cloud(c), true;
  if (name == "containers") {
    const std::string verb = operand(args, 0);
    if (verb == "list" || verb == "ls" || verb == "ps" || verb == "images" || verb == "pods" || verb == "info" || verb == "version" ||
        verb == "stats" || verb == "inspect" || verb == "logs" || verb == "state")
      return c.report(Effect::list, c.program + " " + verb), true;
    return c.report(Effect::container_escape, c.program + " " + verb + " handles containers past the engine", verb), true;
  }
  if (name == "ansible") {
    const Word* module = args.value("m");
    const Word* text = args.value("a");
    if (text && (!module || module->text == "shell" || module->text == "command" || module->text == "raw" ||
                 module->text.ends_with(".shell") || module->text.ends_with(".command")))
      c.shell(*text, "ansible");
    return c.report(Effect::execute, "runs a task on other machines"), true;
  }
  if (name == "dbus") return dbus_reach(c), true;
  if (name == "queue") {
    const bool removes = says(c, "delete") || says(c, "--delete") || says(c, "reset") || says(c, "stop_app") || says(c, "force_reset") ||
                         says(c, "delete_queue") || says(c, "purge_queue") || says(c, "delete_vhost") || says(c, "delete_user");
    if (removes) return c.report(Effect::database_destruction, "deletes queues or what is in them"), true;
    for (const auto& option : args.options)
      if (option.has_value && !option.value.exact) c.send_word(option.value, operand(args, 0), "as a message");
    const Word* host = args.value("h");
    if (c.command.pipe_from >= 0) c.send_flow(c.input, host ? host->text : std::string("localhost"), "as a message");
    return c.report(Effect::change, "sends or reads messages"), true;
  }
  if (name == "debugger") {
    for (const auto& option : args.options) {
      if (!option.has_value || !option.spec) continue;
      if (static_cast<char>(option.spec->role) == 'g') {
        const std::string_view text = option.value.text;
        const auto first = text.find_first_not_of(' ');
        if (first == std::string_view::npos) continue;
        const std::string_view command = text.substr(first);
        if (starts_with(command, "!") || starts_with(command, "shell ") || starts_with(command, "make ") ||
            starts_with(command, "platform shell "))
          c.shell(part_of(option.value, first + (command[0] == '!'                                  ? 1
                                                 : command.find("shell ") == std::string_view::npos ? 5
                                                                                                    : command.find("shell ") + 6)),
                  c.program);
        else if (starts_with(command, "python") || starts_with(command, "py ") || starts_with(command, "script"))
          c.code("python", part_of(option.value, text.find(' ', first) + 1), c.program);
        else if (starts_with(command, "attach")) c.report(Effect::process_control, "looks into another process", std::string(command));
        else if (starts_with(command, "call") || starts_with(command, "print") || starts_with(command, "p ")) {
          if (command.find("system(") != std::string_view::npos || command.find("exec") != std::string_view::npos)
            c.report(Effect::privilege_escalation, "calls a function of the program it debugs", std::string(command));
        } else if (starts_with(command, "source")) c.run_file(part_of(option.value, text.find(' ', first) + 1), {});
        else if (starts_with(command, "dump")) c.report(Effect::write, "writes memory to a file");
      }
    }
    if (c.program == "frida" || c.program == "frida-trace") return c.report(Effect::process_control, "looks into other processes"), true;
    if (c.program == "bpftrace" || c.program == "stap" || c.program == "dtrace" || c.program == "systemtap") {
      for (const auto& word : c.words)
        if (word.text.find("system(") != std::string::npos) c.report(Effect::privilege_escalation, "runs commands out of a tracer");
      return c.report(Effect::process_control, "looks into the whole machine"), true;
    }
    if (c.program == "perf" && operand(args, 0) != "stat" && operand(args, 0) != "record")
      return c.report(Effect::list, "looks at where time goes"), true;
    if (c.program == "perf" && args.operands.size() > 1) {
      std::size_t at = 1;
      while (at < args.operands.size() && args.operands[at].text[0] == '-') ++at;
      c.command_words({args.operands.begin() + static_cast<std::ptrdiff_t>(at), args.operands.end()}, "perf");
      return true;
    }
    if (args.operands.size() > 1 && args.operands[1].text.find_first_not_of("0123456789") == std::string::npos)
      c.report(Effect::process_control, "looks into another process", args.operands[1].text);
    return c.report(Effect::execute, "debugs a program", operand(args, 0)), true;
  }
  return false;
}

// cmake -E rm -rf x: the usual programs under names of their own.
void cmake(Context& c) {
  if (c.words.size() < 3 || c.words[1].text != "-E") {
    apply_table(c);
    return;
  }
  const std::string verb = c.words[2].text;
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 14> same{{{"rm", "rm"},
                                                                                       {"remove", "rm -f"},
                                                                                       {"remove_directory", "rm -r"},
                                                                                       {"copy", "cp"},
                                                                                       {"copy_if_different", "cp"},
                                                                                       {"copy_directory", "cp -r"},
                                                                                       {"rename", "mv"},
                                                                                       {"make_directory", "mkdir -p"},
                                                                                       {"create_symlink", "ln -s"},
                                                                                       {"create_hardlink", "ln"},
                                                                                       {"touch", "touch"},
                                                                                       {"cat", "cat"},
                                                                                       {"env", "env"},
                                                                                       {"time", "time"}}};
  const auto found = std::find_if(same.begin(), same.end(), [&verb](const auto& pair) { return pair.first == verb; });
  std::vector<Word> inner;
  if (found != same.end()) {
    const auto space = found->second.find(' ');
    inner.push_back(plain(found->second.substr(0, space)));
    if (space != std::string_view::npos) inner.push_back(plain(found->second.substr(space + 1)));
  } else if (verb == "tar") {
    inner.push_back(plain("tar"));
  } else if (verb == "chdir" && c.words.size() > 4) {
    c.report(Effect::execute, "runs a command in another folder");
    c.command_words({c.words.begin() + 4, c.words.end()}, "cmake -E");
    return;
  } else {
    return c.report(Effect::compute, "cmake -E " + verb);
  }
  inner.insert(inner.end(), c.words.begin() + 3, c.words.end());
  c.command_words(std::move(inner), "cmake -E");
}

constexpr auto programs = std::to_array<Named>({{"systemctl", systemctl}, {"cmake", cmake}});

}  // namespace

std::span<const Named> system_programs() { return programs; }

bool apply_shape(Context& c, std::string_view name, const Arguments& arguments, std::optional<Effect> effect, const std::string& reason) {
  return shape(c, name, arguments, effect, reason);
}

Handler find_handler(std::string_view program) {
  static const std::unordered_map<std::string_view, Handler> handlers = [] {
    std::unordered_map<std::string_view, Handler> out;
    for (const auto& family : {file_programs(), shell_programs(), network_programs(), version_control_programs(), package_programs(),
                               container_programs(), database_programs(), system_programs()})
      for (const auto& named : family) out.emplace(named.name, named.handler);
    return out;
  }();
  const auto found = handlers.find(program);
  return found == handlers.end() ? nullptr : found->second;
}

}  // namespace hearth::safety
