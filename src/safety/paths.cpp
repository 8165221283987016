#include "safety/paths.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <unordered_map>
#include <utility>

namespace hearth::safety {
namespace {

constexpr std::string_view unknown_part = "\xEF\xBF\xBD";
constexpr std::size_t longest_glob = 1024;  // bytes compared symbol by symbol; beyond it the worst is assumed
constexpr int most_links = 40;              // as the kernel: ELOOP

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}
bool starts(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
// Somewhere outside, see canonical_path.
bool is_outside(std::string_view path) { return path == "/?" || starts(path, "/?/"); }
bool digits(std::string_view text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos; }
// `path` is `folder` or below it.
bool within(std::string_view path, std::string_view folder) {
  if (folder.empty()) return false;
  if (folder == "/") return starts(path, "/");
  return starts(path, folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
std::string percent_decoded(std::string text) {
  for (int round = 0; round < 3 && text.find('%') != std::string::npos;
       ++round) {  // twice encoded is once too often, but some decoders go on
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
        out += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
        i += 2;
      } else {
        out += text[i];
      }
    }
    if (out == text) break;
    text = std::move(out);
  }
  return text;
}

std::vector<std::string_view> components(std::string_view path) {
  std::vector<std::string_view> parts;
  std::size_t at = 0;
  while (at <= path.size()) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// Where a path of /proc or /dev/fd really leads; empty when it stays.
std::optional<std::string> through_proc(std::string_view path, const Surroundings& where) {
  if (!starts(path, "/proc/")) return {};
  std::string_view rest = path.substr(6);
  const auto pid = rest.substr(0, rest.find('/'));
  if (pid.size() == rest.size()) return {};
  rest.remove_prefix(pid.size() + 1);
  if (pid != "self" && pid != "thread-self" && !digits(pid) && !has_glob(pid)) return {};
  if (starts(rest, "task/")) {
    rest.remove_prefix(5);
    rest.remove_prefix(std::min(rest.size(), rest.find('/') == std::string_view::npos ? rest.size() : rest.find('/') + 1));
  }
  const auto link = rest.substr(0, rest.find('/'));
  const auto tail = rest.substr(link.size());
  if (link == "root") return tail.empty() ? "/" : std::string(tail);
  if (link == "cwd") return (where.working_folder.empty() || pid != "self" ? std::string("/?") : where.working_folder) + std::string(tail);
  return {};
}

// Links resolved on this machine, as far as the path exists.
std::string followed(std::string path) {
  namespace fs = std::filesystem;
  int links = 0;
  std::vector<std::string> todo;
  const auto refill = [&todo](std::string_view rest) {
    const auto parts = components(rest);
    for (std::size_t i = parts.size(); i > 0; --i) todo.emplace_back(parts[i - 1]);
  };
  refill(path);
  std::string at;
  while (!todo.empty()) {
    const std::string part = std::move(todo.back());
    todo.pop_back();
    if (part == ".") continue;
    if (part == "..") {
      at.resize(std::max<std::size_t>(at.rfind('/') == std::string::npos ? 0 : at.rfind('/'), 0));
      continue;
    }
    std::string next = at;
    next += '/';
    next += part;
    std::error_code error;
    const auto target = fs::read_symlink(next, error);
    if (error) {
      at = next;
      continue;
    }
    if (++links > most_links) return "/?" + next;  // no file can be opened through it
    if (target.is_absolute()) at.clear();
    refill(target.native());
  }
  return at.empty() ? "/" : at;
}

// ---- Globs as sequences of symbols -----------------------------------------------------------------------------------------------------------------

struct Symbol {
  enum class Kind : std::uint8_t { one, any, set, star, everything };
  Kind kind = Kind::one;
  char c = 0;
  bool negative = false;
  bool first = false;    // stands at the beginning of a name, where a pattern does not match a dot
  bool folders = false;  // "**/": nothing, or whole folders
  std::string_view set;  // between the brackets
};

bool in_set(std::string_view set, char c) {
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set[i] == '[' && i + 1 < set.size() && set[i + 1] == ':') {
      const auto end = set.find(":]", i + 2);
      if (end != std::string_view::npos) {
        const auto name = set.substr(i + 2, end - i - 2);
        const bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool digit = c >= '0' && c <= '9';
        if ((name == "alpha" && alpha) || (name == "digit" && digit) || (name == "alnum" && (alpha || digit)) ||
            (name == "lower" && c >= 'a' && c <= 'z') || (name == "upper" && c >= 'A' && c <= 'Z') ||
            (name == "punct" && !alpha && !digit && c > ' '))
          return true;
        i = end + 1;
        continue;
      }
    }
    if (i + 2 < set.size() && set[i + 1] == '-') {
      if (c >= set[i] && c <= set[i + 2]) return true;
      i += 2;
    } else if (set[i] == c) {
      return true;
    }
  }
  return false;
}

std::vector<Symbol> symbols(std::string_view glob) {
  std::vector<Symbol> out;
  out.reserve(glob.size());
  using Kind = Symbol::Kind;
  bool first = true;
  for (std::size_t i = 0; i < glob.size(); ++i) {
    Symbol symbol{.c = glob[i], .first = first};
    first = glob[i] == '/';
    if (starts(glob.substr(i), unknown_part)) {
      symbol.kind = Kind::star;
      i += 2;
    } else if (glob[i] == '*') {
      symbol.kind = Kind::star;
      if (i + 1 < glob.size() && glob[i + 1] == '*') {
        symbol.kind = Kind::everything;
        while (i + 1 < glob.size() && glob[i + 1] == '*') ++i;
        // "**/x" also means "x" here: the slash goes with the stars.
        if (symbol.first && i + 1 < glob.size() && glob[i + 1] == '/') {
          ++i;
          first = true;
          symbol.folders = true;
        }
      }
    } else if (glob[i] == '?') {
      symbol.kind = Kind::any;
    } else if (glob[i] == '[') {
      std::size_t begin = i + 1;
      const bool negative = begin < glob.size() && (glob[begin] == '!' || glob[begin] == '^');
      if (negative) ++begin;
      std::size_t end = begin < glob.size() && glob[begin] == ']' ? begin + 1 : begin;
      while (end < glob.size() && glob[end] != ']') {
        if (starts(glob.substr(end), "[:") && glob.find(":]", end) != std::string_view::npos) end = glob.find(":]", end) + 1;
        ++end;
      }
      if (end < glob.size()) {
        symbol.kind = Kind::set;
        symbol.negative = negative;
        symbol.set = glob.substr(begin, end - begin);
        i = end;
      }
    } else if (glob[i] == '\\' && i + 1 < glob.size()) {
      symbol.c = glob[++i];
    }
    out.push_back(symbol);
  }
  return out;
}

bool accepts(const Symbol& symbol, char c) {
  switch (symbol.kind) {
    case Symbol::Kind::one: return symbol.c == c;
    case Symbol::Kind::any: return c != '/' && !(symbol.first && c == '.');
    case Symbol::Kind::set: return c != '/' && !(symbol.first && c == '.') && in_set(symbol.set, c) != symbol.negative;
    case Symbol::Kind::star: return c != '/' && !(symbol.first && c == '.');
    case Symbol::Kind::everything: return true;
  }
  return true;
}
bool repeats(const Symbol& symbol) { return symbol.kind == Symbol::Kind::star || symbol.kind == Symbol::Kind::everything; }
// "**/" as two symbols, so that what it takes ends with a slash: anything, then a slash that says that both may be left out.
std::vector<Symbol> with_whole_folders(const std::vector<Symbol>& glob) {
  std::vector<Symbol> out;
  out.reserve(glob.size() + 2);
  for (Symbol symbol : glob) {
    if (symbol.kind != Symbol::Kind::everything || !symbol.folders) {
      out.push_back(symbol);
      continue;
    }
    symbol.folders = false;
    out.push_back(symbol);
    out.push_back({.c = '/', .folders = true});
  }
  return out;
}

// Whether one character can satisfy both.
bool meet(const Symbol& a, const Symbol& b) {
  using Kind = Symbol::Kind;
  if (a.kind == Kind::one) return accepts(b, a.c);
  if (b.kind == Kind::one) return accepts(a, b.c);
  if (a.kind == Kind::set && b.kind == Kind::set) {
    for (int c = 1; c < 127; ++c)
      if (accepts(a, static_cast<char>(c)) && accepts(b, static_cast<char>(c))) return true;
    return false;
  }
  if (a.kind == Kind::set || b.kind == Kind::set) return true;
  return true;
}

// ---- Places ------------------------------------------------------------------------------------------------------------------------------------------

struct Rule {
  std::string_view pattern;  // "/…" absolute, "~/…" in any home, otherwise a name or "folder/…" anywhere; lower case
  Place place;
  std::string_view what;
  std::optional<Effect> write = {};  // where it is not what the place says
  std::optional<Effect> read = {};
};

using enum Place;
using enum Effect;

// In each group the first that matches a plain path counts; for a glob, the most sensitive.
constexpr auto absolute_rules = std::to_array<Rule>({
    {"/dev/null", harmless, {}},
    {"/dev/zero", harmless, {}},
    {"/dev/full", harmless, {}},
    {"/dev/random", harmless, {}},
    {"/dev/urandom", harmless, {}},
    {"/dev/stdin", harmless, {}},
    {"/dev/stdout", harmless, {}},
    {"/dev/stderr", harmless, {}},
    {"/dev/tty", harmless, {}},
    {"/dev/fd/**", harmless, {}},
    {"/dev/pts/**", elsewhere, "another terminal"},
    {"/dev/shm/**", temporary, {}},
    {"/dev/tcp/**", device, "a network connection", exfiltration, fetch},
    {"/dev/udp/**", device, "a network connection", exfiltration, fetch},
    {"/dev/mem", device, "the machine's memory", {}, credential_access},
    {"/dev/kmem", device, "the machine's memory", {}, credential_access},
    {"/dev/port", device, "the machine's ports", {}, credential_access},
    {"/dev/sd*", device, "a raw disk", {}, credential_access},
    {"/dev/hd*", device, "a raw disk", {}, credential_access},
    {"/dev/vd*", device, "a raw disk", {}, credential_access},
    {"/dev/xvd*", device, "a raw disk", {}, credential_access},
    {"/dev/nvme*", device, "a raw disk", {}, credential_access},
    {"/dev/mmcblk*", device, "a raw disk", {}, credential_access},
    {"/dev/disk*", device, "a raw disk", {}, credential_access},
    {"/dev/disk/**", device, "a raw disk", {}, credential_access},
    {"/dev/rdisk*", device, "a raw disk", {}, credential_access},
    {"/dev/md*", device, "a raw disk", {}, credential_access},
    {"/dev/dm-*", device, "a raw disk", {}, credential_access},
    {"/dev/loop*", device, "a block device", {}, credential_access},
    {"/dev/mapper/**", device, "a raw disk", {}, credential_access},
    {"/dev/mtd*", device, "flash memory", {}, credential_access},
    {"/dev/watchdog*", device, "the watchdog", process_control},
    {"/dev/input/**", device, "what people type", {}, credential_access},
    {"/dev/kmsg", logs, "the kernel's log"},
    {"/dev/**", device, "a device"},

    {"/proc/*/fd/**", harmless, {}},
    {"/proc/*/environ", credentials, "the environment of a process"},
    {"/proc/*/task/*/environ", credentials, "the environment of a process"},
    {"/proc/*/mem", credentials, "the memory of a process", process_control},
    {"/proc/kcore", credentials, "the machine's memory"},
    {"/proc/*/maps", system, {}},
    {"/proc/sysrq-trigger", device, "the kernel's emergency key", process_control},
    {"/proc/sys/kernel/core_pattern", device, "what the kernel runs on a crash", container_escape},
    {"/proc/sys/kernel/modprobe", device, "what the kernel runs for a module", container_escape},
    {"/proc/sys/**", device, "a kernel setting", tampering},
    {"/proc/*/oom_score_adj", device, "which process dies first", tampering},
    {"/proc/**", system, "the kernel's interface", tampering},
    {"/sys/fs/cgroup/**release_agent", device, "what the kernel runs when a control group ends", container_escape},
    {"/sys/fs/cgroup/**", device, "control groups", container_escape},
    {"/sys/kernel/uevent_helper", device, "what the kernel runs on an event", container_escape},
    {"/sys/firmware/efi/**", device, "the firmware's settings"},
    {"/sys/block/**", device, "a disk's settings"},
    {"/sys/**", device, "a kernel setting", tampering},

    {"/etc/shadow", credentials, "password hashes", privilege_escalation},
    {"/etc/shadow-", credentials, "password hashes", privilege_escalation},
    {"/etc/shadow.*", credentials, "password hashes", privilege_escalation},
    {"/etc/gshadow", credentials, "password hashes", privilege_escalation},
    {"/etc/gshadow-", credentials, "password hashes", privilege_escalation},
    {"/etc/master.passwd", credentials, "password hashes", privilege_escalation},
    {"/etc/security/opasswd", credentials, "password hashes", privilege_escalation},
    {"/etc/sudoers", credentials, "who may become root", privilege_escalation},
    {"/etc/sudoers.d/**", credentials, "who may become root", privilege_escalation},
    {"/etc/doas.conf", system, "who may become root", privilege_escalation},
    {"/etc/passwd*", system, "the accounts", privilege_escalation},
    {"/etc/group*", system, "the groups", privilege_escalation},
    {"/etc/subuid", system, "the accounts", privilege_escalation},
    {"/etc/pam.d/**", system, "how people log in", privilege_escalation},
    {"/etc/pam.conf", system, "how people log in", privilege_escalation},
    {"/etc/security/**", system, "how people log in", privilege_escalation},
    {"/etc/polkit-1/**", system, "who may act as root", privilege_escalation},
    {"/etc/ssh/*_key", credentials, "the machine's SSH keys"},
    {"/etc/ssh/sshd_config*", system, "how people log in", privilege_escalation},
    {"/etc/ssh/ssh_config*", system, "how SSH connects", persistence},
    {"/etc/ssh/**", system, "how people log in", persistence},
    {"/etc/ssl/private/**", credentials, "private keys"},
    {"/etc/pki/tls/private/**", credentials, "private keys"},
    {"/etc/ssl/certs/**", system, "whom the machine trusts", supply_chain},
    {"/etc/pki/**", system, "whom the machine trusts", supply_chain},
    {"/etc/ca-certificates*", system, "whom the machine trusts", supply_chain},
    {"/etc/letsencrypt/**", credentials, "private keys"},
    {"/etc/krb5.keytab", credentials, "Kerberos keys"},
    {"/etc/wireguard/**", credentials, "VPN keys"},
    {"/etc/openvpn/**", credentials, "VPN keys"},
    {"/etc/ipsec.secrets", credentials, "VPN keys"},
    {"/etc/ppp/*-secrets", credentials, "passwords"},
    {"/etc/networkmanager/system-connections/**", credentials, "network passwords"},
    {"/etc/wpa_supplicant/**", credentials, "network passwords"},
    {"/etc/wpa_supplicant.conf", credentials, "network passwords"},
    {"/etc/kubernetes/**", credentials, "cluster credentials"},
    {"/etc/rancher/**", credentials, "cluster credentials"},
    {"/etc/mysql/debian.cnf", credentials, "database passwords"},
    {"/etc/environment", startup, "every login's environment"},
    {"/etc/profile", startup, "a shell start-up file"},
    {"/etc/profile.d/**", startup, "a shell start-up file"},
    {"/etc/bash.bashrc", startup, "a shell start-up file"},
    {"/etc/bashrc", startup, "a shell start-up file"},
    {"/etc/zsh/**", startup, "a shell start-up file"},
    {"/etc/zshrc", startup, "a shell start-up file"},
    {"/etc/fish/**", startup, "a shell start-up file"},
    {"/etc/crontab", startup, "a cron table"},
    {"/etc/anacrontab", startup, "a cron table"},
    {"/etc/cron*/**", startup, "a cron table"},
    {"/etc/at.allow", startup, "who may schedule commands"},
    {"/etc/init.d/**", startup, "a boot script"},
    {"/etc/init/**", startup, "a boot script"},
    {"/etc/rc*", startup, "a boot script"},
    {"/etc/rc*/**", startup, "a boot script"},
    {"/etc/inittab", startup, "a boot script"},
    {"/etc/systemd/**", startup, "a systemd unit"},
    {"/etc/xdg/autostart/**", startup, "a program started at login"},
    {"/etc/x11/xsession*/**", startup, "a program started at login"},
    {"/etc/update-motd.d/**", startup, "a script run at login"},
    {"/etc/udev/**", startup, "what runs when a device appears"},
    {"/etc/modules*", startup, "kernel modules loaded at boot"},
    {"/etc/modules-load.d/**", startup, "kernel modules loaded at boot"},
    {"/etc/modprobe.d/**", startup, "kernel modules loaded at boot"},
    {"/etc/ld.so*", startup, "libraries loaded into every program"},
    {"/etc/ld.so.conf.d/**", startup, "libraries loaded into every program"},
    {"/etc/network/if-*/**", startup, "what runs when the network comes up"},
    {"/etc/dhcp/**", startup, "what runs when the network comes up"},
    {"/etc/networkd-dispatcher/**", startup, "what runs when the network comes up"},
    {"/etc/logrotate.d/**", startup, "what runs when logs are rotated"},
    {"/etc/gitconfig", startup, "git's settings for everybody"},
    {"/etc/apt/**", system, "where packages come from", supply_chain},
    {"/etc/yum*", system, "where packages come from", supply_chain},
    {"/etc/yum*/**", system, "where packages come from", supply_chain},
    {"/etc/dnf/**", system, "where packages come from", supply_chain},
    {"/etc/apk/**", system, "where packages come from", supply_chain},
    {"/etc/pacman*", system, "where packages come from", supply_chain},
    {"/etc/pacman.d/**", system, "where packages come from", supply_chain},
    {"/etc/pip.conf", system, "where packages come from", supply_chain},
    {"/etc/npmrc", system, "where packages come from", supply_chain},
    {"/etc/docker/**", system, "how containers run", container_escape},
    {"/etc/containerd/**", system, "how containers run", container_escape},
    {"/etc/hosts", system, "where host names lead", tampering},
    {"/etc/hosts.*", system, "who may connect", tampering},
    {"/etc/resolv.conf", system, "where host names lead", tampering},
    {"/etc/nsswitch.conf", system, "where names lead", tampering},
    {"/etc/iptables/**", system, "the firewall", tampering},
    {"/etc/nftables.conf", system, "the firewall", tampering},
    {"/etc/ufw/**", system, "the firewall", tampering},
    {"/etc/selinux/**", system, "access control", tampering},
    {"/etc/apparmor*/**", system, "access control", tampering},
    {"/etc/audit/**", system, "auditing", tampering},
    {"/etc/rsyslog*", system, "logging", tampering},
    {"/etc/rsyslog.d/**", system, "logging", tampering},
    {"/etc/sysctl*", system, "kernel settings", tampering},
    {"/etc/sysctl.d/**", system, "kernel settings", tampering},
    {"/etc/fstab", system, "which disks are mounted", disk_destruction},
    {"/etc/crypttab", system, "which disks are decrypted", disk_destruction},
    {"/etc/default/grub", system, "the boot loader", disk_destruction},
    {"/etc/grub.d/**", system, "the boot loader", disk_destruction},
    {"/boot/**", system, "what the machine boots", disk_destruction},
    {"/etc/**", system, "system settings"},

    {"/var/log/**", logs, "logs"},
    {"/var/log", logs, "logs"},
    {"/run/log/**", logs, "logs"},
    {"/var/run/utmp", logs, "who was logged in"},
    {"/run/utmp", logs, "who was logged in"},
    {"/var/account/**", logs, "who ran what"},
    {"/var/spool/cron/**", startup, "a cron table"},
    {"/var/spool/at/**", startup, "a scheduled command"},
    {"/var/run/docker.sock", device, "the container engine's socket", container_escape, container_escape},
    {"/run/docker.sock", device, "the container engine's socket", container_escape, container_escape},
    {"/run/podman/podman.sock", device, "the container engine's socket", container_escape, container_escape},
    {"/run/containerd/**", device, "the container engine's socket", container_escape, container_escape},
    {"/var/run/containerd/**", device, "the container engine's socket", container_escape, container_escape},
    {"/run/crio/**", device, "the container engine's socket", container_escape, container_escape},
    {"/var/run/secrets/**", credentials, "secrets given to a container"},
    {"/run/secrets/**", credentials, "secrets given to a container"},
    {"/run/credentials/**", credentials, "secrets given to a service"},
    {"/run/user/*/keyring/**", credentials, "a key ring"},
    {"/tmp/ssh-*/**", credentials, "an SSH agent"},
    {"/tmp/krb5cc*", credentials, "Kerberos tickets"},
    {"/var/lib/docker/**", system, "the insides of containers", container_escape},
    {"/var/lib/kubelet/**", credentials, "cluster credentials"},
    {"/var/lib/sss/**", credentials, "password hashes"},
    {"/var/lib/samba/private/**", credentials, "password hashes"},
    {"/var/lib/jenkins/secrets/**", credentials, "secrets of a service"},
    {"/var/lib/mysql/**", system, "a database's files", database_destruction},
    {"/var/lib/postgresql/**", system, "a database's files", database_destruction},
    {"/var/lib/mongodb/**", system, "a database's files", database_destruction},
    {"/var/lib/redis/**", system, "a database's files", database_destruction},
    {"/var/lib/dpkg/**", system, "the package database", supply_chain},
    {"/var/lib/apt/**", system, "the package database", supply_chain},
    {"/var/lib/rpm/**", system, "the package database", supply_chain},
    {"/var/backups/*shadow*", credentials, "password hashes"},
    {"/var/spool/mail/**", credentials, "people's mail"},
    {"/var/mail/**", credentials, "people's mail"},
    {"/var/tmp/**", temporary, {}},
    {"/lib/systemd/**", startup, "a systemd unit"},
    {"/usr/lib/systemd/**", startup, "a systemd unit"},
    {"/usr/local/lib/systemd/**", startup, "a systemd unit"},
    {"/run/systemd/**", startup, "a systemd unit"},
    {"/lib/udev/**", startup, "what runs when a device appears"},
    {"/usr/share/git-core/templates/**", startup, "git hooks of new repositories"},
    {"/usr/local/share/ca-certificates/**", system, "whom the machine trusts", supply_chain},
    {"/library/launchdaemons/**", startup, "a program started at boot"},
    {"/library/launchagents/**", startup, "a program started at login"},
    {"/library/startupitems/**", startup, "a program started at boot"},
    {"/library/keychains/**", credentials, "a key chain"},
    {"/private/etc/master.passwd", credentials, "password hashes"},
    {"/private/var/log/**", logs, "logs"},
    {"/private/var/db/dslocal/**", credentials, "password hashes"},
    {"/private/tmp/**", temporary, {}},
    {"/private/var/folders/**", temporary, {}},
    {"/var/folders/**", temporary, {}},
});

constexpr auto home_rules = std::to_array<Rule>({
    {"~/.ssh/*.pub", home, "a public key"},
    {"~/.ssh/known_hosts*", home, "known hosts", Effect::write},
    {"~/.ssh/authorized_keys*", startup, "who may log in by SSH"},
    {"~/.ssh/rc", startup, "what runs at an SSH login"},
    {"~/.ssh/environment", startup, "what runs at an SSH login"},
    {"~/.ssh/config*", credentials, "SSH settings", persistence},
    {"~/.ssh/**", credentials, "SSH keys"},
    {"~/.gnupg/**", credentials, "GnuPG keys"},
    {"~/.aws/**", credentials, "AWS credentials"},
    {"~/.azure/**", credentials, "Azure credentials"},
    {"~/.config/gcloud/**", credentials, "Google Cloud credentials"},
    {"~/.boto", credentials, "Google Cloud credentials"},
    {"~/.oci/**", credentials, "cloud credentials"},
    {"~/.config/doctl/**", credentials, "cloud credentials"},
    {"~/.config/hcloud/**", credentials, "cloud credentials"},
    {"~/.config/rclone/**", credentials, "cloud storage credentials"},
    {"~/.s3cfg", credentials, "cloud storage credentials"},
    {"~/.kube/cache/**", home, {}},
    {"~/.kube/**", credentials, "cluster credentials"},
    {"~/.docker/config.json", credentials, "registry credentials"},
    {"~/.docker/**", credentials, "container engine keys"},
    {"~/.config/containers/auth.json", credentials, "registry credentials"},
    {"~/.terraform.d/credentials*", credentials, "Terraform credentials"},
    {"~/.terraformrc", credentials, "Terraform credentials"},
    {"~/.config/gh/**", credentials, "GitHub credentials"},
    {"~/.config/hub", credentials, "GitHub credentials"},
    {"~/.config/glab-cli/**", credentials, "GitLab credentials"},
    {"~/.config/heroku/**", credentials, "Heroku credentials"},
    {"~/.netrc", credentials, "passwords"},
    {"~/.authinfo*", credentials, "passwords"},
    {"~/.git-credentials", credentials, "git passwords"},
    {"~/.config/git/credentials", credentials, "git passwords"},
    {"~/.npmrc", credentials, "npm tokens", supply_chain},
    {"~/.yarnrc*", credentials, "npm tokens", supply_chain},
    {"~/.pypirc", credentials, "PyPI tokens"},
    {"~/.config/pip/**", home, "where packages come from", supply_chain},
    {"~/.pip/**", home, "where packages come from", supply_chain},
    {"~/.gem/credentials", credentials, "RubyGems tokens"},
    {"~/.cargo/credentials*", credentials, "crates.io tokens"},
    {"~/.cargo/config*", home, "how Rust is built", supply_chain},
    {"~/.m2/settings*.xml", credentials, "Maven passwords"},
    {"~/.gradle/gradle.properties", credentials, "Gradle passwords"},
    {"~/.composer/auth.json", credentials, "Composer tokens"},
    {"~/.config/composer/auth.json", credentials, "Composer tokens"},
    {"~/.nuget/**config", credentials, "NuGet tokens"},
    {"~/.huggingface/**", credentials, "Hugging Face tokens"},
    {"~/.cache/huggingface/token", credentials, "Hugging Face tokens"},
    {"~/.cache/huggingface/stored_tokens", credentials, "Hugging Face tokens"},
    {"~/.config/openai/**", credentials, "API keys"},
    {"~/.config/anthropic/**", credentials, "API keys"},
    {"~/.vault-token", credentials, "Vault tokens"},
    {"~/.config/op/**", credentials, "a password manager"},
    {"~/.config/bitwarden*/**", credentials, "a password manager"},
    {"~/.password-store/**", credentials, "a password store"},
    {"~/.local/share/keyrings/**", credentials, "a key ring"},
    {"~/.gnome2/keyrings/**", credentials, "a key ring"},
    {"~/.local/share/kwalletd/**", credentials, "a key ring"},
    {"~/.kde*/**/kwallet/**", credentials, "a key ring"},
    {"~/.pki/**", credentials, "private keys"},
    {"~/.cert/**", credentials, "private keys"},
    {"~/.pgpass", credentials, "database passwords"},
    {"~/.my.cnf", credentials, "database passwords"},
    {"~/.mylogin.cnf", credentials, "database passwords"},
    {"~/.config/filezilla/**", credentials, "FTP passwords"},
    {"~/.filezilla/**", credentials, "FTP passwords"},
    {"~/.smbcredentials", credentials, "network passwords"},
    {"~/.fetchmailrc", credentials, "mail passwords"},
    {"~/.msmtprc", credentials, "mail passwords"},
    {"~/.mutt/**", credentials, "mail passwords"},
    {"~/.muttrc", credentials, "mail passwords"},
    {"~/.thunderbird/**", credentials, "mail and its passwords"},
    {"~/.mozilla/**", credentials, "a browser profile"},
    {"~/.config/google-chrome*/**", credentials, "a browser profile"},
    {"~/.config/chromium/**", credentials, "a browser profile"},
    {"~/.config/bravesoftware/**", credentials, "a browser profile"},
    {"~/.config/microsoft-edge*/**", credentials, "a browser profile"},
    {"~/.config/opera/**", credentials, "a browser profile"},
    {"~/.config/vivaldi/**", credentials, "a browser profile"},
    {"~/snap/firefox/**", credentials, "a browser profile"},
    {"~/library/application support/google/chrome/**", credentials, "a browser profile"},
    {"~/library/application support/firefox/**", credentials, "a browser profile"},
    {"~/library/safari/**", credentials, "a browser profile"},
    {"~/library/cookies/**", credentials, "cookies"},
    {"~/library/keychains/**", credentials, "a key chain"},
    {"~/library/mail/**", credentials, "people's mail"},
    {"~/library/messages/**", credentials, "people's messages"},
    {"~/.config/signal/**", credentials, "people's messages"},
    {"~/.config/slack/**", credentials, "people's messages"},
    {"~/.config/discord/**", credentials, "people's messages"},
    {"~/.local/share/telegramdesktop/**", credentials, "people's messages"},
    {"~/.bitcoin/**", credentials, "a wallet"},
    {"~/.ethereum/**", credentials, "a wallet"},
    {"~/.electrum/**", credentials, "a wallet"},
    {"~/.config/solana/**", credentials, "a wallet"},
    {"~/.monero/**", credentials, "a wallet"},
    {"~/.bash_history", credentials, "a shell history", tampering},
    {"~/.zsh_history", credentials, "a shell history", tampering},
    {"~/.histfile", credentials, "a shell history", tampering},
    {"~/.sh_history", credentials, "a shell history", tampering},
    {"~/.ash_history", credentials, "a shell history", tampering},
    {"~/.history", credentials, "a shell history", tampering},
    {"~/.local/share/fish/fish_history", credentials, "a shell history", tampering},
    {"~/.python_history", credentials, "a shell history", tampering},
    {"~/.node_repl_history", credentials, "a shell history", tampering},
    {"~/.irb_history", credentials, "a shell history", tampering},
    {"~/.lesshst", credentials, "a history", tampering},
    {"~/.viminfo", credentials, "a history", tampering},
    {"~/.mysql_history", credentials, "a database history", tampering},
    {"~/.psql_history", credentials, "a database history", tampering},
    {"~/.sqlite_history", credentials, "a database history", tampering},
    {"~/.rediscli_history", credentials, "a database history", tampering},
    {"~/.mongo*_history", credentials, "a database history", tampering},
    {"~/.dbshell", credentials, "a database history", tampering},
    {"~/.xauthority", credentials, "access to the screen"},
    {"~/.iceauthority", credentials, "access to the screen"},
    {"~/.config/systemd/**", startup, "a systemd unit"},
    {"~/.local/share/systemd/**", startup, "a systemd unit"},
    {"~/.config/autostart/**", startup, "a program started at login"},
    {"~/.config/autostart-scripts/**", startup, "a program started at login"},
    {"~/.config/environment.d/**", startup, "every login's environment"},
    {"~/.config/plasma-workspace/**", startup, "a program started at login"},
    {"~/library/launchagents/**", startup, "a program started at login"},
    {"~/library/launchdaemons/**", startup, "a program started at login"},
    {"~/.bashrc*", startup, "a shell start-up file"},
    {"~/.bash_profile", startup, "a shell start-up file"},
    {"~/.bash_login", startup, "a shell start-up file"},
    {"~/.bash_logout", startup, "a shell start-up file"},
    {"~/.bash_aliases", startup, "a shell start-up file"},
    {"~/.bash_completion", startup, "a shell start-up file"},
    {"~/.profile", startup, "a shell start-up file"},
    {"~/.zshrc*", startup, "a shell start-up file"},
    {"~/.zshenv", startup, "a shell start-up file"},
    {"~/.zprofile", startup, "a shell start-up file"},
    {"~/.zlogin", startup, "a shell start-up file"},
    {"~/.zlogout", startup, "a shell start-up file"},
    {"~/.kshrc", startup, "a shell start-up file"},
    {"~/.cshrc", startup, "a shell start-up file"},
    {"~/.tcshrc", startup, "a shell start-up file"},
    {"~/.login", startup, "a shell start-up file"},
    {"~/.config/fish/**", startup, "a shell start-up file"},
    {"~/.inputrc", startup, "a shell start-up file"},
    {"~/.xinitrc", startup, "a program started at login"},
    {"~/.xsession*", startup, "a program started at login"},
    {"~/.xprofile", startup, "a program started at login"},
    {"~/.pam_environment", startup, "every login's environment"},
    {"~/.gitconfig", startup, "git's settings"},
    {"~/.config/git/**", startup, "git's settings"},
    {"~/.git-templates/**", startup, "git hooks of new repositories"},
    {"~/.vimrc", startup, "an editor's start-up file"},
    {"~/.vim/**", startup, "an editor's start-up file"},
    {"~/.config/nvim/**", startup, "an editor's start-up file"},
    {"~/.emacs*", startup, "an editor's start-up file"},
    {"~/.emacs.d/**", startup, "an editor's start-up file"},
    {"~/.nanorc", startup, "an editor's start-up file"},
    {"~/.tmux.conf", startup, "a terminal's start-up file"},
    {"~/.screenrc", startup, "a terminal's start-up file"},
    {"~/.pythonrc*", startup, "Python's start-up file"},
    {"~/.local/lib/python*/**.pth", startup, "code that every Python loads"},
    {"~/.local/lib/python*/**customize.py", startup, "code that every Python loads"},
    {"~/.perldb", startup, "Perl's start-up file"},
    {"~/.irbrc", startup, "Ruby's start-up file"},
    {"~/.gdbinit", startup, "the debugger's start-up file"},
    {"~/.psqlrc", startup, "a database client's start-up file"},
    {"~/.sqliterc", startup, "a database client's start-up file"},
    {"~/.curlrc", startup, "curl's settings"},
    {"~/.wgetrc", startup, "wget's settings"},
    {"~/.config/code/user/settings.json", startup, "an editor's start-up file"},
    {"~/.vscode/**", startup, "an editor's extensions"},
    {"~/.claude/**", startup, "an agent's settings"},
    {"~/.claude.json", startup, "an agent's settings"},
    {"~/.cursor/**", startup, "an agent's settings"},
    {"~/.codex/**", startup, "an agent's settings"},
    {"~/.local/bin/**", startup, "programs found before those of the system"},
    {"~/bin/**", startup, "programs found before those of the system"},
    {"~/.mcp.json", startup, "an agent's settings"},
});

// Wherever they lie: by the name of one component. `folder/` stands for everything in such a folder.
constexpr auto anywhere_rules = std::to_array<Rule>({
    {".ssh/", credentials, "SSH keys"},
    {".gnupg/", credentials, "GnuPG keys"},
    {".aws/", credentials, "AWS credentials"},
    {".kube/", credentials, "cluster credentials"},
    {"id_rsa", credentials, "an SSH key"},
    {"id_dsa", credentials, "an SSH key"},
    {"id_ecdsa", credentials, "an SSH key"},
    {"id_ed25519", credentials, "an SSH key"},
    {"id_ecdsa_sk", credentials, "an SSH key"},
    {"id_ed25519_sk", credentials, "an SSH key"},
    {".git-credentials", credentials, "git passwords"},
    {".netrc", credentials, "passwords"},
    {".pgpass", credentials, "database passwords"},
    {".bash_history", credentials, "a shell history"},
    {".zsh_history", credentials, "a shell history"},
    {"wallet.dat", credentials, "a wallet"},
    {"login data", credentials, "a browser's passwords"},
    {"logins.json", credentials, "a browser's passwords"},
    {"key4.db", credentials, "a browser's passwords"},
    {"cookies.sqlite", credentials, "a browser's cookies"},
    {"authorized_keys", startup, "who may log in by SSH"},
    {"ntds.dit", credentials, "password hashes"},
    {".git-hooks/", startup, "git hooks"},
    {".claude/settings.json", startup, "an agent's settings"},
    {".claude/settings.local.json", startup, "an agent's settings"},
    {".cursor/mcp.json", startup, "an agent's settings"},
    {".npmrc", secret_like, "npm tokens"},
    {".pypirc", secret_like, "PyPI tokens"},
    {".env", secret_like, "secrets of the project"},
    {".envrc", secret_like, "secrets of the project"},
    {".htpasswd", secret_like, "password hashes"},
    {"credentials.json", secret_like, "credentials"},
    {"credentials.yml.enc", secret_like, "credentials"},
    {"credentials", secret_like, "credentials"},
    {"master.key", secret_like, "a key"},
    {"secrets.json", secret_like, "secrets of the project"},
    {"secrets.yml", secret_like, "secrets of the project"},
    {"secrets.yaml", secret_like, "secrets of the project"},
    {"secrets.toml", secret_like, "secrets of the project"},
    {"secrets.env", secret_like, "secrets of the project"},
    {"service-account.json", secret_like, "cloud credentials"},
    {"service_account.json", secret_like, "cloud credentials"},
    {"terraform.tfstate", secret_like, "secrets of an infrastructure"},
    {"kubeconfig", secret_like, "cluster credentials"},
    {"wp-config.php", secret_like, "database passwords"},
    {"database.yml", secret_like, "database passwords"},
});
// By the end of the name.
constexpr auto ending_rules = std::to_array<Rule>({
    {".pem", secret_like, "a key or certificate"},
    {".key", secret_like, "a private key"},
    {".p12", secret_like, "a private key"},
    {".pfx", secret_like, "a private key"},
    {".jks", secret_like, "a private key"},
    {".keystore", secret_like, "a private key"},
    {".kdbx", credentials, "a password manager"},
    {".ppk", credentials, "an SSH key"},
    {".agekey", credentials, "a private key"},
    {".keytab", credentials, "Kerberos keys"},
    {".ovpn", secret_like, "VPN keys"},
});

Site site_of_place(Place place) {
  switch (place) {
    case workspace:
    case temporary: return {.place = place};
    case harmless: return {.place = place};
    case secret_like: return {.place = place};
    case home:
    case elsewhere: return {.place = place, .on_write = filesystem_destruction, .on_remove = filesystem_destruction};
    case system: return {.place = place, .on_write = filesystem_destruction, .on_remove = filesystem_destruction};
    case credentials:
      return {.place = place, .on_read = credential_access, .on_write = credential_access, .on_remove = filesystem_destruction};
    case startup: return {.place = place, .on_write = persistence, .on_remove = filesystem_destruction};
    case logs: return {.place = place, .on_write = tampering, .on_remove = tampering};
    case device: return {.place = place, .on_write = disk_destruction, .on_remove = disk_destruction};
    case root: return {.place = place, .on_write = filesystem_destruction, .on_remove = filesystem_destruction};
  }
  return {};
}
Site site_of_rule(const Rule& rule) {
  Site site = site_of_place(rule.place);
  site.what = rule.what;
  if (rule.write) site.on_write = *rule.write;
  if (rule.read) site.on_read = *rule.read;
  if (rule.place == credentials && rule.write == tampering) site.on_remove = tampering;                            // histories
  if (rule.place == system && rule.write == database_destruction) site.on_remove = database_destruction;           // database files
  if (rule.place == system && rule.write == disk_destruction) site.on_remove = disk_destruction;                   // what boots
  if (rule.place == device && is_dangerous(site.on_write) && rule.write) site.on_remove = filesystem_destruction;  // sockets, settings
  return site;
}

int sensitivity(const Site& site) {
  switch (site.place) {
    case root: return 9;
    case credentials: return 8;
    case device: return 7;
    case startup: return 6;
    case logs: return 5;
    case system: return 4;
    case elsewhere: return 3;
    case home: return 2;
    case secret_like: return 1;
    default: return 0;
  }
}

std::string narrowed(std::string_view rule);

struct Tables {
  struct Prefixed {
    const Rule* rule;
    std::string pattern;  // lower case, "~" taken off
    std::string narrow;   // as patterns are compared with it
    std::string_view literal;
  };
  std::unordered_map<std::string_view, std::vector<Prefixed>> absolute;  // by first component
  std::vector<Prefixed> in_home;
  std::unordered_map<std::string_view, const Rule*> names;  // anywhere
  std::unordered_map<std::string_view, const Rule*> folders;
  std::unordered_map<std::string_view, const Rule*> two;  // "folder/name"

