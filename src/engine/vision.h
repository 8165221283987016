// Images for a model that was made to read them: a second model, the projector (GGUF, "mmproj"), turns each into rows that stand in the prompt where
// tokens would. Projectors are large and images rare, so it is loaded when the first image comes and leaves when none has come for a while.
//
// Encoding takes from tens of milliseconds to seconds. It happens here, on the thread of whoever asks, before the request enters the scheduler: streams
// go on meanwhile. What was encoded is kept for the next turns of the conversation. Private to engine; thread-safe.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "engine/chat_format.h"
#include "engine/decoder.h"
#include "engine/scheduler.h"

struct llama_model;
struct llama_vocab;
struct mtmd_context;

namespace hearth::engine {

struct VisionOptions {
  std::string path;
  bool gpu = true;
  int threads = 1;
  bool flash_attention = true;
  std::chrono::milliseconds idle{0};                   // loaded for so long after its last use; 0 = for ever
  std::int64_t cache_bytes = std::int64_t{256} << 20;  // encoded images kept beyond those in use
};

// A prompt with its images as the scheduler takes it.
struct SeenPrompt {
  std::vector<Token> tokens;
  std::vector<ImagePtr> images;
};

class Vision {
 public:
  // Checks the file's header; nothing is loaded yet. `model` outlives this.
  static Result<std::unique_ptr<Vision>> create(const llama_model* model, VisionOptions options);
  ~Vision();

  // Decodes, tokenizes and encodes. A prompt of more than `most_tokens` comes back without images: it will be refused anyway.
  Result<SeenPrompt> read(const RenderedChat& chat, int most_tokens);
  // How many tokens and rows that prompt has.
  Result<int> count(const RenderedChat& chat);
  void report(SchedulerStats& stats) const;

 private:
  struct Unload {
    void operator()(mtmd_context* context) const;
  };
  // What is known of an image's piece. Its placeholders stay its own while the entry lives, so that prefixes computed with it are found again.
  struct Known {
    std::string key;  // content, number of the piece, rows
    Token first = 0;
    int count = 0;
    ImagePtr rows;                        // while kept
    std::weak_ptr<const ImageRows> used;  // while a request holds them
  };
  using Order = std::list<Known>;  // least recently used first
  struct Picture {
    std::string bytes;
    int width = 0, height = 0;
  };

  Vision(const llama_model* model, VisionOptions options, std::int64_t bytes);
  Result<std::vector<Picture>> decode(const RenderedChat& chat) const;
  Result<std::shared_ptr<mtmd_context>> projector();
  Result<SeenPrompt> tokenize(const RenderedChat& chat, int most_tokens, bool encode);
  Result<ImagePtr> rows_of(mtmd_context* context, const void* chunk, const std::string& key);
  Token reserve(int count) REQUIRES(mutex_);
  void keep(Order::iterator entry, ImagePtr rows) REQUIRES(mutex_);
  void watch();

  const llama_model* const model_;
  const llama_vocab* const vocab_;
  const VisionOptions options_;
  const std::int64_t bytes_;  // of the projector's weights
  Mutex encoding_;            // one computation at a time: the projector has one set of buffers

  mutable Mutex mutex_;
  Condition changed_;
  std::shared_ptr<mtmd_context> loaded_ GUARDED_BY(mutex_);
  std::optional<Error> refused_ GUARDED_BY(mutex_);  // the projector belongs to another model
  std::chrono::steady_clock::time_point last_used_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  Order order_ GUARDED_BY(mutex_);
  std::map<std::string, Order::iterator> known_ GUARDED_BY(mutex_);
  std::map<Token, int> reserved_ GUARDED_BY(mutex_);  // by the last placeholder of a range: how many it has
  Token next_ GUARDED_BY(mutex_) = first_placeholder;
  std::int64_t kept_bytes_ GUARDED_BY(mutex_) = 0;
  std::int64_t loads_ GUARDED_BY(mutex_) = 0;
  std::int64_t encoded_ GUARDED_BY(mutex_) = 0;
  std::thread watcher_;  // last: everything it uses exists before it starts
};

}  // namespace hearth::engine
