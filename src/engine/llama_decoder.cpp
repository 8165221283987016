#include "engine/llama_decoder.h"

#include <common.h>
#include <ggml.h>
#include <llama-ext.h>
#include <llama.h>
#include <sampling.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "engine/mtp_draft.h"
#include "turboquant/profile.h"

namespace hearth::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct FreeSampler {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};

Result<common_sampler_ptr> make_common_sampler(const llama_model* model, const SamplerSpec& spec) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  common_params_sampling params;
  params.no_perf = true;
  params.samplers = {COMMON_SAMPLER_TYPE_PENALTIES, COMMON_SAMPLER_TYPE_TOP_K, COMMON_SAMPLER_TYPE_TOP_P, COMMON_SAMPLER_TYPE_MIN_P,
                     COMMON_SAMPLER_TYPE_TEMPERATURE};
  params.seed = spec.seed;
  params.temp = spec.temperature;
  params.top_k = spec.top_k;
  params.top_p = spec.top_p;
  params.min_p = spec.min_p;
  params.penalty_present = spec.presence_penalty;
  params.penalty_freq = spec.frequency_penalty;
  params.penalty_repeat = spec.repeat_penalty;
  for (auto [token, bias] : spec.logit_bias) params.logit_bias.push_back({token, bias});
  if (spec.ignore_eos) {
    for (Token t = 0; t < llama_vocab_n_tokens(vocab); ++t) {
      if (llama_vocab_is_eog(vocab, t)) params.logit_bias.push_back({t, kMinusInfinity});
    }
  }
  const Constraints& wanted = spec.constraints;
  if (!wanted.grammar.empty() || wanted.thinking_budget) params.generation_prompt = wanted.generation_prompt;
  if (!wanted.grammar.empty()) {
    // llama.cpp ends the process over this prefix when it was built without that library.
    if (wanted.grammar.starts_with("%llguidance")) return invalid("llguidance grammars are not supported: give a GBNF grammar", "grammar");
    common_grammar_type origin = wanted.origin == Constraints::Origin::user            ? COMMON_GRAMMAR_TYPE_USER
                                 : wanted.origin == Constraints::Origin::output_format ? COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT
                                                                                       : COMMON_GRAMMAR_TYPE_TOOL_CALLS;
    params.grammar = {origin, wanted.grammar};
    params.grammar_lazy = wanted.lazy;
    for (const GrammarTrigger& trigger : wanted.triggers) {
      common_grammar_trigger out;
      switch (trigger.kind) {
        case GrammarTrigger::Kind::token: out.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN; break;
        case GrammarTrigger::Kind::word: out.type = COMMON_GRAMMAR_TRIGGER_TYPE_WORD; break;
        case GrammarTrigger::Kind::pattern: out.type = COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN; break;
        case GrammarTrigger::Kind::pattern_full: out.type = COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL; break;
      }
      out.value = trigger.value;
      out.token = trigger.token;
      params.grammar_triggers.push_back(std::move(out));
    }
    params.preserved_tokens.insert(wanted.preserved_tokens.begin(), wanted.preserved_tokens.end());
  }
  LogCapture log;
  try {
    if ((wanted.lazy || wanted.thinking_budget) && !wanted.thinking_start.empty() && !wanted.thinking_ends.empty()) {
      // A trigger inside a thought is not a call: this sampler keeps the lazy grammar asleep there. And it ends thoughts that get too long.
      params.reasoning_budget_start = common_tokenize(vocab, wanted.thinking_start, false, true);
      for (const std::string& tag : wanted.thinking_ends) params.reasoning_budget_end.push_back(common_tokenize(vocab, tag, false, true));
      params.reasoning_budget_forced = params.reasoning_budget_end.front();
      params.reasoning_budget_tokens = wanted.thinking_budget.value_or(-1);
    }
    common_sampler_ptr sampler(common_sampler_init(model, params));
    if (!sampler) return internal_error("the sampler could not be made");
    return sampler;
  } catch (const std::exception& e) { return invalid("the grammar cannot be used: " + log.errors(e.what()), "grammar"); }
}

class LlamaSampler : public Sampler {
 public:
  LlamaSampler(const LlamaDecoder& decoder, const llama_vocab* vocab) : decoder_(decoder), vocab_(vocab) {}

