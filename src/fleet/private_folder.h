// Workers listen on sockets that only this user may open, in a folder that goes with the gateway. A gateway that was killed cannot clean up behind itself:
// the next one does. A folder is locked while its gateway lives, so nobody else's is ever touched.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace hearth::fleet {

class PrivateFolder {
 public:
  // In $XDG_RUNTIME_DIR, $TMPDIR or /tmp, the first that can be used; removes the folders of dead gateways there. io when none can be made.
  static Result<PrivateFolder> make();
  // In `base`.
  static Result<PrivateFolder> make_in(const std::string& base);
  PrivateFolder(PrivateFolder&& other) noexcept;
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder();  // removes the sockets and the folder

  const std::string& path() const { return path_; }
  // Where a socket of that name goes; `name` is at most 20 characters of [a-z0-9-], so that the path fits a socket's address.
  std::string socket(std::string_view name) const;

 private:
  PrivateFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
  std::string path_;
  int lock_ = -1;  // the folder itself, locked
};

}  // namespace hearth::fleet
