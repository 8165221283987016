#include "fleet/private_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cstring>
#include <filesystem>
#include <utility>

namespace hearth::fleet {
namespace {

constexpr std::string_view prefix = "hearth-run-";
constexpr std::string_view socket_suffix = ".sock";
constexpr std::size_t longest_base = 60;
[[maybe_unused]] constexpr std::size_t longest_name = 20;

// Nothing but sockets of ours is ever removed: with anything else in it, the folder stays.
void remove(const std::string& path) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    if (entry.path().native().ends_with(socket_suffix) && entry.is_socket(ignored)) ::unlink(entry.path().c_str());
  }
  ::rmdir(path.c_str());
}

// The folder locked, -1 when somebody else has it.
int lock(const std::string& path, int how) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return -1;
  while (::flock(folder, how) != 0) {
    if (errno == EINTR) continue;
    ::close(folder);
    return -1;
  }
  return folder;
}

void remove_abandoned(const std::string& base) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(base, ignored)) {
    if (!entry.path().filename().native().starts_with(prefix)) continue;
    struct stat status{};
    if (::lstat(entry.path().c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != ::geteuid()) continue;
    const int folder = lock(entry.path().native(), LOCK_EX | LOCK_NB);
    if (folder < 0) continue;
    remove(entry.path().native());
    ::close(folder);
  }
}

}  // namespace

Result<PrivateFolder> PrivateFolder::make() {
  const char* base = std::getenv("XDG_RUNTIME_DIR");
  if (!base || ::access(base, W_OK) != 0 || std::strlen(base) > longest_base) base = std::getenv("TMPDIR");
  if (!base || std::strlen(base) > longest_base) base = "/tmp";
  return make_in(base);
}

Result<PrivateFolder> PrivateFolder::make_in(const std::string& base) {
  const auto failed = [&base](int reason) {
    return Error{ErrorCode::io, "cannot make a folder for the workers' sockets in " + base + ": " + std::strerror(reason) +
                                    "; set TMPDIR to a folder you may write to"};
  };
  remove_abandoned(base);
  for (int attempt = 0; attempt < 16; ++attempt) {
    auto path = base + "/" + std::string(prefix) + "XXXXXX";
    if (!::mkdtemp(path.data())) return failed(errno);
    const int folder = lock(path, LOCK_EX);
    const int reason = errno;
    // Another gateway that was cleaning up may have found it before it was locked.
    struct stat status{};
    if (folder >= 0 && ::fstat(folder, &status) == 0 && status.st_nlink > 0) return PrivateFolder(std::move(path), folder);
    if (folder >= 0) {
      ::close(folder);
    } else if (reason != ENOENT) {
      ::rmdir(path.c_str());
      return failed(reason);
    }
  }
  return failed(EBUSY);
}

PrivateFolder::PrivateFolder(PrivateFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})), lock_(std::exchange(other.lock_, -1)) {}

PrivateFolder::~PrivateFolder() {
  if (path_.empty()) return;
  remove(path_);
  ::close(lock_);
}

std::string PrivateFolder::socket(std::string_view name) const {
  assert(name.size() <= longest_name);
  return path_ + "/" + std::string(name) + std::string(socket_suffix);
}

}  // namespace hearth::fleet
