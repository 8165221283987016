#include "engine/backend.h"

#include <common.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <llama.h>
#include <log.h>
#include <mtmd-helper.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/log.h"
#include "engine/engine.h"

namespace hearth::engine {
namespace {

std::atomic<bool> routed{false};
std::atomic<void (*)(std::string_view)> told_of_abort{nullptr};
thread_local std::string* captured = nullptr;

void on_log(ggml_log_level level, const char* text, void*) {
  std::string_view line(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
  if (line.empty()) return;
  if (level == GGML_LOG_LEVEL_ERROR && captured) {
    if (!captured->empty()) *captured += "; ";
    *captured += line;
  }
  if (!routed) return;
  // Debug lines quote tokens of prompts and answers, which are never logged.
  switch (level) {
    case GGML_LOG_LEVEL_ERROR: spdlog::error("llama.cpp: {}", line); break;
    case GGML_LOG_LEVEL_WARN: spdlog::warn("llama.cpp: {}", line); break;
    case GGML_LOG_LEVEL_INFO: spdlog::debug("llama.cpp: {}", line); break;
    default: break;
  }
}

#ifdef HEARTH_BACKEND_DL
// Where the CPU variants are: beside the installed program, or in the folder of a build tree. Never the working folder, which ggml would search by
// itself: whoever can write there could have code run.
std::string backend_folder() {
  std::error_code failed;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  const auto installed = program / "../lib/hearth";
  return std::filesystem::is_directory(installed, failed) ? installed : program / "../../bin";
}
#endif

}  // namespace

void start_backend() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(on_log, nullptr);
    mtmd_helper_log_set(on_log, nullptr);
    common_log_set_verbosity_thold(-1);  // the common library prints model output in its warnings
#ifdef HEARTH_BACKEND_DL
    ggml_backend_load_all_from_path(backend_folder().c_str());
#endif
    llama_backend_init();
  });
}

void on_abort(void (*handler)(std::string_view reason)) {
  told_of_abort = handler;
  ggml_set_abort_callback([](const char* reason) { told_of_abort.load()(reason); });
}

LogCapture::LogCapture() : outer_(captured) { captured = &text_; }
LogCapture::~LogCapture() { captured = outer_; }

std::string LogCapture::errors(std::string otherwise) const {
  if (!text_.empty()) return text_;
  return otherwise;
}

Mutex& adapter_list() {
  static Mutex mutex;
  return mutex;
}

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(int threads) {
  start_backend();
  if (threads <= 0) {
    int allowed = static_cast<int>(std::thread::hardware_concurrency());
    threads = std::max(1, std::min(allowed > 0 ? allowed : 1, static_cast<int>(common_cpu_get_num_physical_cores())));
  }
  threads = std::min(threads, GGML_MAX_N_THREADS);
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  if (!cpu) return Error{ErrorCode::io, "no ggml CPU back end was found: reinstall hearth, its libraries (libggml-cpu-*.so) are missing"};
  // Through the registry, because the CPU back end may be a shared library chosen at run time.
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(cpu);
  auto* make = reinterpret_cast<decltype(ggml_threadpool_new)*>(ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new"));
  auto* free = reinterpret_cast<decltype(ggml_threadpool_free)*>(ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free"));
  if (!make || !free) return internal_error("ggml's CPU back end offers no thread pool");
  ggml_threadpool_params params;
  ggml_threadpool_params_init(&params, threads);
  ggml_threadpool* pool = make(&params);
  if (!pool)
    return Error{ErrorCode::io, "could not start " + std::to_string(threads) + " compute threads; set a smaller number of threads"};
  return std::unique_ptr<ThreadPool>(new ThreadPool(pool, threads, free));
}

ThreadPool::~ThreadPool() { free_(pool_); }

void ThreadPool::attach(llama_context* context) const { llama_attach_threadpool(context, pool_, nullptr); }

std::vector<Device> devices() {
  start_backend();
  std::vector<Device> out;
  for (std::size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t dev = ggml_backend_dev_get(i);
    auto type = ggml_backend_dev_type(dev);
    Device device{.name = ggml_backend_dev_name(dev),
                  .description = ggml_backend_dev_description(dev),
                  .gpu = type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU};
    std::size_t free = 0, total = 0;
    ggml_backend_dev_memory(dev, &free, &total);
    device.memory_free = static_cast<std::int64_t>(free);
    device.memory_total = static_cast<std::int64_t>(total);
    out.push_back(std::move(device));
  }
  return out;
}

std::string cpu_features() {
  start_backend();
  std::string info = llama_print_system_info();
  while (!info.empty() && (info.back() == ' ' || info.back() == '|')) info.pop_back();
  return info;
}

std::string llama_cpp_version() { return llama_version(); }

void route_engine_logs() {
  start_backend();
  routed = true;
}

}  // namespace hearth::engine