  static std::string_view literal_of(std::string_view pattern) { return pattern.substr(0, pattern.find_first_of("*?[")); }
  Tables() {
    for (const Rule& rule : absolute_rules) {
      const auto first = rule.pattern.substr(1, rule.pattern.find('/', 1) - 1);
      absolute[first].push_back({&rule, std::string(rule.pattern), narrowed(rule.pattern), literal_of(rule.pattern)});
    }
    for (const Rule& rule : home_rules) {
      const auto tail = rule.pattern.substr(1);
      in_home.push_back({&rule, std::string(tail), narrowed(tail), literal_of(tail)});
    }
    for (const Rule& rule : anywhere_rules) {
      if (rule.pattern.back() == '/') {
        folders[rule.pattern.substr(0, rule.pattern.size() - 1)] = &rule;
      } else if (rule.pattern.find('/') != std::string_view::npos) {
        two[rule.pattern] = &rule;
      } else {
        names[rule.pattern] = &rule;
      }
    }
  }
};
const Tables& tables() {
  static const Tables built;
  return built;
}

// "x/**" also covers the folder x itself.
bool covers(std::string_view pattern, std::string_view path) {
  if (pattern.ends_with("/**") && glob_match(pattern.substr(0, pattern.size() - 3), path)) return true;
  return glob_match(pattern, path);
}
bool may_cover(std::string_view pattern, std::string_view path) {
  if (pattern.ends_with("/**") && globs_intersect(pattern.substr(0, pattern.size() - 3), path)) return true;
  return globs_intersect(pattern, path);
}

// What comes after somebody's home folder; nothing when the path lies in no home.
std::optional<std::string_view> in_home(std::string_view path, const Surroundings& where) {
  for (const std::string_view base : {std::string_view(where.home), std::string_view("/root"), std::string_view("/var/root")}) {
    if (base.size() > 1 && starts(lowered(path), lowered(base)) && (path.size() == base.size() || path[base.size()] == '/'))
      return path.substr(base.size());
  }
  for (const std::string_view base : {std::string_view("/home/"), std::string_view("/users/")}) {
    if (!starts(lowered(path.substr(0, base.size())), base)) continue;
    const auto slash = path.find('/', base.size());
    if (path.size() > base.size()) return slash == std::string_view::npos ? std::string_view{} : path.substr(slash);
  }
  return {};
}

const Rule* first_absolute(std::string_view path) {
  const auto first = path.substr(1, path.find('/', 1) - 1);
  const auto found = tables().absolute.find(first);
  if (found == tables().absolute.end()) return nullptr;
  for (const auto& entry : found->second) {
    const auto literal = entry.literal.substr(0, entry.literal.ends_with('/') ? entry.literal.size() - 1 : entry.literal.size());
    if (starts(path, literal) && covers(entry.pattern, path)) return entry.rule;
  }
  return nullptr;
}
const Rule* first_in_home(std::string_view tail) {
  for (const auto& entry : tables().in_home) {
    const auto literal = entry.literal.substr(0, entry.literal.ends_with('/') ? entry.literal.size() - 1 : entry.literal.size());
    if (starts(tail, literal) && covers(entry.pattern, tail)) return entry.rule;
  }
  return nullptr;
}

// A template or example, or something made for tests: what it holds is no secret.
bool is_example(std::string_view path) {
  for (const std::string_view word : {"example", "sample", "template", ".dist", "/test/", "/tests/", "/testdata/", "/fixtures/", "/spec/",
                                      "/mock", "/cacert", "/ca-cert", "/fullchain", "public"})
    if (path.find(word) != std::string_view::npos) return true;
  return false;
}

std::optional<Site> anywhere(std::string_view path, bool inside) {
  const auto parts = components(path);
  const auto of_rule = [inside](const Rule& rule) {
    Site site = site_of_rule(rule);
    if (rule.place == secret_like && !inside) {  // outside of the workspace it is somebody else's
      site = site_of_place(credentials);
      site.what = rule.what;
    }
    return site;
  };
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].ends_with(".pub")) return {};
    const bool last = i + 1 == parts.size();
    if (const auto found = tables().folders.find(parts[i]); found != tables().folders.end()) return of_rule(*found->second);
    if (!last) {
      const std::string_view both(parts[i].data(), static_cast<std::size_t>(parts[i + 1].data() + parts[i + 1].size() - parts[i].data()));
      if (const auto found = tables().two.find(both); found != tables().two.end()) return of_rule(*found->second);
    }
    // Inside of a repository's own folder.
    if (parts[i] == ".git" || parts[i].ends_with(".git")) {
      const auto next = last ? std::string_view{} : parts[i + 1];
      if (next == "hooks") return Site{.place = startup, .what = "git hooks", .on_write = persistence, .on_remove = history_destruction};
      if (next == "config" && parts[i] == ".git")
        return Site{.place = startup, .what = "git's settings", .on_write = persistence, .on_remove = history_destruction};
      if (next == "modules" || next == "info") return {};
      if (parts[i] == ".git")
        return Site{.place = inside ? workspace : elsewhere,
                    .what = "a repository's history",
                    .on_write = history_destruction,
                    .on_remove = history_destruction};
    }
    if (!last) continue;
    if (const auto found = tables().names.find(parts[i]); found != tables().names.end() && !is_example(path))
      return of_rule(*found->second);
    if (starts(parts[i], ".env.") && !is_example(parts[i])) return of_rule({".env", secret_like, "secrets of the project"});
    for (const Rule& rule : ending_rules)
      if (parts[i].ends_with(rule.pattern) && parts[i].size() > rule.pattern.size() && !is_example(path)) return of_rule(rule);
  }
  // A pattern that names a secret without naming it whole: ".en?", "id_*".
  if (!parts.empty() && has_glob(parts.back())) {
    const auto glob = parts.back();
    const auto letters = std::count_if(glob.begin(), glob.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
    const bool telling = letters >= 4 || (letters >= 2 && (glob.front() == '.' || glob.find("id_") != std::string_view::npos));
    if (telling && glob.find('.') != 1)
      for (const auto& [name, rule] : tables().names)
        if (rule->place != secret_like && globs_intersect(glob, name) && glob.find(unknown_part) == std::string_view::npos)
          return of_rule(*rule);
  }
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    if (!has_glob(parts[i]) || parts[i].front() != '.') continue;
    for (const auto& [name, rule] : tables().folders)
      if (globs_intersect(parts[i], name)) return of_rule(*rule);
  }
  return {};
}