  chat::TokenInfo info(int row, Token token, int top) override {
    chat::TokenInfo info = describe(decoder_.logits(row), token, top);
    info.chosen.bytes = decoder_.piece(token, true);
    for (auto& p : info.top) p.bytes = decoder_.piece(p.token, true);
    return info;
  }

 protected:
  SampledToken sampled(Token token) const { return {token, llama_vocab_is_eog(vocab_, token)}; }

  const LlamaDecoder& decoder_;
  const llama_vocab* vocab_;
};

Error no_token() { return internal_error("the model gave no usable probabilities (every logit is NaN or -inf)"); }

// Temperature 0 with nothing else in play: no candidate list, one pass over the logits.
class GreedySampler final : public LlamaSampler {
 public:
  GreedySampler(const LlamaDecoder& decoder, const llama_vocab* vocab, std::vector<Token> banned)
      : LlamaSampler(decoder, vocab), banned_(std::move(banned)) {}

  Result<SampledToken> sample(int row) override {
    std::span<const float> logits = decoder_.logits(row);
    Token best = argmax(logits);
    if (best >= 0 && std::binary_search(banned_.begin(), banned_.end(), best)) {
      std::vector<float> allowed(logits.begin(), logits.end());
      for (Token t : banned_) allowed[static_cast<std::size_t>(t)] = kMinusInfinity;
      best = argmax(allowed);
    }
    if (best < 0) return no_token();
    return sampled(best);
  }

 private:
  std::vector<Token> banned_;  // sorted
};

// With a small top_k and nothing that looks at the whole vocabulary, only the k best tokens matter. They are found in one pass over the logits and
// only they enter llama.cpp's chain, which gives what it would give for all: its own first step sorts out the rest.
class TopKSampler final : public LlamaSampler {
 public:
  TopKSampler(const LlamaDecoder& decoder, const llama_vocab* vocab, const SamplerSpec& spec, std::vector<Token> banned)
      : LlamaSampler(decoder, vocab), top_k_(static_cast<std::size_t>(spec.top_k)), banned_(std::move(banned)) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    chain_.reset(llama_sampler_chain_init(params));
    for (llama_sampler* step : {llama_sampler_init_top_p(spec.top_p, 0), llama_sampler_init_min_p(spec.min_p, 0),
                                llama_sampler_init_temp_ext(spec.temperature, 0, 1), llama_sampler_init_dist(spec.seed)}) {
      llama_sampler_chain_add(chain_.get(), step);
    }
  }

  Result<SampledToken> sample(int row) override {
    candidates_.clear();
    for (auto [logit, token] : best_logits(decoder_.logits(row), top_k_ + banned_.size())) {
      if (candidates_.size() < top_k_ && !std::binary_search(banned_.begin(), banned_.end(), token))
        candidates_.push_back({token, logit, 0});
    }
    if (candidates_.empty() || candidates_[0].logit == kMinusInfinity) return no_token();
    llama_token_data_array array{candidates_.data(), candidates_.size(), -1, true};
    llama_sampler_apply(chain_.get(), &array);
    if (array.selected < 0) return no_token();
    const Token token = array.data[array.selected].id;
    llama_sampler_accept(chain_.get(), token);
    return sampled(token);
  }

 private:
  std::size_t top_k_;
  std::vector<Token> banned_;  // sorted
  std::unique_ptr<llama_sampler, FreeSampler> chain_;
  std::vector<llama_token_data> candidates_;
};

class ChainSampler final : public LlamaSampler {
 public:
  ChainSampler(const LlamaDecoder& decoder, const llama_vocab* vocab, llama_context* context, common_sampler_ptr chain, bool constrained)
      : LlamaSampler(decoder, vocab), context_(context), chain_(std::move(chain)), constrained_(constrained) {}

