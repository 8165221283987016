// llama.cpp and ggml keep process-wide state: back ends, one log callback, threads. This is the one place that touches it. Private to engine.
#pragma once

#include <memory>
#include <string>

#include "base/mutex.h"
#include "base/result.h"

struct llama_context;
struct ggml_threadpool;

namespace hearth::engine {

// Loads the back ends and takes over the log. Any thread, any number of times.
void start_backend();

// llama.cpp reports why something failed only to its log: while one of these lives, the errors its thread logs are kept.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  // The error lines, joined with "; ", or `otherwise` when there are none.
  std::string errors(std::string otherwise) const;

 private:
  std::string text_;
  std::string* outer_;
};

// llama.cpp keeps the adapters of a model in a list without a lock: loading and freeing one writes it; making a context, and the first decode
// after its adapter has changed, read it. All of these hold this.
Mutex& adapter_list();

// ggml's compute threads. Without one attached, every graph would start and join threads of its own.
class ThreadPool {
 public:
  static Result<std::unique_ptr<ThreadPool>> create(int threads);  // 0 = physical cores this process may use
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  ggml_threadpool* pool() const { return pool_; }
  // The pool outlives the context, and computes for one context at a time.
  void attach(llama_context* context) const;

 private:
  ThreadPool(ggml_threadpool* pool, int threads, void (*free)(ggml_threadpool*)) : pool_(pool), threads_(threads), free_(free) {}

  ggml_threadpool* pool_;
  int threads_;
  void (*free_)(ggml_threadpool*);
};

}  // namespace hearth::engine