Site base_site(std::string_view path, const Surroundings& where) {
  if (path == "/" || path == "/*" || path == "/**" || path == "/.*") return site_of_place(root);
  const bool known = !where.working_folder.empty();
  if (starts(path, "./") || path == "." || (known && within(path, where.working_folder))) return site_of_place(workspace);
  for (const auto& folder : where.writable_roots)
    if (within(path, folder)) return site_of_place(temporary);
  if (within(path, "/tmp")) return site_of_place(temporary);
  if (const auto tail = in_home(path, where)) {
    Site site = site_of_place(home);
    if (tail->empty()) site.what = "a whole home folder";
    return site;
  }
  const auto first = lowered(path.substr(0, path.find('/', 1)));
  for (const std::string_view folder : {"/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot", "/var", "/proc", "/sys",
                                        "/run", "/system", "/library", "/applications", "/private", "/dev"})
    if (first == folder) return site_of_place(system);
  if (has_glob(first) && first.size() > 1) {
    for (const std::string_view folder : {"/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/var"})
      if (globs_intersect(first, folder)) return site_of_place(system);
  }
  return site_of_place(elsewhere);
}

// What a rule names, for a comparison with a pattern: a star at the end of one of its names would meet any pattern, and prove nothing.
std::string narrowed(std::string_view rule) {
  if (starts(rule, "/dev/") || starts(rule, "/proc/")) return std::string(rule);
  std::string out;
  for (std::size_t i = 0; i < rule.size(); ++i) {
    const bool alone = rule[i] == '*' && (i == 0 || rule[i - 1] == '/' || rule[i - 1] == '*') &&
                       (i + 1 == rule.size() || rule[i + 1] == '/' || rule[i + 1] == '*');
    if (rule[i] != '*' || alone) out += rule[i];
  }
  return out;
}

