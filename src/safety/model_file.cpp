#include "safety/model_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace hearth::safety {
namespace {

constexpr std::uintmax_t largest = std::uintmax_t{64} << 20;

Error cannot(const std::string& what, const std::string& path) {
  return Error{ErrorCode::io, path + " cannot be " + what + ": " + std::strerror(errno), {}};
}

}  // namespace

Result<std::string> read_model_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return cannot("read", path);
  std::error_code failed;
  if (const auto size = std::filesystem::file_size(path, failed); failed || size > largest) {
    return Error{ErrorCode::io, path + " is no model file: larger than 64 MiB, or not a file at all", {}};
  }
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (in.bad()) return cannot("read", path);
  return bytes;
}

Result<void> write_model_file(const std::string& path, std::string_view bytes) {
  const std::string beside = path + ".new";
  {
    std::ofstream out(beside, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.flush();
    if (!out) {
      const Error error = cannot("written", beside);
      std::error_code ignored;
      std::filesystem::remove(beside, ignored);
      return error;
    }
  }
  std::error_code failed;
  std::filesystem::rename(beside, path, failed);
  if (failed) return Error{ErrorCode::io, path + " cannot be written: " + failed.message(), {}};
  return {};
}

}  // namespace hearth::safety
