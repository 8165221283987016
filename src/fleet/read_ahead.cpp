#include "fleet/read_ahead.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>

namespace hearth::fleet {
namespace {

constexpr off_t piece = off_t{8} << 20;

off_t size_of(const std::string& file) {
  struct stat status{};
  return ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) ? status.st_size : 0;
}

// Two pieces are on their way at a time: asking for the next one never waits, and a byte of the last one tells that it has come.
void read_file(const std::string& file, const std::atomic<bool>& stop) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  const off_t size = size_of(file);
  for (off_t at = 0; at < size && !stop; at += piece) {
    (void)::readahead(fd, at, static_cast<std::size_t>(std::min(piece, size - at)));
    char byte = 0;
    if (at > 0 && ::pread(fd, &byte, 1, at - 1) != 1) break;
  }
  ::close(fd);
}

}  // namespace

struct ReadAhead::Stop {
  std::atomic<bool> now{false};
};

ReadAhead::ReadAhead() : stop_(std::make_shared<Stop>()) {}

ReadAhead::~ReadAhead() {
  stop_->now = true;
  thread_.stop();
  thread_.join();
}

void ReadAhead::start(std::vector<std::string> files, std::int64_t most) {
  boost::asio::post(thread_, [files = std::move(files), most, stop = stop_] {
    std::int64_t total = 0;
    for (const auto& file : files) total += size_of(file);
    if (total > most) return;
    for (const auto& file : files) read_file(file, stop->now);
  });
}

}  // namespace hearth::fleet