// The most sensitive rule that a pattern can match.
std::optional<Site> worst_match(std::string_view path, const Surroundings& where) {
  std::optional<Site> worst;
  const auto literal = Tables::literal_of(path.substr(0, path.find(unknown_part)));
  const auto slashes = std::count(path.begin(), path.end(), '/');
  const bool deep = path.find("**") != std::string_view::npos;
  const auto consider = [&](const Rule& rule, std::string_view pattern) {
    const auto known = Tables::literal_of(pattern);
    const std::size_t common = std::min(known.size(), literal.size());
    if (known.substr(0, common) != literal.substr(0, common)) return;
    if (!deep) {  // as many names, or more where the rule has a whole folder
      const auto own = std::count(pattern.begin(), pattern.end(), '/');
      const bool folder = pattern.find("**") != std::string_view::npos;
      if (folder ? slashes + 1 < own : slashes != own) return;
    }
    if (!may_cover(pattern, path)) return;
    const Site site = site_of_rule(rule);
    if (!worst || sensitivity(site) > sensitivity(*worst)) worst = site;
  };
  for (const auto& [first, entries] : tables().absolute)
    for (const auto& entry : entries)
      if (entry.rule->place != harmless && entry.pattern != "/dev/**" && !starts(entry.pattern, "/tmp/"))
        consider(*entry.rule, entry.narrow);
  const std::string home = lowered(where.home);
  const bool may_be_home = literal.size() < 6 || in_home(literal, where) || starts(literal, "/home/") || starts(literal, "/users/") ||
                           starts(home + "/", literal);
  if (may_be_home)
    for (const std::string& base : {home, std::string("/root"), std::string("/home/*"), std::string("/users/*")}) {
      if (base.size() <= 1) continue;
      const std::size_t common = std::min({literal.size(), base.size(), base.find('*')});
      if (literal.substr(0, common) != std::string_view(base).substr(0, common)) continue;
      for (const auto& entry : tables().in_home) consider(*entry.rule, base + entry.narrow);
    }
  return worst;
}

