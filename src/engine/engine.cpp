#include "engine/engine.h"

#include <common.h>
#include <fcntl.h>
#include <ggml-backend.h>
#include <llama.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <future>
#include <random>

#include "base/log.h"
#include "base/mutex.h"
#include "base/utf8.h"
#include "catalog/model.h"
#include "engine/adapter_cache.h"
#include "engine/backend.h"
#include "engine/chat_format.h"
#include "engine/draft_model.h"
#include "engine/llama_decoder.h"
#include "engine/mtp_draft.h"
#include "engine/ngram_draft.h"
#include "engine/parked_files.h"
#include "engine/vision.h"
#include "turboquant/backend.h"
#include "turboquant/profile.h"

namespace hearth::engine {
namespace {

constexpr int kDefaultContextMin = 8192, kDefaultContextMax = 32768;
constexpr int kMaxChoices = 128;
constexpr int kMaxTopLogprobs = 20;

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
using ModelPtr = std::unique_ptr<llama_model, ModelDeleter>;

struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};
using ContextPtr = std::unique_ptr<llama_context, ContextDeleter>;

struct FileDeleter {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FilePtr = std::unique_ptr<std::FILE, FileDeleter>;

std::string reason(int error) { return std::strerror(error); }

struct ModelFile {
  FilePtr file;  // of the embedded model; others are opened by their path
  std::int64_t bytes = 0;
  std::int64_t changed = 0;  // Unix seconds
  std::vector<catalog::GgufTensor> tensors;
  std::int64_t mtp_layers = 0;
  std::string mtp_obstacle;  // as in catalog::ModelSummary
  int layers = 0, head_size = 0;
};

// Refuses what is no whole model, and says why, before llama.cpp sees it: that only knows "failed".
Result<ModelFile> open_model(const EngineOptions& options) {
  ModelFile out;
  struct stat info{};
  if (options.model_path == "embedded:") {
    if (options.embedded_model.empty()) return Error{ErrorCode::config_invalid, "this build has no embedded model: name a GGUF file"};
    const std::string name = "the embedded model";
    auto summary = catalog::parse_model(options.embedded_model, name);
    if (!summary) return std::move(summary).error();
    out.bytes = static_cast<std::int64_t>(summary->file_bytes);
    out.mtp_layers = summary->mtp_layers, out.mtp_obstacle = summary->mtp_obstacle;
    out.layers = static_cast<int>(summary->layers), out.head_size = static_cast<int>(std::min(summary->key_length, summary->value_length));
    auto gguf = catalog::parse_gguf(options.embedded_model, name);
    if (!gguf) return std::move(gguf).error();
    out.tensors = std::move(gguf->tensors);
    int fd = memfd_create("model.gguf", MFD_CLOEXEC);
    if (fd < 0) return Error{ErrorCode::io, "no memory file for the embedded model: " + reason(errno)};
    out.file.reset(fdopen(fd, "r+b"));
    if (std::fwrite(options.embedded_model.data(), 1, options.embedded_model.size(), out.file.get()) != options.embedded_model.size()) {
      return Error{ErrorCode::io, "the embedded model could not be unpacked into memory: " + reason(errno)};
    }
    std::fseek(out.file.get(), 0, SEEK_SET);
    if (stat("/proc/self/exe", &info) == 0) out.changed = info.st_mtime;
    return out;
  }
  auto summary = catalog::read_model(options.model_path);
  if (!summary) return std::move(summary).error();
  out.bytes = static_cast<std::int64_t>(summary->file_bytes);
  out.mtp_layers = summary->mtp_layers, out.mtp_obstacle = summary->mtp_obstacle;
  out.layers = static_cast<int>(summary->layers), out.head_size = static_cast<int>(std::min(summary->key_length, summary->value_length));
  if (stat(options.model_path.c_str(), &info) == 0) out.changed = info.st_mtime;
  for (const std::string& part : summary->files) {
    auto gguf = catalog::read_gguf(part);
    if (!gguf) return std::move(gguf).error();
    std::move(gguf->tensors.begin(), gguf->tensors.end(), std::back_inserter(out.tensors));
  }
  return out;
}

// llama.cpp keeps a layer's KV cache on the layer's device: the one that compresses stands before the GPU, or else the CPU.
Result<std::unique_ptr<turboquant::Backend>> compress(const EngineOptions& options, const ModelFile& file, const ThreadPool& threads) {
  if (!options.flash_attention) {
    return Error{ErrorCode::config_invalid,
                 "the KV type " + options.kv_type + " needs flash attention: leave it on, or use f16, q8_0 or q4_0"};
  }
  ggml_backend_dev_t gpu = options.gpu_layers == 0 ? nullptr : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
  return turboquant::Backend::create({.profile = options.kv_type,
                                      .layers = file.layers,
                                      .head_size = file.head_size,
                                      .pool = threads.pool(),
                                      .log =
                                          [](bool error, std::string_view line) {
                                            if (error) {
                                              spdlog::error("{}", line);
                                            } else {
                                              spdlog::info("{}", line);
                                            }
                                          }},
                                     gpu);
}

std::string meta(const llama_model* model, const std::string& key) {
  char value[256];
  return llama_model_meta_val_str(model, key.c_str(), value, sizeof value) >= 0 ? value : "";
}

std::size_t index_of(int i) { return static_cast<std::size_t>(i); }

// A context that answers one vector per sequence, made when first asked for and grown when an input needs more room.
class PooledContext {
 public:
  static constexpr std::size_t max_sequences = 64;

  PooledContext(llama_model* model, const ThreadPool& threads, enum llama_pooling_type pooling, int width, bool flash_attention)
      : model_(model), threads_(threads), pooling_(pooling), width_(width), flash_attention_(flash_attention) {}

  // When the computation last moved: llama.cpp calls back between the operations of a pass, so that a long one is told from one that hangs.
  // Any thread.
  TimePoint last_beat() const { return TimePoint(Duration(beat_.load(std::memory_order_relaxed))); }
  void beat() { beat_.store(Clock::system().now().time_since_epoch().count(), std::memory_order_relaxed); }

