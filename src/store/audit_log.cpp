#include "store/audit_log.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace hearth::store {
namespace {

constexpr std::string_view file_name = "/audit.jsonl", cut_name = "/audit.cut";
constexpr std::string_view hash_key = ",\"hash\":\"";
constexpr std::size_t hash_size = 2 * SHA256_DIGEST_LENGTH;
constexpr std::size_t seal_size = hash_key.size() + hash_size + 2;  // ,"hash":"…"}
constexpr std::size_t longest_queue = std::size_t{8} << 20;         // bytes

std::string sha256(std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::string out;
  out.reserve(hash_size);
  for (const unsigned char byte : digest) {
    out += hex[byte >> 4];
    out += hex[byte & 15];
  }
  return out;
}

// What a chain begins with.
std::string no_hash() { return std::string(hash_size, '0'); }

std::string now_utc() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40];
  std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  size += static_cast<std::size_t>(std::snprintf(text + size, sizeof text - size, ".%03dZ", static_cast<int>(milliseconds)));
  return {text, size};
}

Error io_error(const std::string& path, const std::string& what) {
  return {ErrorCode::io, "the audit log " + path + " " + what + ": " + std::strerror(errno), {}};
}

// A line whose own hash is right, as its object.
struct Row {
  json::object object;
  std::uint64_t number = 0;
  std::string prev, hash;
};
Result<Row> read_row(std::string_view line) {
  if (line.size() < seal_size || line.substr(line.size() - seal_size, hash_key.size()) != hash_key || !line.ends_with("\"}"))
    return invalid("it does not end with its hash");
  auto parsed = parse_json(line);
  if (!parsed.ok()) return parsed.error();
  if (!parsed->is_object()) return invalid("it is not an object");
  Row row{.object = std::move(parsed->get_object())};
  row.hash = line.substr(line.size() - hash_size - 2, hash_size);
  if (sha256(std::string(line.substr(0, line.size() - seal_size)) + "}") != row.hash) return invalid("its hash is not that of its content");
  const auto* number = row.object.if_contains("n");
  const auto* prev = row.object.if_contains("prev");
  if (number == nullptr || !number->is_int64() || number->get_int64() < 1 || prev == nullptr || !prev->is_string())
    return invalid("it has no number or does not name the row before");
  row.number = static_cast<std::uint64_t>(number->get_int64());
  row.prev = std::string(prev->get_string());
  return row;
}

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File& operator=(File&&) = delete;
  int get() const { return descriptor_; }

  bool write_all(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  bool read_all(std::string& out, off_t from, std::size_t size) const {
    out.resize(size);
    for (std::size_t done = 0; done < size;) {
      const ssize_t n = pread(descriptor_, out.data() + done, size - done, from + static_cast<off_t>(done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      done += static_cast<std::size_t>(n);
    }
    return true;
  }

 private:
  int descriptor_;
};

}  // namespace

class AuditLog::Impl {
 public:
  Impl(File opened, std::string where, std::uint64_t rows, std::string head, std::size_t cut)
      : file(std::move(opened)), path(std::move(where)), last(rows), hash(std::move(head)) {
    if (cut > 0) (void)append({{"event", "recovered"}, {"cut_bytes", cut}, {"kept_in", path_of_cut()}});
    thread = std::thread([this] { write(); });
  }
  ~Impl() {
    {
      const MutexLock lock(mutex);
      stopping = true;
    }
    news.notify_all();
    thread.join();
  }

  Result<std::uint64_t> append(json::object fields) {
    const MutexLock lock(mutex);
    if (failure) return *failure;
    json::object row{{"n", last + 1}, {"time", now_utc()}, {"prev", hash}};
    for (auto& field : fields) row.emplace(field.key(), std::move(field.value()));
    std::string line;
    append_json(line, row);
    if (line.size() + seal_size > longest_row)
      return Error{ErrorCode::internal, "a row of the audit log would have " + std::to_string(line.size()) + " bytes", {}};
    if (queue.size() + line.size() > longest_queue)
      return Error{ErrorCode::io, "the audit log " + path + " cannot be written as fast as things are decided", {}};
    hash = sha256(line);
    line.pop_back();
    line += hash_key;
    line += hash;
    line += "\"}\n";
    queue += line;
    ++last;
    news.notify_all();
    return last;
  }

  Result<void> flush() {
    const MutexLock lock(mutex);
    while (!failure && (!queue.empty() || writing)) written.wait(mutex);
    if (failure) return *failure;
    return {};
  }

  std::string path_of_cut() const { return path.substr(0, path.size() - file_name.size()) + std::string(cut_name); }

 private:
  // The writer's thread.
  void write() {
    std::string taken;
    for (;;) {
      {
        const MutexLock lock(mutex);
        while (queue.empty() && !stopping) news.wait(mutex);
        if (queue.empty()) return;
        taken.clear();
        std::swap(taken, queue);
        writing = true;
      }
      const bool good = file.write_all(taken) && fdatasync(file.get()) == 0;
      const auto error = io_error(path, "cannot be written");
      {
        const MutexLock lock(mutex);
        writing = false;
        if (!good) {
          failure = error;
          queue.clear();
        }
      }
      written.notify_all();
      if (!good) return;
    }
  }

  const File file;
  const std::string path;
  Mutex mutex;
  Condition news, written;
  std::string queue GUARDED_BY(mutex);
  std::uint64_t last GUARDED_BY(mutex);
  std::string hash GUARDED_BY(mutex);
  std::optional<Error> failure GUARDED_BY(mutex);
  bool writing GUARDED_BY(mutex) = false, stopping GUARDED_BY(mutex) = false;
  std::thread thread;
};

AuditLog::AuditLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AuditLog::~AuditLog() = default;

std::string AuditLog::path_in(const std::string& folder) { return folder + std::string(file_name); }

Result<std::unique_ptr<AuditLog>> AuditLog::open(const std::string& folder) {
  const std::string path = path_in(folder);
  const File file(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) return io_error(path, "cannot be opened");
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::io,
                 errno == EWOULDBLOCK
                     ? "the audit log " + path + " is written by another hearth; give each its own folder with --state-folder"
                     : io_error(path, "cannot be locked").message,
                 {}};
  }
  struct stat about{};
  if (fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode) || fchmod(file.get(), 0600) != 0)
    return io_error(path, "is no file of our own");

  // A row has a bound, so the last whole one and what a crash left behind it are in here.
  const auto size = static_cast<std::size_t>(about.st_size);
  const std::size_t from = size - std::min(size, 2 * longest_row);
  std::string tail;
  if (!file.read_all(tail, static_cast<off_t>(from), size - from)) return io_error(path, "cannot be read");
  const std::size_t end = tail.rfind('\n') == std::string::npos ? 0 : tail.rfind('\n') + 1;
  const Error broken{
      ErrorCode::config_invalid,
      "the audit log " + path +
          " does not end with a row of its own: `hearth audit verify` says where it was changed. Move it away to begin a new one",
      {}};
  if (end == 0 && from > 0) return broken;
  const std::string cut = tail.substr(end);
  std::uint64_t rows = 0;
  std::string hash = no_hash();
  if (end > 0) {
    const std::size_t before = end < 2 ? std::string::npos : tail.rfind('\n', end - 2);
    const std::size_t begin = before == std::string::npos ? 0 : before + 1;
    const auto row = read_row(std::string_view(tail).substr(begin, end - 1 - begin));
    if (!row.ok()) return broken;
    rows = row->number;
    hash = row->hash;
  }
  if (!cut.empty()) {
    const std::string aside = folder + std::string(cut_name);
    const File kept(::open(aside.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (kept.get() < 0 || !kept.write_all(cut + "\n") || ftruncate(file.get(), static_cast<off_t>(size - cut.size())) != 0)
      return io_error(path, "cannot be rid of a line that a crash cut short");
  }
  auto own = File(fcntl(file.get(), F_DUPFD_CLOEXEC, 0));  // of the same open file, its lock included
  if (own.get() < 0) return io_error(path, "cannot be opened");
  return std::unique_ptr<AuditLog>(new AuditLog(std::make_unique<Impl>(std::move(own), path, rows, std::move(hash), cut.size())));
}

Result<std::uint64_t> AuditLog::append(json::object fields) { return impl_->append(std::move(fields)); }
Result<void> AuditLog::flush() { return impl_->flush(); }

Result<AuditLog::Report> AuditLog::verify(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return io_error(path, "cannot be read");
  Report report{.head = no_hash()};
  std::string line;
  while (std::getline(file, line)) {
    if (file.eof()) {  // no line break behind it
      report.problem = "its last line is cut short";
      report.bad = report.rows + 1;
      return report;
    }
    const auto row = read_row(line);
    if (!row.ok()) report.problem = row.error().message;
    else if (row->number != report.rows + 1) report.problem = "it is number " + std::to_string(row->number);
    else if (row->prev != report.head) report.problem = "it does not follow the row before";
    if (!report.problem.empty()) {
      report.bad = report.rows + 1;
      return report;
    }
    ++report.rows;
    report.head = row->hash;
  }
  return report;
}

Result<void> AuditLog::read(const std::string& path, std::uint64_t from, const std::function<bool(const json::object& row)>& row) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return io_error(path, "cannot be read");
  std::string line;
  for (std::uint64_t number = 1; std::getline(file, line) && !file.eof(); ++number) {
    if (number < from) continue;
    auto parsed = parse_json(line);
    if (!parsed.ok() || !parsed->is_object())
      return Error{
          ErrorCode::config_invalid, "row " + std::to_string(number) + " of " + path + " cannot be read; see `hearth audit verify`", {}};
    if (!row(parsed->get_object())) break;
  }
  return {};
}

}  // namespace hearth::store