// A place that has a rule of its own, of this name and below this folder.
std::optional<Site> named_below(std::string_view folder, std::string_view name, const Surroundings& where) {
  const std::string above = lowered(folder == "/" ? std::string_view{} : folder) + "/";
  std::optional<Site> worst;
  const auto consider = [&](const Rule& rule, const std::string& place) {
    if (!place.ends_with(name) || place.size() <= name.size() || place[place.size() - name.size() - 1] != '/' || !starts(place, above))
      return;
    const Site site = site_of_rule(rule);
    if (!worst || sensitivity(site) > sensitivity(*worst)) worst = site;
  };
  for (const auto& [first, entries] : tables().absolute)
    for (const auto& entry : entries) consider(*entry.rule, entry.pattern);
  for (const std::string& base : {lowered(where.home), std::string("/root"), std::string("/home/user"), std::string("/users/user")}) {
    if (!starts(base + "/", above) && !starts(above, base + "/")) continue;
    for (const auto& entry : tables().in_home)
      if (entry.pattern.ends_with(name)) consider(*entry.rule, base + entry.pattern);
  }
  return worst;
}

}  // namespace

bool has_glob(std::string_view path) {
  return path.find_first_of("*?[") != std::string_view::npos || path.find(unknown_part) != std::string_view::npos;
}