  // One forward pass over all `inputs`, at most max_sequences of them. One thread at a time.
  Result<std::vector<std::vector<float>>> run(std::span<const std::vector<Token>> inputs) {
    std::size_t total = 0;
    for (const auto& input : inputs) total += input.size();
    if (auto ok = reserve(total); !ok) return ok.error();
    if (llama_memory_t memory = llama_get_memory(context_.get())) llama_memory_clear(memory, false);
    llama_batch batch = llama_batch_init(static_cast<int>(total), 0, 1);
    for (std::size_t s = 0; s < inputs.size(); ++s) {
      for (std::size_t i = 0; i < inputs[s].size(); ++i) {
        common_batch_add(batch, inputs[s][i], static_cast<llama_pos>(i), {static_cast<llama_seq_id>(s)}, true);
      }
    }
    LogCapture log;
    int rc = llama_decode(context_.get(), batch);
    llama_batch_free(batch);
    if (rc != 0) return internal_error("the computation failed (" + std::to_string(rc) + "): " + log.errors("no reason given"));
    std::vector<std::vector<float>> out;
    for (std::size_t s = 0; s < inputs.size(); ++s) {
      const float* values = llama_get_embeddings_seq(context_.get(), static_cast<llama_seq_id>(s));
      if (!values) return internal_error("the model gave no vector for an input");
      out.emplace_back(values, values + width_);
    }
    return out;
  }

 private:
  Result<void> reserve(std::size_t tokens) {
    if (tokens <= capacity_) return {};
    std::size_t capacity = std::bit_ceil(std::max<std::size_t>(tokens, 512));
    llama_context_params params = llama_context_default_params();
    // Pooling sees a sequence only if all of it is in one physical batch.
    params.n_ctx = params.n_batch = params.n_ubatch = static_cast<std::uint32_t>(capacity);
    params.n_seq_max = max_sequences;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = threads_.threads();
    params.pooling_type = pooling_;
    params.embeddings = true;
    params.flash_attn_type = flash_attention_ ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.no_perf = true;
    params.abort_callback = [](void* self) {
      static_cast<PooledContext*>(self)->beat();
      return false;
    };
    params.abort_callback_data = this;
    LogCapture log;
    context_.reset();
    capacity_ = 0;
    {
      const MutexLock lock(adapter_list());
      context_.reset(llama_init_from_model(model_, params));
    }
    if (!context_)
      return internal_error("no context for " + std::to_string(tokens) + " tokens: " + log.errors("llama.cpp gives no reason"));
    threads_.attach(context_.get());
    capacity_ = capacity;
    return {};
  }

  llama_model* model_;
  const ThreadPool& threads_;
  enum llama_pooling_type pooling_;
  int width_;
  bool flash_attention_;
  ContextPtr context_;
  std::size_t capacity_ = 0;
  std::atomic<Duration::rep> beat_{0};
};

// Joins the prompts of one request into one stream of events. Events wait until every prompt has been accepted: a request is answered whole
// or refused whole. All but open() and close() run on the scheduler's thread.
class Answer {
 public:
  Answer(std::shared_ptr<EventSink> sink, std::size_t prompts, int choices, int prompt_tokens)
      : sink_(std::move(sink)), unfinished_(static_cast<int>(prompts) * choices), prompt_tokens_(prompt_tokens) {}

  void open() {
    MutexLock lock(mutex_);
    state_ = State::open;
    if (!waiting_.empty()) sink_->on_events(std::exchange(waiting_, {}));
  }
  void close() {
    MutexLock lock(mutex_);
    state_ = State::closed;
    waiting_.clear();
  }

  // The first prompt's start is the answer's, with the tokens of all: only the cached ones of the others are not known yet.
  void started(int prompt_tokens, int cached) {
    usage_.prompt_tokens += prompt_tokens;
    usage_.cached_tokens += cached;
    if (std::exchange(started_, true)) return;
    chat::Events events;
    events.push_back(chat::Started{prompt_tokens_, cached});
    deliver(std::move(events), 0, false);
  }
  void guessed(int drafted, int accepted) {
    usage_.drafted_tokens += drafted;
    usage_.accepted_tokens += accepted;
  }
  void deliver(chat::Events events, int tokens, bool finished) {
    if (failed_) return;  // another prompt has ended the answer
    usage_.completion_tokens += tokens;
    if (finished && --unfinished_ == 0) events.push_back(usage_);
    if (!events.empty()) send(std::move(events));
  }
  void fail(Error error) {
    if (std::exchange(failed_, true)) return;
    chat::Events events;
    events.push_back(chat::Failed{std::move(error)});
    send(std::move(events));
  }
  std::size_t backlog() const { return sink_->backlog(); }

 private:
  enum class State { waiting, open, closed };
  void send(chat::Events events) {
    MutexLock lock(mutex_);
    if (state_ == State::open) sink_->on_events(std::move(events));
    else if (state_ == State::waiting) std::move(events.begin(), events.end(), std::back_inserter(waiting_));
  }

  std::shared_ptr<EventSink> sink_;
  int unfinished_;
  const int prompt_tokens_;  // of all prompts
  bool started_ = false;
  bool failed_ = false;
  chat::Usage usage_;
  Mutex mutex_;
  State state_ GUARDED_BY(mutex_) = State::waiting;
  chat::Events waiting_ GUARDED_BY(mutex_);
};

// One prompt's choices.
class PromptSink final : public GenerationSink {
 public:
  PromptSink(std::shared_ptr<Answer> answer, int first_choice, int choices, std::shared_ptr<const OutputSyntax> syntax, std::string echo,
             bool echo_scored)
      : answer_(std::move(answer)), first_choice_(first_choice), choices_(choices), echo_(std::move(echo)), echo_scored_(echo_scored) {
    for (int i = 0; syntax && i < choices; ++i) parsers_.push_back(std::make_unique<OutputParser>(syntax, first_choice + i));
  }

