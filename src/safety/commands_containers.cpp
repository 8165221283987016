// Containers and clusters: plain images are ordinary, the host's devices, folders and namespaces are not.
#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "safety/commands_model.h"

namespace hearth::safety {
namespace {

void escape(Context& c, std::string what, std::string target = {}, bool certain = true) {
  c.report(Effect::container_escape, std::move(what), std::move(target), certain);
}

// "-v SOURCE:TARGET[:MODE]"
void host_mount(Context& c, const Word& source, bool read_only) {
  const std::string& text = source.text;
  if (text.empty() || (text[0] != '/' && text[0] != '.' && text[0] != '~' && !begins_unknown(source))) return;  // a named volume
  const std::string path = c.path_of(source);
  const Site site = site_of(path, c.where());
  if (begins_unknown(source) && site.what.empty()) return c.report(Effect::read, "shares a folder with a container", path, false);
  if (site.place == Place::credentials)
    return c.report(Effect::credential_access, "shares " + path + " (" + std::string(site.what) + ") with a container", path, source.exact);
  if (site.place == Place::workspace || site.place == Place::temporary || site.place == Place::secret_like || site.place == Place::harmless)
    return;
  if (site.place == Place::home && site.what != "a whole home folder") return;
  if (site.place == Place::elsewhere && path != "/?") return;
  if (read_only && site.place == Place::system &&
      (path == "/etc/localtime" || path == "/etc/timezone" || path == "/etc/passwd" || path == "/etc/group" || path == "/etc/hosts" ||
       path == "/etc/ssl/certs"))
    return;
  escape(c, "shares " + path + " of the host with a container", path, source.exact);
}

void run_container(Context& c, const std::vector<Word>& words, std::size_t from) {
  static const Grammar grammar(
      "-v,--volume=v --mount=m --privileged!container_escape --pid=n --net,--network=n --ipc=n --uts=n --userns=n --cgroupns=n --cap-add=c "
      "--security-opt=s --device=d --device-cgroup-rule=_!container_escape --cgroup-parent=_!container_escape --volumes-from=_ -u,--user=_ "
      "-e,--env=e --env-file=R "
      "-p,--publish=_ -P,--publish-all --name=_ -w,--workdir=_ --entrypoint=_ -h,--hostname=_ -l,--label=_ --label-file=R --link=_ "
      "-m,--memory=_ --memory-swap=_ --cpus=_ -c,--cpu-shares=_ --restart=_ --rm -d,--detach -i,--interactive -t,--tty --init --gpus=_ "
      "--shm-size=_ --ulimit=_ --tmpfs=_ --dns=_ "
      "--add-host=_ --log-driver=_ --log-opt=_ --platform=_ --pull=_ -a,--attach=_ --cidfile=W --expose=_ --group-add=_ --health-cmd=_ "
      "--health-interval=_ --ip=_ --isolation=_ --mac-address=_ --network-alias=_ --oom-kill-disable --oom-score-adj=_ --pids-limit=_ "
      "--read-only --runtime=_ --stop-signal=_ --stop-timeout=_ "
      "--storage-opt=_ --sysctl=_ -q --no-healthcheck --cpuset-cpus=_ --pod=_ --authfile=R --secret=_ --sig-proxy?=_ --detach-keys=_ "
      "--cgroups=_ --annotation=_ --quiet --volume-driver=_ --blkio-weight=_ --tls-verify?=_ --replace --systemd=_ --index=_ --env-host");
  const auto args = parse_arguments(words, from, grammar, Order::posix);
  for (const auto& option : args.options) {
    if (option.name == "privileged") {
      if (!option.has_value || option.value.text != "false")
        escape(c, "runs a container with all rights on the host; leave out --privileged");
      continue;
    }
    if (option.spec && option.spec->effect) escape(c, "loosens what holds a container (" + option.name + ")", option.value.text);
    if (!option.has_value || !option.spec) continue;
    const Word& value = option.value;
    switch (static_cast<char>(option.spec->role)) {
      case 'v': {
        const auto colon =
            value.text.find(':', value.text.size() > 1 && value.text[1] == ':' && value.text[0] != '/' && value.text[0] != '.' ? 2 : 0);
        host_mount(c, part_of(value, 0, colon), value.text.ends_with(":ro"));
        break;
      }
      case 'm': {
        std::string_view text = value.text;
        bool bind = text.find("type=bind") != std::string_view::npos;
        for (const std::string_view key : {"source=", "src="}) {
          const auto at = text.find(key);
          if (at == std::string_view::npos) continue;
          const auto end = std::min(text.find(',', at), text.size());
          if (bind)
            host_mount(c, part_of(value, at + key.size(), end - at - key.size()),
                       text.find("readonly") != std::string_view::npos || text.find("ro") != std::string_view::npos);
          break;
        }
        break;
      }
      case 'n':
        if (value.text == "host" || starts_with(value.text, "container:")) {
          if (option.name == "net" && value.text != "host") break;
          if (option.name == "net") {
            // Often only to reach a port; it gives the container the host's network all the same.
            escape(c, "gives a container the network of the host", value.text);
          } else {
            escape(c, "gives a container the " + option.name + " namespace of the host", value.text);
          }
        }
        break;
      case 'c': {
        const std::string cap = lower_case(value.text);
        static const std::unordered_set<std::string> harmless{"net_bind_service",
                                                              "cap_net_bind_service",
                                                              "chown",
                                                              "setgid",
                                                              "setuid",
                                                              "kill",
                                                              "net_raw",
                                                              "fowner",
                                                              "dac_override",
                                                              "sys_nice",
                                                              "cap_sys_nice",
                                                              "ipc_lock",
                                                              "cap_ipc_lock",
                                                              "perfmon",
                                                              "audit_write",
                                                              "mknod_"};
        if (!harmless.contains(cap)) escape(c, "gives a container the capability " + value.text, value.text, value.exact);
        break;
      }
      case 's':
        if (value.text.find("unconfined") != std::string::npos || value.text.find("disable") != std::string::npos ||
            value.text.find("unmask") != std::string::npos)
          escape(c, "switches off what confines a container (" + value.text + ")", value.text);
        break;
      case 'd': {
        const std::string path = c.path_of(part_of(value, 0, value.text.find(':')));
        if (starts_with(path, "/dev/dri") || starts_with(path, "/dev/nvidia") || path == "/dev/kvm" || path == "/dev/net/tun" ||
            path == "/dev/fuse" || starts_with(path, "/dev/video") || starts_with(path, "/dev/snd") || starts_with(path, "/dev/tty") ||
            starts_with(path, "/dev/kfd"))
          break;
        escape(c, "gives a container the device " + path, path, value.exact);
        break;
      }
      case 'e': break;
      default: c.apply(option.spec->role, value);
    }
  }
  const std::string image = args.operands.empty() ? std::string{} : args.operands.front().text;
  c.report(Effect::execute, "runs the container image " + image, image, args.operands.empty() || args.operands.front().exact);
  // What runs inside may still do to a shared workspace what it says.
  if (args.operands.size() > 1) {
    const std::size_t before = c.run.out.observations.size();
    std::vector<Word> inner(args.operands.begin() + 1, args.operands.end());
    if (is_shell(program_name(inner.front().text)) && inner.size() == 1) return;
    c.command_words(std::move(inner), "docker run");
    auto& all = c.run.out.observations;
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size()));
    // Only what reaches out of it: its own files, accounts and processes are its own.
    all.erase(std::remove_if(first, all.end(),
                             [](const Observation& o) {
                               return o.effect != Effect::remote_code && o.effect != Effect::exfiltration &&
                                      o.effect != Effect::container_escape && !(o.effect == Effect::tampering && o.certain);
                             }),
              all.end());
  }
}