  Result<SampledToken> sample(int row) override {
    if (decoder_.logits(row).empty()) return internal_error("no logits were computed for this row");
    try {
      Token token = common_sampler_sample(chain_.get(), context_, decoder_.context_row(row));
      const llama_token_data_array* candidates = common_sampler_get_candidates(chain_.get(), false);
      if (candidates->selected < 0 || token < 0) return no_token();
      // llama.cpp takes a token the grammar forbids when nothing else is left, and then ends the process on accepting it.
      float logit = candidates->data[candidates->selected].logit;
      if (std::isnan(logit) || logit == kMinusInfinity) {
        if (!constrained_) return no_token();
        return invalid("the grammar leads to a point where none of the model's tokens fits; allow more text there", "grammar");
      }
      common_sampler_accept(chain_.get(), token, true);
      return sampled(token);
    } catch (const std::exception& e) { return internal_error(std::string("sampling failed: ") + e.what()); }
  }

 private:
  llama_context* context_;
  common_sampler_ptr chain_;
  bool constrained_;
};

}  // namespace

Result<void> check_constraints(const llama_model* model, const Constraints& constraints) {
  const std::string& text = constraints.grammar;
  if (!text.empty() && !text.starts_with("%llguidance")) {
    // The grammar alone first: the common library forgets the rest of a sampler when it throws over a grammar.
    LogCapture log;
    const std::unique_ptr<llama_sampler, FreeSampler> grammar(
        llama_sampler_init_grammar(llama_model_get_vocab(model), text.c_str(), "root"));
    if (!grammar) return invalid("the grammar cannot be used: " + log.errors("failed to parse grammar"), "grammar");
  }
  SamplerSpec spec;
  spec.constraints = constraints;
  auto sampler = make_common_sampler(model, spec);
  if (!sampler) return std::move(sampler).error();
  return {};
}

Result<int> kv_type_from_name(const std::string& name) {
  static const std::map<std::string, ggml_type> types{{"f16", GGML_TYPE_F16}, {"q8_0", GGML_TYPE_Q8_0}, {"q4_0", GGML_TYPE_Q4_0}};
  auto it = types.find(name);
  if (it != types.end()) return static_cast<int>(it->second);
  if (turboquant::find_profile(name)) return static_cast<int>(GGML_TYPE_F16);  // what llama.cpp is told
  std::string known = "f16, q8_0, q4_0";
  for (const auto& profile : turboquant::profiles()) known += ", " + std::string(profile.name);
  return Error{ErrorCode::config_invalid, "unknown KV cache type \"" + name + "\": use one of " + known};
}