  void on_started(int prompt_tokens, int cached) override {
    answer_->started(prompt_tokens, cached);
    if (echo_.empty()) return;
    chat::Events events;
    // The first choice's echo follows the prompt's scores, when there are any.
    for (int i = echo_scored_ ? 1 : 0; i < choices_; ++i) events.push_back(chat::TextDelta{first_choice_ + i, echo_});
    answer_->deliver(std::move(events), 0, false);
  }

  void on_delta(SequenceDelta delta) override {
    int choice = first_choice_ + delta.choice;
    answer_->guessed(delta.drafted, delta.accepted);
    chat::Events events;
    if (delta.choice == 0 && echo_scored_ && !echoed_ && (delta.token_count > 0 || delta.finished)) {
      events.push_back(chat::TextDelta{choice, echo_});
      echoed_ = true;
    }
    for (chat::TokenInfo& info : delta.tokens) {
      info.choice = choice;
      events.push_back(std::move(info));
    }
    if (!parsers_.empty()) {
      OutputParser& parser = *parsers_[index_of(delta.choice)];
      append(events, parser.feed(delta.text));
      if (delta.finished) append(events, parser.finish(*delta.finished, std::move(delta.stop_sequence)));
    } else {
      if (!delta.text.empty()) events.push_back(chat::TextDelta{choice, std::move(delta.text)});
      if (delta.finished) events.push_back(chat::Finished{choice, *delta.finished, std::move(delta.stop_sequence)});
    }
    answer_->deliver(std::move(events), delta.token_count, delta.finished.has_value());
  }

  void on_failed(Error error) override { answer_->fail(std::move(error)); }
  std::size_t backlog() const override { return answer_->backlog(); }

 private:
  static void append(chat::Events& to, chat::Events from) { std::move(from.begin(), from.end(), std::back_inserter(to)); }

  std::shared_ptr<Answer> answer_;
  int first_choice_, choices_;
  std::string echo_;
  bool echo_scored_, echoed_ = false;
  std::vector<std::unique_ptr<OutputParser>> parsers_;  // empty: the text is the answer
};

// Collects the prompt's own scores.
class ScoreSink final : public GenerationSink {
 public:
  std::future<Result<std::vector<chat::TokenInfo>>> result() { return promise_.get_future(); }
  void on_started(int, int) override {}
  void on_delta(SequenceDelta delta) override {
    std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(tokens_));
    if (delta.finished) promise_.set_value(std::move(tokens_));
  }
  void on_failed(Error error) override { promise_.set_value(std::move(error)); }
  std::size_t backlog() const override { return 0; }

 private:
  std::promise<Result<std::vector<chat::TokenInfo>>> promise_;
  std::vector<chat::TokenInfo> tokens_;
};

// Puts query and document in the form's places, in one pass: neither text is itself read as a form.
std::string fill_rerank_form(std::string_view form, const std::string& query, const std::string& document) {
  constexpr std::string_view query_place = "{query}", document_place = "{document}";
  std::string out;
  while (!form.empty()) {
    bool at_query = form.starts_with(query_place), at_document = form.starts_with(document_place);
    if (at_query) out += query;
    else if (at_document) out += document;
    else out += form[0];
    form.remove_prefix(at_query ? query_place.size() : at_document ? document_place.size() : 1);
  }
  return out;
}

Result<void> check_range(std::optional<float> value, float low, float high, const char* name) {
  if (!value || (*value >= low && *value <= high)) return {};
  auto number = [](float x) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", static_cast<double>(x));
    return std::string(text);
  };
  return invalid(std::string(name) + " is " + number(*value) + "; it must be between " + number(low) + " and " + number(high), name);
}

class LlamaEngine final : public Engine {
 public:
  explicit LlamaEngine(EngineOptions options) : options_(std::move(options)) {}
  Result<void> load(const std::function<bool(float)>& progress);

  chat::ModelInfo info() const override;
  Result<GenerationHandle> generate(const chat::Request& request, std::shared_ptr<EventSink> sink) override;
  Result<int> count_tokens(const chat::Request& request) override;
  Result<chat::Embeddings> embed(const chat::EmbeddingRequest& request) override;
  Result<chat::RerankResult> rerank(const chat::RerankRequest& request) override;
  Result<std::vector<chat::TokenInfo>> score(const chat::Request& request) override;
  SchedulerStats stats() const override;
  void drain() override;
  bool wait_idle(std::chrono::milliseconds up_to) override;

 private:
  struct Prompt {
    std::vector<Token> tokens;
    std::string text = {};              // what echo repeats
    std::vector<ImagePtr> images = {};  // in `tokens`
  };

  std::vector<Token> tokenize(const std::string& text, bool add_special, bool parse_special) const {
    return common_tokenize(vocab_, text, add_special, parse_special);
  }
  Result<std::vector<Token>> raw_tokens(const chat::RawPrompt& prompt, const std::string& param) const;
  Result<Prompt> chat_prompt(const RenderedChat& chat);
  Result<SamplerSpec> sampler(const chat::Request& request) const;
  Error cannot_generate() const;
  Result<AdapterPtr> adapter(const chat::Request& request);
  // Who guesses, as options_.speculation says; null for nobody.
  Result<std::unique_ptr<DraftSource>> draft_source() const;
  // Whether that are the model's own blocks; config_invalid where they are asked for and cannot.
  Result<bool> uses_mtp(const ModelFile& file) const;
  // Each input's pooled vector, in order, in as few passes as fit.
  Result<std::vector<std::vector<float>>> pooled(const std::vector<std::vector<Token>>& inputs);
  // Runs `job` where nothing else uses the threads: between the scheduler's ticks, or alone when the model does not generate.
  Result<void> exclusively(const std::function<void()>& job);