bool globs_intersect(std::string_view a, std::string_view b) {
  if (a.size() > longest_glob || b.size() > longest_glob) return true;
  const auto left = with_whole_folders(symbols(a));
  const auto right = with_whole_folders(symbols(b));
  // reach[j]: whether a's first i and b's first j symbols can match the same text. `before`: the same for i - 2, `next` for i.
  std::vector<char> before(right.size() + 1, 0);
  std::vector<char> reach(right.size() + 1, 0);
  std::vector<char> next(right.size() + 1, 0);
  for (std::size_t i = 0; i <= left.size(); ++i) {
    std::fill(next.begin(), next.end(), 0);
    for (std::size_t j = 0; j <= right.size(); ++j) {
      bool can = i == 0 && j == 0;
      if (!can && i > 0) {
        const Symbol& x = left[i - 1];
        if (x.folders && before[j]) can = true;
        if (!can && repeats(x) && reach[j]) can = true;                                       // x matches nothing
        if (!can && j > 0 && repeats(x) && next[j - 1] && meet(x, right[j - 1])) can = true;  // x takes what y is
        if (!can && j > 0 && !repeats(x) && !repeats(right[j - 1]) && reach[j - 1] && meet(x, right[j - 1])) can = true;
        if (!can && j > 0 && repeats(right[j - 1]) && reach[j] && meet(right[j - 1], x)) can = true;  // y takes what x is
      }
      if (!can && j > 0 && repeats(right[j - 1]) && next[j - 1]) can = true;  // y matches nothing
      if (!can && j > 1 && right[j - 1].folders && next[j - 2]) can = true;
      next[j] = can ? 1 : 0;
    }
    std::swap(before, reach);
    std::swap(reach, next);
  }
  return reach[right.size()] != 0;
}