void docker(Context& c) {
  static const Grammar global(
      "-H,--host=h --context,-c=_ --config=F -l,--log-level=_ --tls --tlscacert=_ --tlscert=_ --tlskey=_ --tlsverify -D --root=? "
      "--runroot=? --connection=_ --url=h --remote -n,--namespace=_ --address,-a=h --storage-driver=_ --log-driver=_");
  const auto head = parse_arguments(c.words, 1, global, Order::posix);
  std::vector<Word> words = head.operands;
  if (c.program == "docker-compose" || c.program == "podman-compose") words.insert(words.begin(), plain("compose"));
  if (words.empty()) return c.report(Effect::compute, "tells about itself");
  for (const auto& option : head.options)
    if (option.spec && static_cast<char>(option.spec->role) == 'h' && option.has_value && starts_with(option.value.text, "tcp://") &&
        !is_loopback(host_of(option.value.text)))
      c.report(Effect::fetch, "talks to another machine's containers", host_of(option.value.text));
  std::string verb = words.front().text;
  std::size_t from = 1;
  static const std::unordered_set<std::string> nouns{"container", "image",  "volume",   "network",    "system",  "builder", "buildx",
                                                     "context",   "plugin", "swarm",    "service",    "stack",   "node",    "secret",
                                                     "config",    "trust",  "manifest", "checkpoint", "machine", "pod",     "kube",
                                                     "compose",   "play",   "generate", "scout",      "model"};
  std::string noun;
  if (nouns.contains(verb) && words.size() > 1) {
    noun = verb;
    // Options between "compose" and its verb.
    static const Grammar compose(
        "-f,--file=R -p,--project-name=_ --profile=_ --env-file=R --project-directory=? --ansi=_ --progress=_ --parallel=_");
    const auto inner = parse_arguments(words, 1, compose, Order::posix);
    for (const auto& option : inner.options)
      if (option.has_value && option.spec) c.apply(option.spec->role, option.value);
    if (inner.operands.empty()) return c.report(Effect::list, c.program + " " + noun);
    from = words.size() - inner.operands.size() + 1;
    verb = inner.operands.front().text;
  }
  const auto rest = [&] {
    return parse_arguments(
        words, from,
        Grammar(
            "-f,--force -v,--volumes -a,--all -t=_ -s,--signal=_ --filter=_ --format=_ -n=_ --rmi=_ --remove-orphans --tail=_ --since=_"));
  };
  const auto dynamic = [&](const Arguments& args) {
    return std::any_of(args.operands.begin(), args.operands.end(), [](const Word& w) { return !w.exact; }) || c.command.appends_arguments;
  };
  if ((noun.empty() || noun == "container" || noun == "compose") && (verb == "run" || verb == "create") && noun != "compose") {
    return run_container(c, words, from);
  }
  if (noun == "compose" && verb == "run") return run_container(c, words, from);
  if ((noun.empty() || noun == "container" || noun == "compose") && verb == "exec") {
    static const Grammar grammar(
        "-i,--interactive -t,--tty -d,--detach -u,--user=_ -w,--workdir=_ -e,--env=_ --env-file=R --privileged!container_escape "
        "--detach-keys=_ -T --index=_ -l");
    const auto args = parse_arguments(words, from, grammar, Order::posix);
    c.apply_options(args);
    if (args.operands.size() > 1) {
      const std::size_t before = c.run.out.observations.size();
      std::vector<Word> inner(args.operands.begin() + 1, args.operands.end());
      if (!(is_shell(program_name(inner.front().text)) && inner.size() == 1)) c.command_words(std::move(inner), "docker exec");
      auto& all = c.run.out.observations;
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size()));
      all.erase(std::remove_if(
                    first, all.end(),
                    [](const Observation& o) { return !is_dangerous(o.effect) || o.effect == Effect::privilege_escalation || !o.certain; }),
                all.end());
    }
    return c.report(Effect::execute, "runs a command in a container");
  }
  if (verb == "prune" || (noun == "system" && verb == "reset")) {
    const auto args = rest();
    const bool deep = noun == "volume" || (noun == "system" && (args.any({"v", "a"}) || verb == "reset"));
    return c.report(deep ? Effect::filesystem_destruction : Effect::remove,
                    deep ? "deletes every unused container, image or volume and the data in them" : "deletes unused " + noun + "s");
  }
  if (noun == "volume" && (verb == "rm" || verb == "remove"))
    return c.report(Effect::filesystem_destruction, "deletes volumes and the data in them");
  if (noun == "compose" && verb == "down") {
    const auto args = rest();
    if (args.has("v")) return c.report(Effect::filesystem_destruction, "deletes the project's volumes and the data in them; leave out -v");
    return c.report(Effect::change, "stops the project's containers");
  }
  if (verb == "rm" || verb == "remove" || verb == "rmi" || verb == "kill" || verb == "stop" || verb == "restart" || verb == "pause" ||
      verb == "unpause" || verb == "delete") {
    const auto args = rest();
    if (dynamic(args))
      return c.report(Effect::process_control, "stops or deletes containers that are found at run time; name them", {}, false);
    if (noun == "service" || noun == "stack" || noun == "swarm" || noun == "node" || noun == "machine")
      return c.report(Effect::process_control, "stops or deletes " + noun + "s");
    return c.report(Effect::change, verb + "s containers or images");
  }
  if (verb == "cp") {
    const auto args = rest();
    for (std::size_t i = 0; i < args.operands.size(); ++i) {
      const bool inside =
          args.operands[i].text.find(':') != std::string::npos && args.operands[i].text[0] != '/' && args.operands[i].text[0] != '.';
      if (inside) continue;
      i + 1 == args.operands.size() ? c.write(args.operands[i]) : c.read_tree(args.operands[i]);
    }
    return c.report(Effect::write, "copies from or to a container");
  }
  if (verb == "build" || verb == "bake" || verb == "buildx") {
    static const Grammar grammar(
        "-f,--file=R -t,--tag=_ --build-arg=_ --target=_ --platform=_ --network=n --secret=s --ssh=_ --cache-from=_ --cache-to=_ "
        "-o,--output=_ --label=_ --allow=_ --no-cache --pull --push --load -q --progress=_ --iidfile=W -v,--volume=v --add-host=_ "
        "--security-opt=_ --builder=_ --build-context=_ --squash --rm "
        "--memory=_ --metadata-file=W");
    const auto args = parse_arguments(words, from, grammar);
    for (const auto& option : args.options) {
      if (!option.has_value || !option.spec) continue;
      const char role = static_cast<char>(option.spec->role);
      if (role == 's') c.scan(option.value);
      else if (role == 'v') host_mount(c, part_of(option.value, 0, option.value.text.find(':')), false);
      else if (role != 'n') c.apply(option.spec->role, option.value);
    }
    for (const auto& operand : args.operands) {
      if (looks_like_url(operand.text) || starts_with(operand.text, "git@"))
        c.report(Effect::supply_chain, "builds what it fetches from " + host_of(operand.text), operand.text);
      else if (operand.text != "-") c.read_tree(operand);
    }
    if (args.has("push")) c.report(Effect::supply_chain, "publishes an image");
    return c.report(Effect::execute, "builds an image");
  }
  if (verb == "push")
    return c.report(noun == "compose" || noun.empty() || noun == "image" || noun == "manifest" ? Effect::supply_chain : Effect::change,
                    "publishes an image");
  if (verb == "login" || verb == "logout") return c.report(Effect::change, c.program + " " + verb);
  if (verb == "save" || verb == "export") {
    static const Grammar grammar("-o,--output=W --format=_ -m");
    c.apply_options(parse_arguments(words, from, grammar));
    c.output.local = true;
    return c.report(Effect::read, "writes out an image or container");
  }
  if (verb == "load" || verb == "import") {
    static const Grammar grammar("-i,--input=R -c=_ -m=_ -q");
    const auto args = parse_arguments(words, from, grammar);
    c.apply_options(args);
    for (const auto& operand : args.operands)
      if (looks_like_url(operand.text)) c.report(Effect::supply_chain, "takes an image from " + host_of(operand.text), operand.text);
    return c.report(Effect::install, "loads an image");
  }
  if (noun == "plugin" && (verb == "install" || verb == "enable"))
    return c.report(Effect::supply_chain, "installs a plugin of the container engine");
  if (noun == "node" && (verb == "ls" || verb == "ps" || verb == "inspect")) return c.report(Effect::list, "tells about a cluster");
  if (noun == "swarm" || noun == "node" || (noun == "service" && verb != "ls" && verb != "ps" && verb != "logs" && verb != "inspect"))
    return c.report(Effect::process_control, "changes a cluster: " + noun + " " + verb);
  if (noun == "secret" || noun == "config")
    return c.report(verb == "ls" || verb == "inspect" ? Effect::list : Effect::change, noun + " " + verb);
  if (noun == "kube" || noun == "play") {
    for (std::size_t i = from; i < words.size(); ++i) c.scan(words[i]);
    return c.report(Effect::execute, "starts what a file describes");
  }
  if (verb == "unshare" || verb == "mount") return escape(c, "enters a container's files or namespaces on the host");
  static const std::unordered_set<std::string> looks{"ps",   "ls",      "list", "images",  "logs",   "inspect",   "top",   "stats",  "port",
                                                     "diff", "history", "info", "version", "search", "events",    "df",    "config", "show",
                                                     "help", "convert", "wait", "attach_", "du",     "--version", "--help"};
  if (looks.contains(verb)) {
    c.output.local = true;
    return c.report(Effect::list, c.program + " " + verb);
  }
  if (verb == "pull") return c.report(Effect::install, "fetches an image");
  c.report(Effect::change, c.program + " " + verb);
  for (std::size_t i = from; i < words.size(); ++i) c.scan(words[i]);
}

