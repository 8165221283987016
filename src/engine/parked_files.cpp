#include "engine/parked_files.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace hearth::engine {
namespace {

constexpr std::int64_t most_waiting = std::int64_t{256} << 20;  // bytes in host memory on their way to disk
constexpr std::size_t most_entries = 1024, piece = std::size_t{1} << 20;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* c) const { EVP_CIPHER_CTX_free(c); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

// A number is used once under a key, so it can be the nonce.
std::array<std::uint8_t, 12> nonce_of(std::uint64_t id) {
  std::array<std::uint8_t, 12> nonce{};
  std::memcpy(nonce.data(), &id, sizeof id);
  return nonce;
}

bool write_all(int file, const std::uint8_t* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(file, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<ParkedFiles>> ParkedFiles::open(const std::filesystem::path& folder, std::int64_t bytes) {
  std::error_code failed;
  std::filesystem::create_directories(folder.parent_path(), failed);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error{ErrorCode::io, "the folder for parked requests cannot be made: " + folder.string() + ": " + std::strerror(errno)};
  }
  struct stat found{};
  if (::lstat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() ||
      ::chmod(folder.c_str(), 0700) != 0) {
    return Error{ErrorCode::io, "the folder for parked requests must be a folder of this user: " + folder.string()};
  }
  rlimit files{};
  const std::size_t open_files = ::getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : 1024;  // most are for connections
  std::unique_ptr<ParkedFiles> made(new ParkedFiles(folder, bytes, std::min(most_entries, open_files / 4)));
  if (RAND_bytes(made->key_.data(), static_cast<int>(made->key_.size())) != 1) return internal_error("no random key for parked requests");
  const int probe = made->make_file();
  if (probe < 0) return Error{ErrorCode::io, "no file can be made in " + folder.string() + ": " + std::strerror(errno)};
  ::close(probe);
  made->writer_ = std::thread([files = made.get()] { files->write_items(); });
  made->reader_ = std::thread([files = made.get()] { files->read_items(); });
  return made;
}

ParkedFiles::ParkedFiles(std::filesystem::path folder, std::int64_t limit, std::size_t most)
    : folder_(std::move(folder)), limit_(limit), most_(most) {}

ParkedFiles::~ParkedFiles() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (std::thread* thread : {&writer_, &reader_}) {
    if (thread->joinable()) thread->join();
  }
  const MutexLock lock(mutex_);
  while (!items_.empty()) erase(items_.begin());
  OPENSSL_cleanse(key_.data(), key_.size());
}

std::optional<ParkedFiles::Entry> ParkedFiles::put(std::vector<std::uint8_t>& bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  const MutexLock lock(mutex_);
  if (!could_hold(size) || bytes_ + size > limit_ || items_.size() >= most_) return std::nullopt;
  if (waiting_bytes_ > 0 && waiting_bytes_ + size > most_waiting) return std::nullopt;
  const std::uint64_t id = ++last_id_;
  Item& item = items_[id];
  item.bytes = std::move(bytes);
  bytes = {};
  item.size = size;
  bytes_ += size;
  waiting_bytes_ += size;
  changed_.notify_all();
  return Entry(this, id);
}

bool ParkedFiles::read_ahead(std::span<const Entry* const> wanted) {
  const MutexLock lock(mutex_);
  for (auto& [id, item] : items_) item.wanted = false;
  bool all = true;
  for (const Entry* entry : wanted) {
    Item& item = items_.at(entry->id_);
    item.wanted = true;
    all = all && (item.state == State::waiting || item.state == State::failed || item.ahead);
  }
  for (auto& [id, item] : items_) {
    if (!item.wanted) item.ahead.reset();
  }
  changed_.notify_all();
  return all;
}

Result<std::vector<std::uint8_t>> ParkedFiles::take(Entry entry) {
  const std::uint64_t id = entry.id_;
  entry.files_ = nullptr;
  Item item;
  {
    const MutexLock lock(mutex_);
    const auto found = items_.find(id);
    while (busy(found->second)) changed_.wait(mutex_);
    item = std::move(found->second);
    found->second.file = -1;
    found->second.bytes.clear();
    if (item.state == State::waiting) waiting_bytes_ -= item.size;
    bytes_ -= item.size;
    items_.erase(found);
    if (item.state == State::waiting) return std::move(item.bytes);
  }
  auto bytes = item.ahead ? std::move(*item.ahead) : read(id, item);
  if (item.file >= 0) ::close(item.file);
  if (!bytes) {
    const MutexLock lock(mutex_);
    ++lost_;
  }
  return bytes;
}

void ParkedFiles::forget(std::uint64_t id) {
  const MutexLock lock(mutex_);
  const auto item = items_.find(id);
  if (item == items_.end()) return;
  if (busy(item->second)) {
    item->second.forgotten = true;
  } else {
    erase(item);
  }
}

void ParkedFiles::erase(Items::iterator item) {
  if (item->second.state == State::waiting) waiting_bytes_ -= item->second.size;
  bytes_ -= item->second.size;
  if (item->second.file >= 0) ::close(item->second.file);
  items_.erase(item);
}

std::int64_t ParkedFiles::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}
std::int64_t ParkedFiles::lost() const {
  const MutexLock lock(mutex_);
  return lost_;
}
void ParkedFiles::flush() {
  const MutexLock lock(mutex_);
  const auto works = [](const auto& i) { return must_write(i.second) || busy(i.second); };
  while (std::any_of(items_.begin(), items_.end(), works)) changed_.wait(mutex_);
}