  EngineOptions options_;
  chat::ModelInfo info_;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<turboquant::Backend> compression_;  // of the KV cache; null: none
  ModelPtr model_;
  const llama_vocab* vocab_ = nullptr;
  int width_ = 0;                           // of an embedding, or of a classifier's output
  std::unique_ptr<AdapterCache> adapters_;  // goes after all that holds adapters, before their model
  std::unique_ptr<ChatFormat> chat_format_;
  std::unique_ptr<Vision> vision_;  // null: text only
  std::unique_ptr<LlamaDecoder> decoder_;
  bool mtp_ = false;  // the model was loaded with its blocks for that
  std::unique_ptr<PooledContext> pooled_;
  std::unique_ptr<DraftSource> drafts_;
  std::unique_ptr<Speculator> speculator_;
  std::unique_ptr<ParkedFiles> parked_files_;
  std::unique_ptr<Scheduler> scheduler_;  // stops before what it uses goes

  // For models without a scheduler.
  Mutex alone_;  // around a job that uses pooled_
  mutable Mutex state_mutex_;
  Condition idle_;
  int working_ GUARDED_BY(state_mutex_) = 0;
  bool draining_ GUARDED_BY(state_mutex_) = false;
};

Result<void> LlamaEngine::load(const std::function<bool(float)>& progress) {
  start_backend();
  std::string name = options_.model_path == "embedded:" ? "the embedded model" : options_.model_path;
  if (auto kv = kv_type_from_name(options_.kv_type); !kv) return std::move(kv).error();
  auto file = open_model(options_);
  if (!file) return std::move(file).error();
  auto threads = ThreadPool::create(options_.threads);
  if (!threads) return std::move(threads).error();
  threads_ = std::move(*threads);

  auto mtp = uses_mtp(*file);
  if (!mtp) return std::move(mtp).error();
  mtp_ = *mtp;

  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = options_.gpu_layers;
  params.load_mtp = mtp_;
  std::array<ggml_backend_dev_t, 2> devices{};  // a list that ends with null
  if (turboquant::find_profile(options_.kv_type)) {
    auto compression = compress(options_, *file, *threads_);
    if (!compression) return std::move(compression).error();
    compression_ = std::move(*compression);
    devices[0] = compression_->device();
    params.devices = devices.data();
    params.n_gpu_layers = -1;  // all layers keep their cache there
  }
  struct Progress {
    const std::function<bool(float)>& callback;
    bool stopped = false;
  } state{progress};
  params.progress_callback = [](float done, void* data) {
    auto* p = static_cast<Progress*>(data);
    p->stopped = p->callback && !p->callback(done);
    return !p->stopped;
  };
  params.progress_callback_user_data = &state;
  {
    LogCapture log;
    try {
      // By path where there is one: a model split into several files finds its other parts by name.
      model_.reset(options_.model_path == "embedded:" ? llama_model_load_from_file_ptr(file->file.get(), params)
                                                      : llama_model_load_from_file(options_.model_path.c_str(), params));
    } catch (const std::exception& e) { return Error{ErrorCode::model_invalid, name + " cannot be loaded: " + e.what()}; }
    if (state.stopped) return Error{ErrorCode::unavailable, "loading " + name + " was stopped"};
    if (!model_) {
      return Error{ErrorCode::model_invalid, name + " cannot be loaded: " + log.errors("llama.cpp gives no reason") +
                                                 ". If the file is complete, this build may not know its architecture"};
    }
  }

  llama_model* model = model_.get();
  vocab_ = llama_model_get_vocab(model);
  info_.id = options_.model_id;
  info_.created = file->changed;
  info_.architecture = meta(model, "general.architecture");
  info_.parameters = static_cast<std::int64_t>(llama_model_n_params(model));
  info_.bytes = file->bytes;
  if (llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_NONE) return Error{ErrorCode::model_invalid, name + " has no tokenizer"};

  // A model that declares a pooling was trained to embed or to rank, not to write.
  std::string declared = meta(model, info_.architecture + ".pooling_type");
  auto pooling = declared.empty() ? LLAMA_POOLING_TYPE_NONE : static_cast<enum llama_pooling_type>(std::atoi(declared.c_str()));
  bool causal = meta(model, info_.architecture + ".attention.causal") != "false";
  bool encodes = llama_model_has_encoder(model);
  bool recurrent = llama_model_is_recurrent(model) || llama_model_is_hybrid(model);
  info_.rerank = pooling == LLAMA_POOLING_TYPE_RANK;
  info_.chat =
      pooling == LLAMA_POOLING_TYPE_NONE && causal && !encodes && llama_model_has_decoder(model) && !llama_model_is_diffusion(model);
  // Recurrent models see a sequence in pieces, so that pooling over all of it is not possible.
  info_.embeddings = !info_.rerank && !recurrent && !(encodes && llama_model_has_decoder(model));
  if (pooling == LLAMA_POOLING_TYPE_NONE) pooling = LLAMA_POOLING_TYPE_MEAN;
  width_ = info_.rerank ? static_cast<int>(llama_model_n_cls_out(model)) : llama_model_n_embd_out(model);
  if (info_.embeddings || info_.rerank) {
    pooled_ = std::make_unique<PooledContext>(model, *threads_, pooling, width_, options_.flash_attention);
  }

  int trained = llama_model_n_ctx_train(model);
  int context = options_.context > 0 ? options_.context : std::clamp(trained, kDefaultContextMin, kDefaultContextMax);
  info_.context = trained > 0 ? std::min(trained, context) : context;
  if (!info_.chat) return {};

  adapters_ = std::make_unique<AdapterCache>(AdapterCache::Base{model, info_.architecture, std::move(file->tensors)}, options_.adapters,
                                             options_.adapter_folder, options_.adapter_bytes);
  if (!options_.projector_path.empty()) {
    auto vision = Vision::create(model, {.path = options_.projector_path,
                                         .gpu = options_.gpu_layers != 0,
                                         .threads = threads_->threads(),
                                         .flash_attention = options_.flash_attention,
                                         .idle = options_.projector_idle});
    if (!vision) return std::move(vision).error();
    vision_ = std::move(*vision);
    info_.vision = true;
  }
  auto format = ChatFormat::create(model, vision_ != nullptr);
  if (!format) return std::move(format).error();
  chat_format_ = std::move(*format);
  info_.tools = chat_format_->tools();
  auto decoder = LlamaDecoder::create(model, *threads_,
                                      {.context = context,
                                       .sequences = std::clamp(options_.scheduler.max_running * 4, options_.scheduler.max_running, 256),
                                       .batch = options_.scheduler.batch_tokens,
                                       .kv_type = options_.kv_type,
                                       .compression = compression_.get(),
                                       .flash_attention = options_.flash_attention});
  if (!decoder) return std::move(decoder).error();
  decoder_ = std::move(*decoder);
  info_.context = decoder_->max_request_tokens();
  auto drafts = draft_source();
  if (!drafts) return std::move(drafts).error();
  drafts_ = std::move(*drafts);
  if (drafts_) speculator_ = std::make_unique<Speculator>(*drafts_, options_.speculation, decoder_->max_sequences());
  if (options_.park_disk_bytes > 0) {
    auto files = ParkedFiles::open(options_.park_folder, options_.park_disk_bytes);
    if (!files) return std::move(files).error();
    parked_files_ = std::move(*files);
    options_.scheduler.files = parked_files_.get();
  }
  scheduler_ = std::make_unique<Scheduler>(*decoder_, options_.scheduler, Clock::system(), speculator_.get());
  return {};
}