Token argmax(std::span<const float> logits) {
  // Independent lanes, so that the compiler may use vector compares; NaN never wins a comparison.
  constexpr std::size_t lanes = 16;
  std::array<float, lanes> best;
  best.fill(kMinusInfinity);
  std::size_t i = 0;
  for (; i + lanes <= logits.size(); i += lanes) {
    for (std::size_t j = 0; j < lanes; ++j) best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
  }
  for (; i < logits.size(); ++i) best[0] = logits[i] > best[0] ? logits[i] : best[0];
  float max = *std::max_element(best.begin(), best.end());
  if (max == kMinusInfinity) return -1;
  return static_cast<Token>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

Token confident(std::span<const float> logits, float least) {
  const Token best = argmax(logits);
  if (best < 0) return -1;
  // 1 ÷ sum is the best token's probability. What lies far below adds nothing that matters here.
  const float top = logits[static_cast<std::size_t>(best)], most = 1 / std::max(least, 1e-6F);
  float sum = 0;
  for (float logit : logits) {
    if (logit > top - 12) sum += std::exp(logit - top);
  }
  return sum <= most ? best : -1;
}

std::vector<std::pair<float, Token>> best_logits(std::span<const float> logits, std::size_t count) {
  // A min-heap of the best so far. Almost every logit fails its first comparison, so whole blocks are passed over by their largest.
  using Entry = std::pair<float, Token>;
  const auto better = [](const Entry& a, const Entry& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
  std::vector<Entry> heap;
  count = std::min(count, logits.size());
  heap.reserve(count + 1);
  if (count == 0) return heap;
  constexpr std::size_t block = 32;
  for (std::size_t begin = 0; begin < logits.size(); begin += block) {
    const std::size_t end = std::min(begin + block, logits.size());
    if (heap.size() == count && end - begin == block) {
      float max = kMinusInfinity;
      for (std::size_t i = 0; i < block; ++i) max = logits[begin + i] > max ? logits[begin + i] : max;
      if (!(max > heap.front().first)) continue;
    }
    for (std::size_t i = begin; i < end; ++i) {
      const float x = logits[i];
      if (std::isnan(x) || (heap.size() == count && x <= heap.front().first)) continue;
      heap.emplace_back(x, static_cast<Token>(i));
      std::push_heap(heap.begin(), heap.end(), better);
      if (heap.size() > count) {
        std::pop_heap(heap.begin(), heap.end(), better);
        heap.pop_back();
      }
    }
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  return heap;
}

chat::TokenInfo describe(std::span<const float> logits, Token token, int top) {
  chat::TokenInfo info;
  info.chosen.token = token;
  if (logits.empty() || token < 0 || static_cast<std::size_t>(token) >= logits.size()) return info;

  const auto best = best_logits(logits, static_cast<std::size_t>(std::max(top, 1)));
  const float max = best.empty() ? kMinusInfinity : best[0].first;

  // With x measured from the largest logit: log Z = log sum e^x, entropy = log Z - sum x e^x / Z.
  double sum = 0, weighted = 0;
  for (float logit : logits) {
    float x = logit - max;
    if (!(x > -100)) continue;  // e^-100 adds nothing, and 0 * -inf would spoil the sum
    float e = std::exp(x);
    sum += e;
    weighted += static_cast<double>(x) * e;
  }
  double log_z = std::log(sum);
  info.entropy = static_cast<float>(std::max(0.0, log_z - weighted / sum));
  auto logprob = [&](float x) { return static_cast<float>(static_cast<double>(x) - max - log_z); };
  info.chosen.logprob = logprob(logits[static_cast<std::size_t>(token)]);
  for (auto [x, t] : best) {
    if (info.top.size() < static_cast<std::size_t>(std::max(top, 0))) info.top.push_back({.token = t, .bytes = {}, .logprob = logprob(x)});
  }
  return info;
}

LlamaDecoder::LlamaDecoder(llama_model* model, llama_context* context)
    : model_(model), vocab_(llama_model_get_vocab(model)), context_(context) {}

LlamaDecoder::~LlamaDecoder() { llama_free(context_); }

Result<std::unique_ptr<LlamaDecoder>> LlamaDecoder::create(llama_model* model, const ThreadPool& threads,
                                                           const LlamaDecoderOptions& options) {
  auto kv_type = kv_type_from_name(options.kv_type);
  if (!kv_type) return std::move(kv_type).error();
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(options.context);
  params.n_batch = static_cast<std::uint32_t>(std::max(options.batch, 32));
  params.n_ubatch = std::min<std::uint32_t>(params.n_batch, 512);
  params.n_seq_max = static_cast<std::uint32_t>(std::clamp(options.sequences, 1, static_cast<int>(llama_max_parallel_sequences())));
  params.n_threads = params.n_threads_batch = threads.threads();
  params.type_k = params.type_v = static_cast<ggml_type>(*kv_type);
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.kv_unified = true;  // every sequence draws from one pool of cells, and prefixes can be shared
  params.swa_full = true;    // sliding-window layers keep all cells: a shared prefix must not have been forgotten
  params.no_perf = true;
  LogCapture log;
  llama_context* context = nullptr;
  {
    const MutexLock lock(adapter_list());
    context = llama_init_from_model(model, params);
  }
  if (!context) {
    return Error{ErrorCode::io, "a context of " + std::to_string(options.context) + " tokens could not be created: " +
                                    log.errors("llama.cpp gives no reason") + ". Try a smaller context or another kv_type"};
  }
  std::unique_ptr<LlamaDecoder> decoder(new LlamaDecoder(model, context));
  threads.attach(context);
  decoder->compression_ = options.compression;
  decoder->cells_ = static_cast<int>(llama_n_ctx(context));
  decoder->sequences_ = static_cast<int>(llama_n_seq_max(context));
  decoder->max_batch_ = static_cast<int>(llama_n_batch(context));
  int trained = llama_model_n_ctx_train(model);
  decoder->max_request_ = trained > 0 ? std::min(trained, decoder->cells_) : decoder->cells_;
  decoder->can_share_ = !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model);
  decoder->saves_all_ = llama_model_n_swa(model) == 0;
  decoder->width_ = llama_model_n_embd_inp(model);
  decoder->whole_rows_ = static_cast<int>(llama_n_ubatch(context));
  const auto rope = llama_model_rope_type(model);
  if (rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE) {
    decoder->spans_.resize(static_cast<std::size_t>(decoder->sequences_));
    decoder->lost_.resize(static_cast<std::size_t>(decoder->sequences_));
  }
  // A compressed cache may keep the first tokens at more bits than the others.
  const auto profile = turboquant::find_profile(options.kv_type);
  if (auto measured = decoder->measure(profile ? std::min(profile->sinks, decoder->cells_ - 2) : 0); !measured)
    return std::move(measured).error();
  return decoder;
}

// A pass over all weights is most of what a load takes beside reading them, so there is only one where that is enough.
Result<void> LlamaDecoder::measure(int first) {
  const Token token = llama_vocab_bos(vocab_) >= 0 ? llama_vocab_bos(vocab_) : 0;
  auto* const memory = llama_get_memory(context_);
  const auto size = [this] { return sequence_state(0).size(); };
  std::vector<BatchToken> rows;
  for (int pos = 0; pos < first + 2; ++pos) rows.push_back({.token = token, .pos = pos, .seq = 0, .output = pos >= first});
  std::size_t one = 0, two = 0;
  if (can_share_) {
    for (std::span<const BatchToken> rest = rows; !rest.empty();) {
      const auto count = std::min(rest.size(), static_cast<std::size_t>(max_batch_));
      if (auto done = decode(rest.first(count)); !done) return done;
      rest = rest.subspan(count);
    }
    two = size();
    llama_memory_seq_rm(memory, 0, first + 1, -1);
    one = size();
  } else {
    // What a recurrent model has taken in it cannot take back.
    for (const auto& row : rows) {
      if (auto done = decode({&row, 1}); !done) return done;
      if (row.pos == first) one = size();
    }
    two = size();
  }
  bytes_per_cell_ = static_cast<std::int64_t>(two - one);
  llama_memory_clear(memory, true);
  return {};
}

void LlamaDecoder::follow(MtpDraft* reader) {
  reader_ = reader;
  llama_set_embeddings_nextn(context_, reader != nullptr, false);
  adapter_changed_ = true;  // other graphs
}

std::size_t LlamaDecoder::vocabulary() const { return static_cast<std::size_t>(llama_vocab_n_tokens(vocab_)); }

std::int64_t LlamaDecoder::bytes_per_cell() const { return bytes_per_cell_ + (reader_ ? reader_->bytes_per_cell() : 0); }

Decoder::KvCost LlamaDecoder::kv_cost() const {
  if (!compression_) return Decoder::kv_cost();
  const auto usage = compression_->usage();
  const auto rounded = [](std::chrono::nanoseconds time) { return std::chrono::duration_cast<std::chrono::microseconds>(time); };
  return {.bytes = static_cast<std::int64_t>(usage.bytes), .encoding = rounded(usage.encoding), .attention = rounded(usage.attention)};
}

void LlamaDecoder::use_adapter(const Adapter* adapter) {
  const auto* const lora = static_cast<const LlamaAdapter*>(adapter);
  std::shared_ptr<llama_adapter_lora> weights = lora ? lora->weights : nullptr;
  llama_adapter_lora* pointer = weights.get();
  float scale = lora ? lora->scale : 0;
  llama_set_adapters_lora(context_, lora ? &pointer : nullptr, lora ? 1 : 0, lora ? &scale : nullptr);
  adapter_changed_ = true;
  if (reader_) reader_->use_adapter(pointer, scale);
  adapter_ = std::move(weights);  // the context has let go of the one before
}

int LlamaDecoder::compute(const llama_batch& batch) {
  if (!adapter_changed_) return llama_decode(context_, batch);
  const MutexLock lock(adapter_list());
  const int rc = llama_decode(context_, batch);
  adapter_changed_ = false;
  return rc;
}

Result<void> LlamaDecoder::decode(std::span<const BatchToken> batch) {
  if (batch.size() > static_cast<std::size_t>(max_batch_)) {
    return internal_error("a batch of " + std::to_string(batch.size()) + " rows is over the limit of " + std::to_string(max_batch_));
  }
  text_.clear(), images_.clear(), whole_.clear(), text_row_.clear();
  for (const BatchToken& row : batch) (row.image == nullptr ? text_ : row.image->whole ? whole_ : images_).push_back(&row);
  // Text last: its logits are read after this call. llama.cpp takes numbers or tokens, never both in one batch.
  std::vector<const Rows*> done;
  const auto step = [&](const Rows& rows) -> Result<void> {
    if (rows.empty()) return {};
    auto ran = run(rows);
    if (!ran) {
      for (const Rows* before : done) forget(*before);
    } else {
      done.push_back(&rows);
    }
    return ran;
  };
  if (auto ran = step(images_); !ran) return ran;
  std::vector<Rows> pieces;  // the rows of one are neighbours
  for (const BatchToken* row : whole_) {
    if (pieces.empty() || pieces.back().back()->image != row->image || pieces.back().back()->seq != row->seq) pieces.emplace_back();
    pieces.back().push_back(row);
  }
  for (const Rows& piece : pieces) {
    if (static_cast<int>(piece.size()) > whole_rows_) {
      for (const Rows* before : done) forget(*before);
      return internal_error("an image of " + std::to_string(piece.size()) + " rows is over the limit of " + std::to_string(whole_rows_) +
                            " for one pass");
    }
    llama_set_causal_attn(context_, false);
    auto ran = step(piece);
    llama_set_causal_attn(context_, true);
    if (!ran) return ran;
  }
  if (text_.size() < batch.size()) {
    int next = 0;
    for (const BatchToken& row : batch) text_row_.push_back(row.image == nullptr ? next++ : -1);
  }
  return step(text_);
}

// One llama_decode: tokens, or rows of images.
Result<void> LlamaDecoder::run(const Rows& rows) {
  const std::size_t n = rows.size(), dimensions = spans_.empty() ? 1 : 4;
  const bool images = rows.front()->image != nullptr;
  token_.resize(n), seq_.resize(n), seq_count_.assign(n, 1), seq_list_.resize(n), output_.resize(n);
  pos_.assign(images ? n * dimensions : n, 0);
  for (const BatchToken* row : rows) {
    if (!lost_.empty() && lost_[static_cast<std::size_t>(row->seq)])
      return internal_error("a part of the image was lost when the computation failed");
  }
  if (images) values_.resize(n * static_cast<std::size_t>(width_));
  for (std::size_t i = 0; i < n; ++i) {
    const BatchToken& row = *rows[i];
    token_[i] = row.token;
    seq_[i] = row.seq;
    seq_list_[i] = &seq_[i];
    output_[i] = row.output ? 1 : 0;
    if (!images) {
      pos_[i] = position(row.seq, row.pos);
      continue;
    }
    const ImageRows& image = *row.image;
    const std::int32_t at = image.first - row.token, begin = row.pos - at;
    std::copy_n(image.values.begin() + static_cast<std::ptrdiff_t>(at) * width_, width_,
                values_.begin() + static_cast<std::ptrdiff_t>(i) * width_);
    if (spans_.empty()) {
      pos_[i] = row.pos;
      continue;
    }
    note(row.seq, {.begin = begin, .rows = image.count, .positions = image.positions});
    const std::int32_t origin = position(row.seq, begin);
    const ImageRows::Place& place = image.places[static_cast<std::size_t>(at)];
    pos_[i] = origin + place.t;
    pos_[n + i] = origin + place.y;
    pos_[2 * n + i] = origin + place.x;
  }
  llama_batch columns{.n_tokens = static_cast<std::int32_t>(n),
                      .token = images ? nullptr : token_.data(),
                      .embd = images ? values_.data() : nullptr,
                      .pos = pos_.data(),
                      .n_seq_id = seq_count_.data(),
                      .seq_id = seq_list_.data(),
                      .logits = output_.data()};
  LogCapture log;
  int rc = 0;
  std::string thrown = "no reason given";
  try {
    rc = compute(columns);
  } catch (const std::exception& e) {  // no memory for the graphs of another adapter
    rc = -3;
    thrown = e.what();
  }
  if (rc == 0) {
    llama_synchronize(context_);  // a GPU goes on in the background: whoever measures this call means the computation
    if (reader_ && !images) reader_->computed(rows, llama_get_embeddings_nextn(context_));
    return {};
  }
  if (rc == 2 || rc < -1) forget(rows);  // only here may earlier parts of the batch have stayed in the memory
  switch (rc) {
    case 1: return Error{ErrorCode::overloaded, "the KV cache has no room for " + std::to_string(n) + " more tokens"};
    case 2: return internal_error("the computation was aborted");
    case -1: return internal_error("llama.cpp refused the batch: " + log.errors("no reason given"));
    default: return internal_error("the computation failed (" + std::to_string(rc) + "): " + log.errors(thrown));
  }
}

void LlamaDecoder::forget(const Rows& rows) {
  std::map<SeqId, std::int32_t> first;
  for (const BatchToken* row : rows) {
    auto [it, fresh] = first.try_emplace(row->seq, row->pos);
    if (!fresh) it->second = std::min(it->second, row->pos);
  }
  for (auto [seq, pos] : first) {
    // Rows of one image can share a position: those of earlier passes go too.
    if (!spans_.empty() && position(seq, pos) == position(seq, pos - 1)) lost_[static_cast<std::size_t>(seq)] = true;
    if (!llama_memory_seq_rm(llama_get_memory(context_), seq, position(seq, pos), -1))
      llama_memory_seq_rm(llama_get_memory(context_), seq, -1, -1);
    if (reader_) reader_->removed(seq, pos, -1);
  }
}

// The position of a place in the sequence. Within an image it is where the image begins.
std::int32_t LlamaDecoder::position(SeqId seq, std::int32_t place) const {
  if (spans_.empty() || place < 0) return place;
  std::int32_t behind = 0;
  for (const Span& span : spans_[static_cast<std::size_t>(seq)]) {
    if (span.begin >= place) break;
    behind += place >= span.begin + span.rows ? span.rows - span.positions : place - span.begin;
  }
  return place - behind;
}

void LlamaDecoder::note(SeqId seq, Span span) {
  auto& spans = spans_[static_cast<std::size_t>(seq)];
  const auto at =
      std::lower_bound(spans.begin(), spans.end(), span.begin, [](const Span& s, std::int32_t begin) { return s.begin < begin; });
  if (at == spans.end() || at->begin != span.begin) spans.insert(at, span);
}

void LlamaDecoder::share(SeqId from, SeqId to, std::int32_t begin, std::int32_t end) {
  llama_memory_seq_cp(llama_get_memory(context_), from, to, position(from, begin), position(from, end));
  if (reader_) reader_->shared(from, to, begin, end);
  if (spans_.empty()) return;
  // All up to `end`, not only from `begin`: positions follow from everything before. Whoever shares has, or is to have, the same there.
  const std::vector<Span> known = spans_[static_cast<std::size_t>(from)];
  for (const Span& span : known) {
    if (span.begin < end) note(to, span);
  }
}

void LlamaDecoder::remove(SeqId seq, std::int32_t begin, std::int32_t end) {
  llama_memory_seq_rm(llama_get_memory(context_), seq, position(seq, begin), position(seq, end));
  if (reader_) reader_->removed(seq, begin, end);
  if (spans_.empty() || end >= 0) return;
  std::erase_if(spans_[static_cast<std::size_t>(seq)], [&](const Span& span) { return span.begin >= begin; });
  if (begin == 0) lost_[static_cast<std::size_t>(seq)] = false;
}

// What llama.cpp saves of a sequence; empty when that fails.
std::vector<std::uint8_t> LlamaDecoder::sequence_state(SeqId seq) const {
  const std::size_t size = llama_state_seq_get_size(context_, seq);
  const auto write = [&](std::uint8_t* data, std::size_t room) { return llama_state_seq_get_data(context_, data, room, seq); };
  if (compression_) {
    auto state = compression_->save(size, write);
    return state ? std::move(*state) : std::vector<std::uint8_t>();
  }
  std::vector<std::uint8_t> state(size);
  if (size > 0 && write(state.data(), size) != size) state.clear();
  return state;
}

// Where positions have several dimensions, a sequence's images are part of its state, in front; what a reader adds comes behind.
Result<std::vector<std::uint8_t>> LlamaDecoder::save(SeqId seq) {
  std::vector<std::uint8_t> state;
  if (!spans_.empty()) {
    const auto& spans = spans_[static_cast<std::size_t>(seq)];
    const std::uint64_t count = spans.size();
    state.resize(sizeof count + count * sizeof(Span));
    std::memcpy(state.data(), &count, sizeof count);
    if (count > 0) std::memcpy(state.data() + sizeof count, spans.data(), count * sizeof(Span));
  }
  const std::vector<std::uint8_t> cells = sequence_state(seq);
  if (cells.empty()) return internal_error("the KV state of a sequence could not be saved");
  state.insert(state.end(), cells.begin(), cells.end());
  if (reader_) {  // behind, with its size at the very end
    const std::vector<std::uint8_t> read = reader_->saved(seq);
    const std::uint64_t read_size = read.size();
    state.insert(state.end(), read.begin(), read.end());
    state.resize(state.size() + sizeof read_size);
    std::memcpy(state.data() + state.size() - sizeof read_size, &read_size, sizeof read_size);
  }
  return state;
}

Result<void> LlamaDecoder::restore(SeqId seq, std::span<const std::uint8_t> state) {
  if (!spans_.empty()) {
    std::uint64_t count = 0;
    std::memcpy(&count, state.data(), sizeof count);
    auto& spans = spans_[static_cast<std::size_t>(seq)];
    spans.resize(count);
    if (count > 0) std::memcpy(spans.data(), state.data() + sizeof count, count * sizeof(Span));
    state = state.subspan(sizeof count + count * sizeof(Span));
  }
  if (reader_) {
    std::uint64_t read_size = 0;
    state = state.first(state.size() - sizeof read_size);
    std::memcpy(&read_size, state.data() + state.size(), sizeof read_size);
    reader_->restored(seq, state.last(read_size));
    state = state.first(state.size() - read_size);
  }
  LogCapture log;
  const auto read = [&](const std::uint8_t* data, std::size_t size) { return llama_state_seq_set_data(context_, data, size, seq); };
  const auto done = compression_ ? compression_->restore(state, read) : Result<std::size_t>(read(state.data(), state.size()));
  if (!done || *done == 0) {
    remove(seq, 0, -1);
    return internal_error("the KV state of a sequence could not be restored: " + (done ? log.errors("no room") : done.error().message));
  }
  return {};
}

Result<std::unique_ptr<Sampler>> LlamaDecoder::make_sampler(const SamplerSpec& spec) {
  bool neutral = spec.constraints.grammar.empty() && !spec.constraints.thinking_budget && spec.logit_bias.empty() &&
                 spec.presence_penalty == 0 && spec.frequency_penalty == 0 && spec.repeat_penalty == 1;
  constexpr int small_top_k = 256;
  const bool greedy = spec.temperature <= 0;
  if (neutral && (greedy || (spec.top_k > 0 && spec.top_k <= small_top_k))) {
    std::int32_t count = 0;
    const llama_token* suppressed = llama_vocab_get_suppress_tokens(vocab_, &count);
    std::vector<Token> banned(suppressed, suppressed + count);
    if (spec.ignore_eos) {
      for (Token t = 0; t < llama_vocab_n_tokens(vocab_); ++t) {
        if (llama_vocab_is_eog(vocab_, t)) banned.push_back(t);
      }
    }
    std::sort(banned.begin(), banned.end());
    if (greedy) return std::unique_ptr<Sampler>(std::make_unique<GreedySampler>(*this, vocab_, std::move(banned)));
    return std::unique_ptr<Sampler>(std::make_unique<TopKSampler>(*this, vocab_, spec, std::move(banned)));
  }
  auto chain = make_common_sampler(model_, spec);
  if (!chain) return std::move(chain).error();
  return std::unique_ptr<Sampler>(
      std::make_unique<ChainSampler>(*this, vocab_, context_, std::move(*chain), !spec.constraints.grammar.empty()));
}

std::string LlamaDecoder::piece(Token token, bool special) const { return common_token_to_piece(vocab_, token, special); }

std::span<const float> LlamaDecoder::logits(int row) const {
  const float* values = llama_get_logits_ith(context_, context_row(row));
  return values ? std::span(values, static_cast<std::size_t>(llama_vocab_n_tokens(vocab_))) : std::span<const float>();
}

}  // namespace hearth::engine
