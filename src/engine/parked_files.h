// KV that leaves host memory and is still wanted goes to disk: prefixes nobody uses and paused requests, past their budgets. What lies there is as private as
// the prompts it was computed from, so it is encrypted under a key that only this process has, in files without names: when the process ends, in whatever
// way, they are gone, and what remains in free blocks cannot be read. No later process can find them, so none can mistake them for its own.
//
// AES-256-GCM: the tag of each entry stays in memory, so that what is damaged, cut short or exchanged is recognised and never used.
//
// Writing is the work of a thread of its own, and so is reading what is asked for ahead. Any thread; entries must not outlive the store.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"

namespace hearth::engine {

class ParkedFiles {
 public:
  // Makes `folder` (mode 0700) where it is missing. `bytes`: of all entries together.
  static Result<std::unique_ptr<ParkedFiles>> open(const std::filesystem::path& folder, std::int64_t bytes);
  ~ParkedFiles();
  ParkedFiles(const ParkedFiles&) = delete;
  ParkedFiles& operator=(const ParkedFiles&) = delete;

  // Something that was put. Whoever drops it gives it up.
  class Entry {
   public:
    Entry() = default;
    Entry(Entry&& other) noexcept : files_(std::exchange(other.files_, nullptr)), id_(other.id_) {}
    Entry& operator=(Entry&& other) noexcept {
      std::swap(files_, other.files_);
      std::swap(id_, other.id_);
      return *this;
    }
    ~Entry() {
      if (files_ != nullptr) files_->forget(id_);
    }
    explicit operator bool() const { return files_ != nullptr; }

   private:
    friend class ParkedFiles;
    Entry(ParkedFiles* files, std::uint64_t id) : files_(files), id_(id) {}
    ParkedFiles* files_ = nullptr;
    std::uint64_t id_ = 0;
  };

  // Takes `bytes` over. Nothing, and `bytes` as they were, where there is no room: the budget is used up, or the disk is slower than what comes.
  std::optional<Entry> put(std::vector<std::uint8_t>& bytes);
  // Reads these, so that take() need not wait for the disk: true once it would not for any of them. What was read ahead and is not among them is forgotten
  // again. Entries of this store.
  bool read_ahead(std::span<const Entry* const> wanted);
  // What was put; an error where it could not be written, cannot be read, or is not what was written. The entry is gone either way.
  Result<std::vector<std::uint8_t>> take(Entry entry);
  // Whether an entry of this size can ever be put.
  bool could_hold(std::int64_t size) const { return size > 0 && size <= limit_; }

  std::int64_t bytes() const;  // held
  std::int64_t lost() const;   // entries that could not be given back
  void flush();                // returns when nothing waits to be written, and nothing is being read

 private:
  enum class State : std::uint8_t { waiting, writing, written, failed };
  struct Item {
    State state = State::waiting;
    bool wanted = false;  // ahead of being taken
    bool reading = false;
    bool forgotten = false;           // while it was being written or read
    std::vector<std::uint8_t> bytes;  // until it is written
    std::optional<Result<std::vector<std::uint8_t>>> ahead;
    std::int64_t size = 0;
    int file = -1;
    std::array<std::uint8_t, 16> tag{};
  };
  using Items = std::map<std::uint64_t, Item>;

  ParkedFiles(std::filesystem::path folder, std::int64_t limit, std::size_t most);
  void forget(std::uint64_t id);
  void erase(Items::iterator item) REQUIRES(mutex_);
  static bool must_write(const Item& item) { return item.state == State::waiting && !item.wanted; }
  static bool busy(const Item& item) { return item.state == State::writing || item.reading; }
  void write_items();
  void read_items();
  int make_file() const;
  bool write(std::uint64_t id, std::span<const std::uint8_t> bytes, int file, std::array<std::uint8_t, 16>& tag) const;
  Result<std::vector<std::uint8_t>> read(std::uint64_t id, const Item& item) const;

  const std::filesystem::path folder_;
  const std::int64_t limit_;
  const std::size_t most_;  // entries: each is an open file
  std::array<std::uint8_t, 32> key_{};
  mutable Mutex mutex_;
  Condition changed_;
  Items items_ GUARDED_BY(mutex_);
  std::uint64_t last_id_ GUARDED_BY(mutex_) = 0;
  std::int64_t bytes_ GUARDED_BY(mutex_) = 0, waiting_bytes_ GUARDED_BY(mutex_) = 0, lost_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread writer_, reader_;
};

}  // namespace hearth::engine