chat::ModelInfo LlamaEngine::info() const {
  chat::ModelInfo info = info_;
  if (adapters_) info.adapters = adapters_->names();  // files come and go
  return info;
}

// The one the request names; null when it names none.
Result<AdapterPtr> LlamaEngine::adapter(const chat::Request& request) {
  if (request.adapter.empty()) return AdapterPtr();
  return adapters_->acquire(request.adapter);
}

Result<bool> LlamaEngine::uses_mtp(const ModelFile& file) const {
  const Speculation& s = options_.speculation;
  const bool can = file.mtp_layers > 0 && file.mtp_obstacle.empty();
  if (s.mode == Speculation::Mode::automatic) return can && s.draft_model.empty();
  if (s.mode != Speculation::Mode::mtp || can) return s.mode == Speculation::Mode::mtp;
  return Error{ErrorCode::config_invalid,
               "speculation with the model's own MTP blocks was asked for, but " +
                   (file.mtp_layers == 0 ? "model \"" + options_.model_id + "\" has none" : "they cannot be used: " + file.mtp_obstacle) +
                   ". Set speculation to lookup, to draft with a draft model, or to auto",
               "speculation"};
}

Result<std::unique_ptr<DraftSource>> LlamaEngine::draft_source() const {
  const Speculation& s = options_.speculation;
  const auto refuse = [](std::string message) { return Error{ErrorCode::config_invalid, std::move(message), "speculation"}; };
  std::unique_ptr<DraftSource> none;
  if (s.mode == Speculation::Mode::off) return none;
  if (s.max_draft < 1 || s.max_draft > 256) return refuse("a draft may have between 1 and 256 tokens, not " + std::to_string(s.max_draft));
  if (s.lookup_tokens < 1 || s.lookup_tokens > 64) {
    return refuse("prompt lookup needs a repetition of between 1 and 64 tokens, not " + std::to_string(s.lookup_tokens));
  }
  if (!decoder_->can_share_prefix()) {
    if (s.mode == Speculation::Mode::automatic) return none;
    return refuse("model \"" + info_.id + "\" (" + info_.architecture +
                  ") is recurrent: it cannot take a wrong guess back. Set speculation to automatic or off");
  }
  if (s.mode == Speculation::Mode::draft && s.draft_model.empty())
    return refuse("speculation with a draft model was asked for, but none is named");
  if (mtp_) {
    auto own = MtpDraft::create(
        model_.get(), *threads_, *decoder_,
        {.kv_type = options_.kv_type, .flash_attention = options_.flash_attention, .least_confidence = s.least_confidence});
    if (!own) return std::move(own).error();
    return std::unique_ptr<DraftSource>(std::move(*own));
  }
  if (s.mode == Speculation::Mode::lookup || s.draft_model.empty()) {
    return std::unique_ptr<DraftSource>(std::make_unique<NgramDraft>(decoder_->max_sequences(), s.lookup_tokens));
  }
  auto model = DraftModel::load(model_.get(), *threads_,
                                {.path = s.draft_model,
                                 .gpu_layers = options_.gpu_layers,
                                 .least_confidence = s.least_confidence,
                                 .decoder = {.context = decoder_->context_cells(),
                                             .sequences = decoder_->max_sequences(),
                                             .batch = options_.scheduler.batch_tokens,
                                             .flash_attention = options_.flash_attention}});
  if (!model) return std::move(model).error();
  return std::unique_ptr<DraftSource>(std::move(*model));
}

Error LlamaEngine::cannot_generate() const {
  return Error{ErrorCode::unsupported,
               "model \"" + info_.id + "\" (" + info_.architecture + ") does not generate text; it serves " +
                   (info_.rerank ? "reranking" : "embeddings"),
               "model"};
}

Result<std::vector<Token>> LlamaEngine::raw_tokens(const chat::RawPrompt& prompt, const std::string& param) const {
  std::vector<Token> tokens;
  if (prompt.tokens.empty()) {
    if (!is_valid_utf8(prompt.text)) return invalid("the text is not valid UTF-8", param);
    tokens = tokenize(prompt.text, true, true);
  } else {
    int limit = llama_vocab_n_tokens(vocab_);
    for (Token token : prompt.tokens) {
      if (token < 0 || token >= limit) {
        return invalid("token " + std::to_string(token) + " does not exist: this model has tokens 0 to " + std::to_string(limit - 1),
                       param);
      }
    }
    tokens = prompt.tokens;
  }
  if (tokens.empty()) return invalid("the text is empty: give at least one token", param);
  return tokens;
}