bool glob_match(std::string_view pattern, std::string_view path) {
  // A pattern without symbols is the common case.
  if (pattern.find_first_of("*?[\\") == std::string_view::npos && pattern.find(unknown_part) == std::string_view::npos)
    return pattern == path;
  const auto glob = symbols(pattern);
  const auto none = glob.size();
  // Two places to come back to: the last * and the last **.
  std::size_t star = none, star_at = 0, all = none, all_at = 0;
  std::size_t i = 0, at = 0;
  while (at < path.size() || i < glob.size()) {
    if (i < glob.size()) {
      if (glob[i].kind == Symbol::Kind::everything) {
        all = i++;
        all_at = at;
        star = none;
        continue;
      }
      if (glob[i].kind == Symbol::Kind::star) {
        star = i++;
        star_at = at;
        continue;
      }
      // Operators' patterns cover hidden files too: only the dot rule of `accepts` is the shell's.
      if (at < path.size() && (accepts(glob[i], path[at]) || (glob[i].kind != Symbol::Kind::one && glob[i].first && path[at] == '.'))) {
        ++i;
        ++at;
        continue;
      }
    }
    if (star != none && star_at < path.size() && path[star_at] != '/') {
      at = ++star_at;
      i = star + 1;
      continue;
    }
    if (all != none && all_at < path.size()) {
      do ++all_at;
      while (glob[all].folders && path[all_at - 1] != '/' && all_at < path.size());
      if (glob[all].folders && path[all_at - 1] != '/') return false;
      at = all_at;
      i = all + 1;
      star = none;
      continue;
    }
    return false;
  }
  return true;
}

std::string canonical_path(std::string_view path, const Surroundings& where) { return canonical_path(path, where, {}); }

