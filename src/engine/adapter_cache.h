// LoRA adapters come and go while the model serves: a request names one, and it has to be there by the time the request is computed. This cache
// finds it among those configured and in the adapters' folder, refuses what does not fit the model before llama.cpp would end the process over
// it, loads it while others stream, and keeps the recently used ones within a budget of bytes. What a request holds is never unloaded.
// Private to engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "catalog/gguf.h"
#include "engine/engine.h"
#include "engine/llama_decoder.h"

namespace hearth::engine {

class AdapterCache {
 public:
  struct Base {
    llama_model* model = nullptr;  // outlives the cache and everything it gave out
    std::string architecture;
    std::vector<catalog::GgufTensor> tensors;
  };
  AdapterCache(Base base, std::vector<AdapterSpec> configured, const std::string& folder, std::int64_t bytes);
  ~AdapterCache();

  // The adapter a request names, loaded if need be, which blocks. Any thread but the scheduler's. Errors name the field "adapter":
  // model_not_found (lists those there are), invalid_request for a path elsewhere, model_invalid for a damaged file, unsupported for one that does
  // not fit this model or the whole budget, overloaded while those in use fill it.
  Result<AdapterPtr> acquire(const std::string& wanted);
  // Those that can be named, configured ones first.
  std::vector<std::string> names() const;
  void report(SchedulerStats& stats) const;

 private:
  struct Source {
    std::string path;
    float scale = 1;
    bool operator==(const Source&) const = default;
  };
  // A file that was written anew is another adapter.
  struct Version {
    std::int64_t bytes = 0, changed = 0;
    std::uint64_t inode = 0;
    bool operator==(const Version&) const = default;
  };
  struct Entry {
    Source source;
    Version version;
    std::int64_t bytes = 0;  // of its tensors; counted from when loading begins
    std::uint64_t used = 0;
    AdapterPtr adapter;  // null while it is being loaded
  };

  Result<Source> resolve(const std::string& wanted) const;
  Error unknown(const std::string& wanted) const;
  Result<std::int64_t> check(const Source& source) const;
  Result<void> check_tensors(const catalog::Gguf& file) const;
  Result<void> check_pair(const std::string& name, const catalog::GgufTensor& a, const catalog::GgufTensor& b) const;
  const catalog::GgufTensor* base_tensor(const std::string& name) const;
  Result<AdapterPtr> load(const Source& source, std::uint64_t id, Entry& entry);
  Result<void> make_room(std::int64_t bytes, std::vector<AdapterPtr>& evicted) REQUIRES(mutex_);

  const Base base_;
  const std::vector<AdapterSpec> configured_;
  const std::filesystem::path folder_;  // empty: none
  const std::int64_t limit_;

  mutable Mutex mutex_;
  Condition loaded_;
  std::vector<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  std::int64_t bytes_ GUARDED_BY(mutex_) = 0;
  std::int64_t loads_ GUARDED_BY(mutex_) = 0;
  std::uint64_t uses_ GUARDED_BY(mutex_) = 0;
  std::uint64_t last_id_ GUARDED_BY(mutex_) = 0;
};

}  // namespace hearth::engine
