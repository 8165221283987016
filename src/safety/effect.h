// What a tool call would do, in words that do not depend on how it is written: `rm -rf /`, a here-document fed to a shell, and a file tool called under
// another name all come down to the same effects. Layer 1 reads calls into effects; every other layer and the policy decide on effects alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::safety {

enum class Effect : std::uint8_t {
  // The thirteen dangerous categories. The action gate refuses them unless the policy says otherwise.
  filesystem_destruction,  // deletes or overwrites recursively, widely, or outside of the writable roots
  disk_destruction,        // partitions, file systems, raw devices, boot loaders
  privilege_escalation,    // becomes another user, adds capabilities or set-id bits, weakens permissions of what others own
  credential_access,       // reads or copies keys, tokens, password stores, shell history, environment secrets
  persistence,             // leaves something that runs later: cron, units, rc files, hooks, authorized_keys, LD_PRELOAD
  exfiltration,            // sends local data to another host, by whatever channel (HTTP, DNS, sockets, cloud tools)
  remote_code,             // runs what came over the network or was decoded at run time; reverse shells
  process_control,         // ends or debugs processes that are not its own; stops services, shuts the machine down
  supply_chain,            // installs from untrusted sources, changes package sources or trust, publishes packages
  history_destruction,     // version control: rewrites or discards shared or uncommitted history
  database_destruction,    // drops, truncates, deletes without a condition
  container_escape,        // privileged containers, host mounts, container sockets, namespaces of the host
  tampering,               // resource exhaustion, wiping logs and history, switching off auditing, firewalls or time
  // Ordinary effects.
  read,     // a file inside of what the caller may see
  list,     // names, metadata, system information
  write,    // creates or changes a file inside the writable roots
  remove,   // deletes single, named things inside the writable roots
  execute,  // runs a program or script of the machine or the workspace that is not known better
  fetch,    // reads from the network
  send,     // sends to the network what it was given in the call itself
  install,  // installs packages from the usual sources into the workspace or by the package manager
  query,    // reads from a database or a service
  change,   // changes the state of a database or a service (rows, messages, tickets)
  compute,  // none of these: arithmetic, text processing, printing
  unknown,  // cannot be told; counts as its worst reading
};
inline constexpr std::size_t effect_count = 25;
inline constexpr std::size_t dangerous_effects = 13;  // the first ones
static_assert(static_cast<std::size_t>(Effect::unknown) + 1 == effect_count);

constexpr bool is_dangerous(Effect effect) { return static_cast<std::size_t>(effect) < dangerous_effects; }
// The enumerator's own name: policy files, audit rows and explanations use it.
std::string_view name(Effect effect);
std::optional<Effect> effect_from_name(std::string_view text);

// One effect of one call, and the place in it that has the effect.
struct Observation {
  Effect effect = Effect::unknown;
  bool certain = true;  // false: it depends on what cannot be resolved before it runs, and this is the worst reading
  std::string target;   // what it acts on: a canonical path, a host, a package, a process …; empty when it has none
  std::string program;  // the innermost program or tool, wrappers peeled: "rm", not "sudo"
  std::string excerpt;  // the simple command or value that decided, as text, at most 200 bytes
  std::string reason;   // for people: "deletes / recursively"
};

// What layer 1 makes of a call.
struct Assessment {
  std::vector<Observation> observations;  // in the order of the call; never empty for a call that was understood
  // Set when the call could not be read at all (no shell would parse it, arguments that are not JSON, over a bound): it must not be released.
  std::string problem;

  // The words of a shell text's commands after expansion, where variables put some of them together: what is split in the text is whole in here. At most 64 KiB.
  std::string folded;

  bool has(Effect effect) const;
};

}  // namespace hearth::safety
