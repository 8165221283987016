// What a process and everything it started takes of the host's memory. Commands may be a shell, a launcher or a server with workers of its own: all of
// them are in the process group that was made for them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>

namespace hearth::fleet {

// The proportional share of resident pages: what two workers map together counts once. The kernel walks every page for it, tens of milliseconds for large
// models: not for the loop. `proc` is another folder in tests.
std::int64_t process_memory(pid_t group, const std::filesystem::path& proc = "/proc");

}  // namespace hearth::fleet