// The parts of a pod description that reach the host.
bool reaches_host(std::string_view text) {
  std::string flat;
  for (const char ch : text)
    if (ch != ' ' && ch != '"' && ch != '\'' && ch != '\n' && ch != '\t') flat += ch;
  for (const std::string_view mark : {"privileged:true", "hostPID:true", "hostNetwork:true", "hostIPC:true",
                                      "hostPath:", "allowPrivilegeEscalation:true", "SYS_ADMIN", "SYS_PTRACE", "docker.sock"})
    if (flat.find(mark) != std::string::npos) return true;
  return false;
}

void kubectl(Context& c) {
  static const Grammar grammar(
      "-n,--namespace=_ -f,--filename=F -k,--kustomize=_ -o,--output=_ -l,--selector=_ --context=_ --cluster=_ --kubeconfig=_ --user=_ "
      "--as=_ --as-group=_ -c,--container=_ -A,--all-namespaces --all --force --grace-period=_ --now --cascade?=_ --overrides=J --image=_ "
      "--privileged?=_ --replicas=_ --patch,-p=J --patch-file=R --type=_ "
      "--from-literal=_ --from-file=R --dry-run?=_ -i,--stdin -t,--tty --rm --restart=_ --port=_ --target-port=_ --command --env=_ "
      "--serviceaccount=_ --server,-s=_ --token=_ --insecure-skip-tls-verify -w,--watch --tail=_ --since=_ -v=_ --profile=_ --target=_ "
      "--timeout=_ --field-selector=_ --sort-by=_ -L=_ --raw=_ --minify --duration=_ "
      "--delete-emptydir-data --ignore-daemonsets --disable-eviction --address=_ --accept-hosts=_ --prune --server-side --force-conflicts "
      "--clusterrole=_ --role=_ --group=_ --template=_ --limits=_ --requests=_ -R");
  const auto head = parse_arguments(c.words, 1, grammar, Order::posix);
  // Options of kubectl may stand anywhere, but those after "--" belong to the command in the container.
  const auto args = parse_arguments(c.words, 1, grammar);
  std::vector<Word> inner;
  for (std::size_t i = 1; i < c.words.size(); ++i)
    if (c.words[i].text == "--") {
      inner.assign(c.words.begin() + static_cast<std::ptrdiff_t>(i) + 1, c.words.end());
      break;
    }
  (void)head;
  if (args.operands.empty()) return c.report(Effect::compute, "tells about itself");
  const std::string verb = args.operands.front().text;
  const std::string noun = args.operands.size() > 1 ? lower_case(args.operands[1].text) : "";
  const std::string kind = noun.substr(0, noun.find_first_of("/."));
  const bool secret = kind == "secret" || kind == "secrets" || noun.find("secret") != std::string::npos;
  const bool dry = args.has("dry-run") && args.value("dry-run") && args.value("dry-run")->text != "none";
  for (const auto& option : args.options)
    if (option.has_value && option.spec && static_cast<char>(option.spec->role) == 'J' && reaches_host(option.value.text))
      escape(c, "starts a pod that reaches the host", option.value.text);
  if (const Word* user = args.value("as"); user && !user->text.empty())
    c.report(Effect::privilege_escalation, "acts as another user of the cluster", user->text);
  for (const auto& option : args.options)
    if (option.name == "f" && option.has_value) {
      if (looks_like_url(option.value.text)) {
        if (verb == "apply" || verb == "create" || verb == "replace")
          c.report(Effect::supply_chain, "applies what it fetches from " + host_of(option.value.text), option.value.text);
      } else if (option.value.text == "-") {
        if (c.input.text && reaches_host(*c.input.text)) escape(c, "starts a pod that reaches the host");
        if (c.input.network) c.report(Effect::supply_chain, "applies what came over the network");
      } else if (option.value.text.find('/') != std::string::npos || option.value.text.find('.') != std::string::npos) {
        const std::string path = c.path_of(option.value);
        if (verb != "logs") c.read(option.value);
        for (const auto* files : {&c.run.script.written, &c.run.action.written_files})
          if (const auto known = files->find(path); known != files->end() && reaches_host(known->second))
            escape(c, "starts a pod that reaches the host", path);
      }
    }
  if (verb == "delete" || verb == "drain" || verb == "evict") {
    if (dry) return c.report(Effect::list, "tells what it would delete");
    return c.report(Effect::process_control,
                    "kubectl " + verb + " stops or deletes what runs in a cluster" + (noun.empty() ? std::string{} : ": " + noun), noun);
  }
  if (verb == "scale" || verb == "autoscale") {
    const Word* replicas = args.value("replicas");
    if (replicas && replicas->text == "0") return c.report(Effect::process_control, "stops a service of a cluster");
    return c.report(Effect::change, "scales a service");
  }
  if (verb == "cordon" || verb == "taint" || verb == "uncordon" || verb == "replace" || verb == "certificate") {
    if (verb == "replace" && !args.has("force")) return c.report(Effect::change, "replaces what a file describes");
    return c.report(verb == "certificate" ? Effect::privilege_escalation : Effect::process_control,
                    "kubectl " + verb + " changes a cluster");
  }
  if (verb == "get" || verb == "describe") {
    if (secret) {
      const Word* output = args.value("o");
      c.output.secret = true;
      if (verb == "describe" || !output || output->text == "name" || output->text == "wide")
        return c.report(Effect::list, "lists secrets of a cluster");
      return c.report(Effect::credential_access, "reads secrets of a cluster", noun);
    }
    if (args.value("raw") && args.value("raw")->text.find("secret") != std::string::npos)
      return c.report(Effect::credential_access, "reads secrets of a cluster");
    c.output.local = true;
    return c.report(Effect::query, "asks a cluster");
  }
  if (verb == "config") {
    const bool raw = args.has("raw") ||
                     std::any_of(c.words.begin(), c.words.end(), [](const Word& w) { return w.text == "--raw" || w.text == "--flatten"; });
    if (noun == "view" && raw) return c.report(Effect::credential_access, "reads cluster credentials");
    return c.report(noun == "view" || starts_with(noun, "get") || noun == "current-context" ? Effect::list : Effect::change,
                    "kubectl config " + noun);
  }
  if (verb == "create" &&
      (noun == "token" || noun == "clusterrolebinding" || noun == "rolebinding" || noun == "clusterrole" || noun == "role"))
    return c.report(noun == "token" ? Effect::credential_access : Effect::privilege_escalation, "gives rights in a cluster: " + noun, noun);
  if (verb == "exec" || verb == "debug" || verb == "run" || verb == "attach") {
    if (verb == "debug" && (starts_with(noun, "node/") || noun == "node")) escape(c, "opens a shell on a node", noun);
    if (args.has("privileged")) escape(c, "runs a container with all rights on the node");
    if (!inner.empty() && !(is_shell(program_name(inner.front().text)) && inner.size() == 1)) {
      const std::size_t before = c.run.out.observations.size();
      c.command_words(inner, "kubectl exec");
      auto& all = c.run.out.observations;
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(std::min(before, all.size()));
      all.erase(std::remove_if(
                    first, all.end(),
                    [](const Observation& o) { return !is_dangerous(o.effect) || o.effect == Effect::privilege_escalation || !o.certain; }),
                all.end());
    }
    return c.report(Effect::execute, "runs a command in a cluster");
  }
  if (verb == "cp") {
    for (std::size_t i = 1; i < args.operands.size(); ++i) {
      const bool inside = args.operands[i].text.find(':') != std::string::npos;
      if (inside) continue;
      if (i + 1 == args.operands.size()) c.write(args.operands[i]);
      else c.send_file(args.operands[i], "a cluster");
    }
    return c.report(Effect::read, "copies from or to a pod");
  }
  if (verb == "proxy") {
    const Word* address = args.value("address");
    if ((address && !is_loopback(address->text)) || (address && address->text == "0.0.0.0"))
      return c.report(Effect::exfiltration, "opens the cluster to the network");
    return c.report(Effect::query, "opens a way to the cluster");
  }
  static const std::unordered_set<std::string> looks{"logs",    "top",    "version",      "cluster-info", "api-resources", "api-versions",
                                                     "explain", "diff",   "auth",         "events",       "wait",          "completion",
                                                     "options", "plugin", "port-forward", "help",         "kustomize"};
  c.report(looks.contains(verb) || dry ? Effect::query : Effect::change, "kubectl " + verb);
  if (verb == "rollout" && noun == "undo") c.report(Effect::change, "rolls back");
  for (std::size_t i = 1; i < args.operands.size(); ++i) c.scan(args.operands[i]);
}

constexpr auto programs = std::to_array<Named>({{"docker", docker},
                                                {"podman", docker},
                                                {"nerdctl", docker},
                                                {"docker-compose", docker},
                                                {"podman-compose", docker},
                                                {"buildah", docker},
                                                {"finch", docker},
                                                {"kubectl", kubectl},
                                                {"oc", kubectl},
                                                {"k", kubectl}});

}  // namespace

std::span<const Named> container_programs() { return programs; }

}  // namespace hearth::safety