std::string canonical_path(std::string_view text, const Surroundings& where, std::string_view folder) {
  std::string path(text);
  if (lowered(text.substr(0, 5)) == "file:") {
    path = percent_decoded(std::string(text.substr(5)));
    if (starts(path, "//")) {  // file://host/path
      const auto slash = path.find('/', 2);
      path = slash == std::string::npos ? "/" : path.substr(slash);
    }
  }
  if (folder.empty()) folder = where.working_folder;
  if (starts(path, "~")) {
    const auto user = path.substr(1, path.find('/') == std::string::npos ? std::string::npos : path.find('/') - 1);
    const auto rest = path.substr(1 + user.size());
    if (user.empty() || user == where.user) {
      path = where.home + rest;
    } else if (user == "+") {
      path = (folder.empty() ? "." : std::string(folder)) + rest;
    } else if (user == "-") {
      path = "/?" + rest;
    } else if (user == "root") {
      path = "/root" + rest;
    } else if (user.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == std::string::npos) {
      path = "/home/" + user + rest;
    }
  }
  bool relative = false;  // to a folder that is not known
  if (starts(path, unknown_part)) {
    path = "/?/" + path;  // may be absolute, may be empty
  } else if (!starts(path, "/")) {
    if (folder.empty() || folder == "." || starts(folder, "./")) {
      relative = true;
      path = std::string(folder) + "/" + path;
    } else {
      path = std::string(folder) + "/" + path;
    }
  }
  for (int round = 0; round < 8; ++round) {
    std::vector<std::string_view> parts;
    bool outside = false;
    bool again = false;
    for (const auto part : components(path)) {
      if (part == ".") continue;
      if (part == ".." && !relative && parts.size() >= 3 && parts[0] == "proc") {
        // The parent of /proc/self/cwd is the parent of where it leads.
        std::string so_far;
        for (const auto above : parts) so_far.append("/").append(above);
        if (const auto through = through_proc(so_far, where)) {
          const auto rest = static_cast<std::size_t>(part.data() - path.data());
          path = *through + "/" + path.substr(rest);
          again = true;
          break;
        }
      }
      if (part == "..") {
        if (!parts.empty() && parts.back() != "?") {
          parts.pop_back();
        } else if (relative) {
          outside = true;
        }
        continue;
      }
      parts.push_back(part);
    }
    if (again) continue;
    std::string joined;
    for (const auto part : parts) joined.append("/").append(part);
    if (outside) {
      joined.insert(0, "/?");
      relative = false;
    }
    if (relative) return parts.empty() ? "." : "." + joined;
    if (joined.empty()) return "/";
    auto through = through_proc(joined, where);
    if (!through && (starts(joined, "/dev/fd/") || joined == "/dev/fd") && joined.find("..") != std::string::npos) through = "/?";
    if (!through) {
      path = std::move(joined);
      break;
    }
    path = std::move(*through);
  }
  if (where.follow_links && !has_glob(path) && !is_outside(path)) path = followed(std::move(path));
  return path;
}

Site site_of(std::string_view canonical, const Surroundings& where) {
  const std::string path = lowered(canonical);
  const bool inside = starts(path, "./") || path == "." || (!where.working_folder.empty() && within(canonical, where.working_folder));
  // Somewhere outside, or under something unknown: what the rest of the path may mean from the root or from a home.
  if (is_outside(path)) {
    std::string_view tail = std::string_view(path).substr(2);
    std::optional<Site> worst;
    while (!tail.empty()) {
      for (const Rule* rule : {first_absolute(tail), first_in_home(tail)}) {
        if (!rule || rule->place == harmless) continue;
        const Site site = site_of_rule(*rule);
        if (!worst || sensitivity(site) > sensitivity(*worst)) worst = site;
      }
      const auto next = tail.find('/', 1);
      if (next == std::string_view::npos) break;
      tail.remove_prefix(next);
    }
    if (worst) return *worst;
    if (const auto site = anywhere(path, false)) return *site;
    return site_of_place(elsewhere);
  }
  if (path == "/" || path == "/*" || path == "/**" || path == "/.*") return site_of_place(root);
  if (has_glob(path)) {
    // A name of which nothing is known proves nothing: the folder counts.
    const auto slash = path.rfind('/');
    if (slash != std::string::npos && starts(std::string_view(path).substr(slash + 1), unknown_part) && slash > 0 &&
        path.find("**") == std::string::npos) {
      Site site = site_of(canonical.substr(0, slash), where);
      if (site.what == "a whole home folder") site.what = {};
      return site;
    }
    // Everything below a folder, or everything of a name below it.
    if (const auto stars = path.find("/**"); stars != std::string::npos && !has_glob(std::string_view(path).substr(0, stars))) {
      const std::string folder(canonical.substr(0, std::max<std::size_t>(stars, 1)));
      const std::string_view rest = std::string_view(path).substr(stars + 3);
      if (rest.empty()) return site_of_tree(folder, where);
      Site site = site_of(folder, where);
      if (site.what == "a whole home folder") site.what = {};
      if (rest.find('/') == 0 && rest.find('/', 1) == std::string_view::npos) {
        const std::string_view name = rest.substr(1);
        if (!has_glob(name) && site.place != workspace && site.place != temporary) {
          if (const auto worst = named_below(folder, name, where)) return *worst;
        }
        if (const auto found = anywhere(name, inside || site.place == temporary);
            found && (is_dangerous(found->on_read) || sensitivity(*found) > sensitivity(site)))
          return *found;
      }
      return site;
    }
  }
  Site site = base_site(canonical, where);
  const Rule* rule = nullptr;
  if (starts(path, "/") && !has_glob(path)) {
    rule = first_absolute(path);
    if (!rule)
      if (const auto tail = in_home(path, where)) rule = first_in_home(*tail);
  }
  if (rule) {
    // A working folder inside of /opt or even /etc is still what the user asked to work in, unless the place is sensitive by itself.
    if (!(inside && (rule->place == system || rule->place == elsewhere || rule->place == home))) return site_of_rule(*rule);
    return site;
  }
  if (auto found = anywhere(path, inside || site.place == temporary)) {
    if (sensitivity(*found) >= sensitivity(site) || found->place == credentials || !found->what.empty()) site = *found;
    return site;
  }
  if (starts(path, "/") && has_glob(path) &&
      !(inside && where.working_folder.size() > 1 && starts(canonical, where.working_folder + "/"))) {
    if (const auto worst = worst_match(path, where); worst && sensitivity(*worst) > sensitivity(site)) site = *worst;
  }
  return site;
}

Place place_of(std::string_view canonical, const Surroundings& where) { return site_of(canonical, where).place; }

Site site_of_tree(std::string_view canonical, const Surroundings& where) {
  Site site = site_of(canonical, where);
  const std::string path = lowered(canonical);
  if (site.place == root || path == "/etc" || path == "/home" || path == "/users" || path == "/proc" || path == "/var" || path == "/run") {
    Site all = site_of_place(credentials);
    all.what = "credentials among everything else";
    return all;
  }
  const auto tail = in_home(path, where);
  const bool is_workspace = canonical == where.working_folder;
  if (tail && (tail->empty() || *tail == "/.config" || *tail == "/library" || *tail == "/.local" || *tail == "/.local/share") &&
      !is_workspace) {
    Site all = site_of_place(credentials);
    all.what = "credentials among a home folder's files";
    return all;
  }
  return site;
}

bool is_protected(std::string_view canonical, const Surroundings& where) {
  return std::any_of(where.protected_paths.begin(), where.protected_paths.end(), [canonical](const std::string& pattern) {
    return has_glob(canonical) ? may_cover(pattern, canonical) : covers(pattern, canonical);
  });
}

bool is_writable(std::string_view canonical, const Surroundings& where) {
  const Site site = site_of(canonical, where);
  return !is_dangerous(site.on_write) &&
         (site.place == workspace || site.place == temporary || site.place == harmless || site.place == secret_like) &&
         !is_protected(canonical, where);
}

}  // namespace hearth::safety