// A rendered chat as the scheduler takes it.
Result<LlamaEngine::Prompt> LlamaEngine::chat_prompt(const RenderedChat& chat) {
  Prompt out;
  if (chat.images.empty()) {
    out.tokens = tokenize(chat.prompt, true, true);
    if (out.tokens.empty()) return invalid("the messages come to no text at all", "messages");
    return out;
  }
  auto seen = vision_->read(chat, info_.context);
  if (!seen) return std::move(seen).error();
  out.tokens = std::move(seen->tokens);
  out.images = std::move(seen->images);
  return out;
}

Result<SamplerSpec> LlamaEngine::sampler(const chat::Request& request) const {
  const chat::Sampling& s = request.sampling;
  for (const auto& ok :
       {check_range(s.temperature, 0, 1000, "temperature"), check_range(s.top_p, 0, 1, "top_p"), check_range(s.min_p, 0, 1, "min_p"),
        check_range(s.presence_penalty, -2, 2, "presence_penalty"), check_range(s.frequency_penalty, -2, 2, "frequency_penalty"),
        check_range(s.repeat_penalty, 0.01F, 100, "repeat_penalty")}) {
    if (!ok) return ok.error();
  }
  SamplerSpec spec;
  spec.temperature = s.temperature.value_or(spec.temperature);
  spec.top_p = s.top_p.value_or(spec.top_p);
  spec.min_p = s.min_p.value_or(spec.min_p);
  spec.top_k = s.top_k.value_or(spec.top_k);
  spec.presence_penalty = s.presence_penalty.value_or(spec.presence_penalty);
  spec.frequency_penalty = s.frequency_penalty.value_or(spec.frequency_penalty);
  spec.repeat_penalty = s.repeat_penalty.value_or(spec.repeat_penalty);
  spec.ignore_eos = request.ignore_eos;
  spec.seed = s.seed.value_or(std::random_device{}());
  int limit = llama_vocab_n_tokens(vocab_);
  for (auto [token, bias] : s.logit_bias) {
    if (token < 0 || token >= limit) {
      return invalid("logit_bias names token " + std::to_string(token) + ", but this model has tokens 0 to " + std::to_string(limit - 1),
                     "logit_bias");
    }
    if (!(bias >= -100 && bias <= 100)) {
      return invalid("the logit_bias of token " + std::to_string(token) + " must be between -100 and 100", "logit_bias");
    }
    spec.logit_bias.emplace_back(token, bias);
  }
  return spec;
}

Result<GenerationHandle> LlamaEngine::generate(const chat::Request& request, std::shared_ptr<EventSink> sink) {
  if (!info_.chat) return cannot_generate();
  if (request.choices < 1 || request.choices > kMaxChoices) {
    return invalid("n is " + std::to_string(request.choices) + "; it must be between 1 and " + std::to_string(kMaxChoices), "n");
  }
  if (request.max_tokens && *request.max_tokens < 0) {
    return invalid("max_tokens is " + std::to_string(*request.max_tokens) + "; it must not be negative", "max_tokens");
  }
  if (request.top_logprobs && (*request.top_logprobs < 0 || *request.top_logprobs > kMaxTopLogprobs)) {
    return invalid(
        "top_logprobs is " + std::to_string(*request.top_logprobs) + "; it must be between 0 and " + std::to_string(kMaxTopLogprobs),
        "top_logprobs");
  }
  std::optional<TimePoint> deadline;  // encoding images counts
  if (request.time_limit) deadline = Clock::system().now() + *request.time_limit;
  auto base = sampler(request);
  if (!base) return std::move(base).error();

  std::vector<Prompt> prompts;
  RenderedChat rendered;
  if (!request.prompts.empty()) {
    for (std::size_t i = 0; i < request.prompts.size(); ++i) {
      std::string param = request.prompts.size() == 1 ? "prompt" : "prompt[" + std::to_string(i) + "]";
      auto tokens = raw_tokens(request.prompts[i], param);
      if (!tokens) return std::move(tokens).error();
      std::string text;
      if (request.echo && !request.prefill_only)
        text = request.prompts[i].tokens.empty() ? request.prompts[i].text : common_detokenize(vocab_, *tokens, false);
      prompts.push_back({.tokens = std::move(*tokens), .text = std::move(text)});
    }
    auto constraints = format_constraints(model_.get(), request.format);
    if (!constraints) return std::move(constraints).error();
    rendered.constraints = std::move(*constraints);
  } else {
    auto chat = chat_format_->render(request);
    if (!chat) return std::move(chat).error();
    rendered = std::move(*chat);
    // Its images last: encoding them costs most.
    if (rendered.images.empty()) {
      auto prompt = chat_prompt(rendered);
      if (!prompt) return std::move(prompt).error();
      prompts.push_back(std::move(*prompt));
    }
  }

  SamplerSpec plain = std::move(*base);
  plain.constraints = std::move(rendered.constraints);

  // Last: whatever is wrong with the request otherwise must not cost a load.
  auto lora = adapter(request);
  if (!lora) return std::move(lora).error();
  if (prompts.empty()) {
    auto prompt = chat_prompt(rendered);
    if (!prompt) return std::move(prompt).error();
    prompts.push_back(std::move(*prompt));
  }

  const bool ahead = request.prefill_only;  // no answer, and so nothing about one
  bool score_echo = request.echo && request.top_logprobs && !request.prompts.empty() && !ahead;
  std::size_t prompt_tokens = 0;
  for (const Prompt& prompt : prompts) prompt_tokens += prompt.tokens.size();
  auto answer = std::make_shared<Answer>(std::move(sink), prompts.size(), request.choices, static_cast<int>(prompt_tokens));
  GenerationHandle handle;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Generation generation;
    int first = static_cast<int>(i) * request.choices;
    generation.prompt = std::move(prompts[i].tokens);
    generation.images = std::move(prompts[i].images);
    generation.choices = request.choices;
    generation.max_tokens = ahead ? std::optional(0) : request.max_tokens;
    generation.adapter = *lora;
    for (int c = 0; c < request.choices; ++c) {
      generation.samplers.push_back(plain);
      generation.samplers.back().seed += static_cast<std::uint32_t>(first + c);  // or every choice would be the same
    }
    generation.stop = request.sampling.stop;
    generation.template_stop = rendered.stop;
    generation.top_logprobs = ahead ? -1 : request.top_logprobs.value_or(-1);
    generation.echo_logprobs = score_echo;
    // Who sets a seed wants the same answer twice. Rounding depends a little on how many rows are computed together, which is enough to turn a draw.
    generation.speculate = !request.sampling.seed || plain.temperature <= 0;
    generation.priority = request.priority;
    generation.tenant = request.tenant;
    generation.deadline = deadline;
    generation.sink = std::make_shared<PromptSink>(answer, first, request.choices, rendered.syntax, std::move(prompts[i].text), score_echo);
    auto submitted = scheduler_->submit(std::move(generation));
    if (!submitted) {
      answer->close();
      return std::move(submitted).error();
    }
    handle.merge(std::move(*submitted));
  }
  answer->open();
  return handle;
}

