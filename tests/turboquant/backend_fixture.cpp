#include "turboquant/backend_fixture.h"

#include <ggml-backend.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>

namespace hearth::turboquant::testing {
namespace {

std::mutex log_mutex;
std::string errors;

void keep_errors(ggml_log_level level, const char* text, void*) {
  if (std::getenv("HEARTH_TEST_LOG")) std::fputs(text, stderr);
  if (level != GGML_LOG_LEVEL_ERROR) return;
  const std::lock_guard lock(log_mutex);
  errors += text;
}

void start() {
  static const bool once = [] {
    llama_log_set(keep_errors, nullptr);
    llama_backend_init();
    return true;
  }();
  (void)once;
}

}  // namespace

std::string nano_path() { return HEARTH_SOURCE_DIR "/assets/hearth-nano-0-f16.gguf"; }

std::string random_model(const std::string& name, const std::string& arguments) {
  static std::map<std::string, std::string> made;  // arguments by name
  const std::filesystem::path folder = HEARTH_BUILD_DIR "/test-models";
  std::filesystem::create_directories(folder);
  const std::string path = folder / ("tq-" + name + ".gguf");
  if (const auto known = made.find(name); known != made.end()) {
    EXPECT_EQ(known->second, arguments) << "another model has the name " << name;
    return path;
  }
  const std::string fresh = path + "." + std::to_string(getpid());
  const std::string command =
      std::string("'") + HEARTH_MAKE_MODEL + "' --vocab '" + nano_path() + "' --type f32 " + arguments + " '" + fresh + "'";
  if (std::system(command.c_str()) != 0) {
    ADD_FAILURE() << "could not make a model: " << command;
    return {};
  }
  std::filesystem::rename(fresh, path);
  made[name] = arguments;
  return path;
}

std::string logged_errors() {
  const std::lock_guard lock(log_mutex);
  return std::exchange(errors, {});
}

std::unique_ptr<Session> Session::open(const Settings& settings) {
  start();
  std::unique_ptr<Session> s(new Session);
  llama_model_params model = llama_model_default_params();
  std::array<ggml_backend_dev_t, 2> devices{};
  model.devices = devices.data();
  if (!settings.profile.empty()) {
    BackendOptions options = settings.options;
    options.profile = settings.profile;
    auto backend = Backend::create(options);
    if (!backend) {
      ADD_FAILURE() << backend.error().message;
      return nullptr;
    }
    s->backend_ = std::move(*backend);
    devices[0] = s->backend_->device();
  }
  s->model_ = llama_model_load_from_file(settings.model.c_str(), model);
  if (!s->model_) return nullptr;
  llama_context_params context = llama_context_default_params();
  context.n_ctx = static_cast<std::uint32_t>(settings.context);
  context.n_batch = context.n_ubatch = static_cast<std::uint32_t>(settings.batch);
  context.n_seq_max = static_cast<std::uint32_t>(settings.sequences);
  context.n_threads = context.n_threads_batch = settings.threads;
  context.flash_attn_type = settings.flash;
  context.type_k = settings.type_k;
  context.type_v = settings.type_v;
  context.kv_unified = settings.unified;
  context.swa_full = settings.swa_full;
  s->context_ = llama_init_from_model(s->model_, context);
  return s->context_ ? std::move(s) : nullptr;
}

std::unique_ptr<Session> Session::must(const Settings& settings) {
  logged_errors();
  auto session = open(settings);
  if (!session) {
    ADD_FAILURE() << settings.model << " " << settings.profile << ": " << logged_errors();
    std::abort();
  }
  return session;
}

Session::~Session() {
  if (context_) llama_free(context_);
  if (model_) llama_model_free(model_);
}

std::vector<llama_token> Session::tokens(const std::string& text) const {
  std::vector<llama_token> out(text.size() + 8);
  const int n = llama_tokenize(llama_model_get_vocab(model_), text.data(), static_cast<int>(text.size()), out.data(),
                               static_cast<int>(out.size()), true, false);
  out.resize(static_cast<std::size_t>(std::max(n, 0)));
  return out;
}

std::vector<Logits> Session::feed(const std::vector<llama_token>& tokens, llama_seq_id seq) {
  const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  std::vector<Logits> out;
  llama_pos pos = llama_memory_seq_pos_max(memory(), seq) + 1;
  const std::size_t limit = llama_n_batch(context_);
  for (std::size_t begin = 0; begin < tokens.size(); begin += limit) {
    const std::size_t count = std::min(limit, tokens.size() - begin);
    llama_batch batch = llama_batch_init(static_cast<int>(count), 0, 1);
    for (std::size_t i = 0; i < count; ++i) {
      batch.token[i] = tokens[begin + i];
      batch.pos[i] = pos++;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = seq;
      batch.logits[i] = 1;
    }
    batch.n_tokens = static_cast<int>(count);
    const int failed = llama_decode(context_, batch);
    llama_batch_free(batch);
    if (failed != 0) return {};
    for (std::size_t i = 0; i < count; ++i) {
      const float* row = llama_get_logits_ith(context_, static_cast<int>(i));
      out.emplace_back(row, row + vocabulary);
    }
  }
  return out;
}

std::vector<llama_token> Session::greedy(const Logits& logits, int count, llama_seq_id seq) {
  std::vector<llama_token> out{best(logits)};
  while (static_cast<int>(out.size()) < count) {
    const auto next = feed({out.back()}, seq);
    if (next.empty()) break;
    out.push_back(best(next.back()));
  }
  return out;
}

std::vector<Logits> Session::step(const std::vector<llama_token>& tokens, const std::vector<llama_seq_id>& seqs) {
  const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = llama_memory_seq_pos_max(memory(), seqs[i]) + 1;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = seqs[i];
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<int>(tokens.size());
  std::vector<Logits> out;
  if (llama_decode(context_, batch) == 0) {
    for (int i = 0; i < batch.n_tokens; ++i) {
      const float* row = llama_get_logits_ith(context_, i);
      out.emplace_back(row, row + vocabulary);
    }
  }
  llama_batch_free(batch);
  return out;
}

std::vector<std::uint8_t> Session::save(llama_seq_id seq) {
  std::vector<std::uint8_t> state(llama_state_seq_get_size(context_, seq));
  state.resize(llama_state_seq_get_data(context_, state.data(), state.size(), seq));
  return state;
}

std::size_t Session::load(const std::vector<std::uint8_t>& state, llama_seq_id seq) {
  return llama_state_seq_set_data(context_, state.data(), state.size(), seq);
}

llama_token best(const Logits& logits) { return static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) - logits.begin()); }

double divergence(const Logits& p, const Logits& q) {
  const auto log_sum = [](const Logits& row) {
    const double max = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) sum += std::exp(x - max);
    return max + std::log(sum);
  };
  const double zp = log_sum(p), zq = log_sum(q);
  double out = 0;
  for (std::size_t i = 0; i < p.size(); ++i) out += std::exp(p[i] - zp) * ((p[i] - zp) - (q[i] - zq));
  return out;
}

std::vector<llama_token> prompt(const Session& session, int count) {
  std::string text;
  unsigned state = 7;
  while (text.size() < static_cast<std::size_t>(count) * 8) {
    state = state * 1664525U + 1013904223U;
    constexpr std::array<const char*, 12> words{"the ",  "server ", "reads ",    "a file ", "and ",      "answers. ",
                                                "When ", "memory ", "is full, ", "old ",    "requests ", "wait. "};
    text += words[state >> 24 & 255U ? (state >> 20) % words.size() : 0];
  }
  auto out = session.tokens(text);
  out.resize(static_cast<std::size_t>(count));
  return out;
}

}  // namespace hearth::turboquant::testing
