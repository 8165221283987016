// Which file a path means. Attackers write one place in many ways (`..`, `//`, `~root`, links, /proc/self/root, globs); judging compares canonical paths
// only. And what kind of place it is: reading a key is another thing than reading a source file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "safety/action.h"
#include "safety/effect.h"

namespace hearth::safety {

// Absolute (or, with an unknown working folder, beginning with "./"), no ".", "..", "//" or trailing slash; ~ and ~user expanded; file:// taken off; /proc/self/root,
// /proc/self/cwd, /dev/fd and the like resolved; links followed if `where` says so. A glob stays in as it is. A path that climbs out of an unknown working
// folder becomes "/?/…": somewhere outside. So does one that begins with something unknown (U+FFFD), as "/?/�/…".
std::string canonical_path(std::string_view path, const Surroundings& where);
// The same, seen from another folder than the working folder: `folder` is canonical itself, or empty for the working folder.
std::string canonical_path(std::string_view path, const Surroundings& where, std::string_view folder);

enum class Place {
  workspace,    // inside the working folder
  temporary,    // inside another writable root
  home,         // the user's other files
  elsewhere,    // other people's, data disks, /opt, /srv …: outside of the writable roots, nothing special
  system,       // /etc, /usr, /bin, /lib, /boot, /var …
  credentials,  // keys, tokens, password stores, histories
  startup,      // what runs later by itself: rc files, cron, units, hooks, authorized_keys
  logs,         // /var/log, audit logs, histories being written
  device,       // raw disks, memory, kernel interfaces that change state
  root,         // "/", or a glob that covers everything
  harmless,     // /dev/null, /dev/stdout, terminals
  secret_like,  // .env and its kind inside of the workspace: ordinary to read, not to send
};

// A place and what it comes to when somebody reads, writes or deletes there.
struct Site {
  Place place = Place::elsewhere;
  std::string_view what;  // for people: "SSH keys", "a cron table"; empty when there is nothing to say beyond the place
  Effect on_read = Effect::read;
  Effect on_write = Effect::write;
  Effect on_remove = Effect::remove;
};

// Of a canonical path; a glob counts as the most sensitive place that it can match. Protected paths of `where` are not looked at.
Site site_of(std::string_view canonical, const Surroundings& where);
Place place_of(std::string_view canonical, const Surroundings& where);
// What a folder read as a whole (archived, copied, searched) would include: the most sensitive place at or below it.
Site site_of_tree(std::string_view canonical, const Surroundings& where);
// Matches one of `where.protected_paths`.
bool is_protected(std::string_view canonical, const Surroundings& where);
// Whether `where` allows writing there: workspace or temporary and not protected.
bool is_writable(std::string_view canonical, const Surroundings& where);
// Shell-style glob over whole paths: * and ? do not match a slash, ** does, [a-z] and [!a-z].
bool glob_match(std::string_view pattern, std::string_view path);
// Whether some path matches both. U+FFFD in either stands for anything within a name.
bool globs_intersect(std::string_view a, std::string_view b);
// Whether a path holds what a shell would expand, or something unknown.
bool has_glob(std::string_view path);

}  // namespace hearth::safety