Result<int> LlamaEngine::count_tokens(const chat::Request& request) {
  std::size_t count = 0;
  if (!request.prompts.empty()) {
    for (const auto& prompt : request.prompts) {
      auto tokens = raw_tokens(prompt, "prompt");
      if (!tokens) return std::move(tokens).error();
      count += tokens->size();
    }
    return static_cast<int>(count);
  }
  if (!info_.chat) return cannot_generate();
  auto rendered = chat_format_->render(request);
  if (!rendered) return std::move(rendered).error();
  if (!rendered->images.empty()) return vision_->count(*rendered);
  return static_cast<int>(tokenize(rendered->prompt, true, true).size());
}

Result<std::vector<chat::TokenInfo>> LlamaEngine::score(const chat::Request& request) {
  if (!info_.chat) return cannot_generate();
  if (request.prompts.size() > 1) return invalid("one text can be scored at a time", "prompt");
  Generation generation;
  if (!request.prompts.empty()) {
    auto tokens = raw_tokens(request.prompts[0], "prompt");
    if (!tokens) return std::move(tokens).error();
    generation.prompt = std::move(*tokens);
  } else {
    auto rendered = chat_format_->render(request, false);
    if (!rendered) return std::move(rendered).error();
    if (!rendered->images.empty()) return Error{ErrorCode::unsupported, "only text can be scored, not images", rendered->images[0].param};
    auto prompt = chat_prompt(*rendered);
    if (!prompt) return std::move(prompt).error();
    generation.prompt = std::move(prompt->tokens);
  }
  auto lora = adapter(request);
  if (!lora) return std::move(lora).error();
  generation.adapter = std::move(*lora);
  generation.max_tokens = 0;
  generation.samplers.emplace_back();
  generation.top_logprobs = std::clamp(request.top_logprobs.value_or(0), 0, kMaxTopLogprobs);
  generation.echo_logprobs = true;
  generation.priority = request.priority;
  generation.tenant = request.tenant;
  if (request.time_limit) generation.deadline = Clock::system().now() + *request.time_limit;
  auto sink = std::make_shared<ScoreSink>();
  auto result = sink->result();
  generation.sink = std::move(sink);
  auto handle = scheduler_->submit(std::move(generation));
  if (!handle) return std::move(handle).error();
  return result.get();
}

Result<void> LlamaEngine::exclusively(const std::function<void()>& job) {
  if (scheduler_) {
    auto done = std::make_shared<std::promise<void>>();
    auto finished = done->get_future();
    // `done` goes with the job: a scheduler that stops without running it breaks the promise.
    auto accepted = scheduler_->run_between_ticks([&job, done = std::move(done)] {
      job();
      done->set_value();
    });
    if (!accepted) return accepted;
    try {
      finished.get();
    } catch (const std::future_error&) { return Error{ErrorCode::unavailable, "the engine is stopping"}; }
    return {};
  }
  {
    MutexLock lock(state_mutex_);
    if (draining_) return Error{ErrorCode::unavailable, "the engine is stopping", {}, std::chrono::seconds(1)};
    if (working_++ == 0) pooled_->beat();  // from here on it has work
  }
  {
    MutexLock lock(alone_);
    job();
  }
  MutexLock lock(state_mutex_);
  if (--working_ == 0) idle_.notify_all();
  return {};
}

Result<std::vector<std::vector<float>>> LlamaEngine::pooled(const std::vector<std::vector<Token>>& inputs) {
  // Short inputs go together, up to the room a long one would need anyway.
  std::size_t room = 512;
  for (const auto& input : inputs) room = std::max(room, input.size());
  std::vector<std::vector<float>> out;
  for (std::size_t begin = 0; begin < inputs.size();) {
    std::size_t end = begin, total = 0;
    while (end < inputs.size() && end - begin < PooledContext::max_sequences && total + inputs[end].size() <= room)
      total += inputs[end++].size();
    Result<std::vector<std::vector<float>>> vectors = internal_error("not run");
    auto ran = exclusively([&] { vectors = pooled_->run(std::span(inputs).subspan(begin, end - begin)); });
    if (!ran) return ran.error();
    if (!vectors) return std::move(vectors).error();
    std::move(vectors->begin(), vectors->end(), std::back_inserter(out));
    begin = end;
  }
  return out;
}