void ParkedFiles::write_items() {
  const MutexLock lock(mutex_);
  while (!stopping_) {
    const auto next = std::find_if(items_.begin(), items_.end(), [](const auto& i) { return must_write(i.second); });
    if (next == items_.end()) {
      changed_.wait(mutex_);
      continue;
    }
    // Nobody else touches an item that is being written.
    Item& item = next->second;
    item.state = State::writing;
    mutex_.unlock();
    const int file = make_file();
    std::array<std::uint8_t, 16> tag{};
    const bool done = file >= 0 && write(next->first, item.bytes, file, tag);
    mutex_.lock();
    item.file = file;
    item.tag = tag;
    item.state = done ? State::written : State::failed;
    if (done && item.wanted) item.ahead = std::move(item.bytes);  // since it was begun
    item.bytes = {};
    waiting_bytes_ -= item.size;
    if (item.forgotten) erase(next);
    changed_.notify_all();
  }
}

void ParkedFiles::read_items() {
  const MutexLock lock(mutex_);
  while (!stopping_) {
    const auto next = std::find_if(items_.begin(), items_.end(),
                                   [](const auto& i) { return i.second.state == State::written && i.second.wanted && !i.second.ahead; });
    if (next == items_.end()) {
      changed_.wait(mutex_);
      continue;
    }
    // Nobody else touches what the file's bytes are read by.
    Item& item = next->second;
    item.reading = true;
    mutex_.unlock();
    auto bytes = read(next->first, item);
    mutex_.lock();
    item.reading = false;
    if (item.wanted) item.ahead = std::move(bytes);
    if (item.forgotten) erase(next);
    changed_.notify_all();
  }
}

// -1 with errno where that is not possible.
int ParkedFiles::make_file() const {
  const int file = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return file;
  std::string path = (folder_ / "parked-XXXXXX").string();
  const int named = ::mkostemp(path.data(), O_CLOEXEC);  // mode 0600
  if (named >= 0) ::unlink(path.c_str());
  return named;
}

bool ParkedFiles::write(std::uint64_t id, std::span<const std::uint8_t> bytes, int file, std::array<std::uint8_t, 16>& tag) const {
  const Cipher cipher(EVP_CIPHER_CTX_new());
  if (!cipher || EVP_EncryptInit_ex2(cipher.get(), EVP_aes_256_gcm(), key_.data(), nonce_of(id).data(), nullptr) != 1) return false;
  std::vector<std::uint8_t> hidden(std::min(piece, bytes.size()));
  int length = 0;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const std::size_t count = std::min(piece, bytes.size() - at);
    if (EVP_EncryptUpdate(cipher.get(), hidden.data(), &length, bytes.data() + at, static_cast<int>(count)) != 1) return false;
    if (!write_all(file, hidden.data(), count)) return false;
  }
  return EVP_EncryptFinal_ex(cipher.get(), hidden.data(), &length) == 1 &&
         EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, static_cast<int>(tag.size()), tag.data()) == 1;
}

Result<std::vector<std::uint8_t>> ParkedFiles::read(std::uint64_t id, const Item& item) const {
  if (item.state != State::written) return Error{ErrorCode::io, "it could not be written"};
  const Cipher cipher(EVP_CIPHER_CTX_new());
  if (!cipher || EVP_DecryptInit_ex2(cipher.get(), EVP_aes_256_gcm(), key_.data(), nonce_of(id).data(), nullptr) != 1) {
    return internal_error("no cipher");
  }
  std::vector<std::uint8_t> out(static_cast<std::size_t>(item.size)), hidden(std::min(piece, out.size()));
  int length = 0;
  for (std::size_t at = 0; at < out.size();) {
    const ssize_t n = ::pread(item.file, hidden.data(), std::min(hidden.size(), out.size() - at), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return Error{ErrorCode::io,
                   n == 0 ? std::string("its file is cut short") : std::string("it cannot be read: ") + std::strerror(errno)};
    if (EVP_DecryptUpdate(cipher.get(), out.data() + at, &length, hidden.data(), static_cast<int>(n)) != 1)
      return internal_error("no cipher");
    at += static_cast<std::size_t>(n);
  }
  std::array<std::uint8_t, 16> tag = item.tag;
  if (EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, static_cast<int>(tag.size()), tag.data()) != 1 ||
      EVP_DecryptFinal_ex(cipher.get(), hidden.data(), &length) != 1) {
    return Error{ErrorCode::io, "its file was changed"};
  }
  return out;
}

}  // namespace hearth::engine