Result<chat::Embeddings> LlamaEngine::embed(const chat::EmbeddingRequest& request) {
  if (!info_.embeddings) {
    return Error{ErrorCode::unsupported, "model \"" + info_.id + "\" (" + info_.architecture + ") gives no embeddings", "model"};
  }
  if (request.inputs.empty()) return invalid("input must not be empty", "input");
  if (request.dimensions && (*request.dimensions < 1 || *request.dimensions > width_)) {
    return invalid("dimensions is " + std::to_string(*request.dimensions) + "; this model's embeddings have " + std::to_string(width_) +
                       ", so it must be between 1 and " + std::to_string(width_),
                   "dimensions");
  }
  chat::Embeddings out;
  std::vector<std::vector<Token>> inputs;
  for (std::size_t i = 0; i < request.inputs.size(); ++i) {
    std::string param = request.inputs.size() == 1 ? "input" : "input[" + std::to_string(i) + "]";
    auto tokens = raw_tokens(request.inputs[i], param);
    if (!tokens) return std::move(tokens).error();
    if (static_cast<int>(tokens->size()) > info_.context) {
      return Error{
          ErrorCode::context_length_exceeded,
          "the input has " + std::to_string(tokens->size()) + " tokens, but this model takes at most " + std::to_string(info_.context),
          param};
    }
    out.prompt_tokens += static_cast<int>(tokens->size());
    inputs.push_back(std::move(*tokens));
  }
  auto vectors = pooled(inputs);
  if (!vectors) return std::move(vectors).error();
  for (auto& vector : *vectors) {
    if (request.dimensions) vector.resize(index_of(*request.dimensions));
    double sum = 0;
    for (float x : vector) sum += static_cast<double>(x) * static_cast<double>(x);
    if (sum > 0) {
      auto scale = static_cast<float>(1 / std::sqrt(sum));
      for (float& x : vector) x *= scale;
    }
  }
  out.vectors = std::move(*vectors);
  return out;
}

Result<chat::RerankResult> LlamaEngine::rerank(const chat::RerankRequest& request) {
  if (!info_.rerank) {
    return Error{ErrorCode::unsupported,
                 "model \"" + info_.id + "\" (" + info_.architecture +
                     ") does not rerank: that needs a model with a ranking head (pooling type \"rank\")",
                 "model"};
  }
  if (request.documents.empty()) return invalid("documents must not be empty", "documents");
  if (request.top_n && *request.top_n < 1) return invalid("top_n must be at least 1", "top_n");
  if (!is_valid_utf8(request.query)) return invalid("the query is not valid UTF-8", "query");
  const char* form = llama_model_chat_template(model_.get(), "rerank");
  chat::RerankResult out;
  std::vector<std::vector<Token>> inputs;
  std::vector<Token> query = tokenize(request.query, false, false);
  for (std::size_t i = 0; i < request.documents.size(); ++i) {
    const std::string& document = request.documents[i];
    std::string param = "documents[" + std::to_string(i) + "]";
    if (!is_valid_utf8(document)) return invalid("the document is not valid UTF-8", param);
    std::vector<Token> tokens;
    if (form) {
      tokens = tokenize(fill_rerank_form(form, request.query, document), false, true);
    } else {
      // [BOS] query [EOS] [SEP] document [EOS], each only where the tokenizer adds it.
      Token end = llama_vocab_eos(vocab_) >= 0 ? llama_vocab_eos(vocab_) : llama_vocab_sep(vocab_);
      auto add = [&](bool wanted, Token token) {
        if (wanted && token >= 0) tokens.push_back(token);
      };
      std::vector<Token> words = tokenize(document, false, false);
      add(llama_vocab_get_add_bos(vocab_), llama_vocab_bos(vocab_));
      tokens.insert(tokens.end(), query.begin(), query.end());
      add(llama_vocab_get_add_eos(vocab_), end);
      add(llama_vocab_get_add_sep(vocab_), llama_vocab_sep(vocab_));
      tokens.insert(tokens.end(), words.begin(), words.end());
      add(llama_vocab_get_add_eos(vocab_), end);
    }
    if (tokens.empty()) return invalid("query and document are both empty", param);
    if (static_cast<int>(tokens.size()) > info_.context) {
      return Error{ErrorCode::context_length_exceeded,
                   "query and document have " + std::to_string(tokens.size()) + " tokens, but this model takes at most " +
                       std::to_string(info_.context),
                   param};
    }
    out.prompt_tokens += static_cast<int>(tokens.size());
    inputs.push_back(std::move(tokens));
  }
  auto scores = pooled(inputs);
  if (!scores) return std::move(scores).error();
  for (std::size_t i = 0; i < scores->size(); ++i) out.items.push_back({.index = static_cast<int>(i), .score = (*scores)[i][0]});
  std::sort(out.items.begin(), out.items.end(),
            [](const auto& a, const auto& b) { return a.score != b.score ? a.score > b.score : a.index < b.index; });
  if (request.top_n && out.items.size() > index_of(*request.top_n)) out.items.resize(index_of(*request.top_n));
  return out;
}

SchedulerStats LlamaEngine::stats() const {
  SchedulerStats stats;
  if (scheduler_) {
    stats = scheduler_->stats();
    adapters_->report(stats);
    if (vision_) vision_->report(stats);
    return stats;
  }
  MutexLock lock(state_mutex_);
  stats.running = working_;
  stats.busy = working_ > 0;
  if (stats.busy) stats.since_tick = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::system().now() - pooled_->last_beat());
  return stats;
}

void LlamaEngine::drain() {
  if (scheduler_) return scheduler_->drain();
  MutexLock lock(state_mutex_);
  draining_ = true;
}

bool LlamaEngine::wait_idle(std::chrono::milliseconds up_to) {
  if (scheduler_) return scheduler_->wait_idle(up_to);
  const auto until = std::chrono::steady_clock::now() + up_to;
  MutexLock lock(state_mutex_);
  while (working_ != 0) {
    if (!idle_.wait_until(state_mutex_, until)) return working_ == 0;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::load(const EngineOptions& options, std::function<bool(float)> progress) {
  auto engine = std::make_unique<LlamaEngine>(options);
  if (auto ok = engine->load(progress); !ok) return ok.error();
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace hearth::engine
