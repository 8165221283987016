#include "engine/mtp_draft.h"

#include <llama-ext.h>
#include <llama.h>

#include <algorithm>
#include <chrono>

#include "engine/llama_decoder.h"

namespace hearth::engine {
namespace {

constexpr std::size_t block = 32;        // single tokens gather to so many before they are read without being asked for
constexpr std::size_t merged_rows = 64;  // in a pass where every row has outputs
constexpr double cost_smoothing = 0.1;

}  // namespace

void MtpDraft::Free::operator()(llama_context* context) const { llama_free(context); }

void MtpDraft::Rows::clear() { token.clear(), pos.clear(), seq.clear(), hidden.clear(); }

MtpDraft::MtpDraft(LlamaDecoder& decoder, std::unique_ptr<llama_context, Free> context, int width, float least_confidence)
    : decoder_(decoder),
      context_(std::move(context)),
      width_(static_cast<std::size_t>(width)),
      least_confidence_(least_confidence),
      unread_(static_cast<std::size_t>(decoder.max_sequences())) {}

MtpDraft::~MtpDraft() { decoder_.follow(nullptr); }

Result<std::unique_ptr<MtpDraft>> MtpDraft::create(llama_model* model, const ThreadPool& threads, LlamaDecoder& decoder,
                                                   const MtpOptions& options) {
  auto kv_type = kv_type_from_name(options.kv_type);
  if (!kv_type) return std::move(kv_type).error();
  const auto sequences = static_cast<std::uint32_t>(decoder.max_sequences());
  llama_context_params params = llama_context_default_params();
  params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
  params.n_ctx = static_cast<std::uint32_t>(decoder.context_cells());
  params.n_batch = std::max(static_cast<std::uint32_t>(decoder.max_batch()), sequences);
  params.n_ubatch = std::min<std::uint32_t>(params.n_batch, 512);
  params.n_seq_max = sequences;
  params.n_outputs_max = std::min(params.n_batch, std::max<std::uint32_t>(sequences, merged_rows));
  params.n_threads = params.n_threads_batch = threads.threads();
  params.type_k = params.type_v = static_cast<ggml_type>(*kv_type);
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.kv_unified = true;
  params.swa_full = true;
  params.no_perf = true;
  LogCapture log;
  std::unique_ptr<llama_context, Free> context;
  {
    const MutexLock lock(adapter_list());
    context.reset(llama_init_from_model(model, params));
  }
  if (!context) {
    return Error{ErrorCode::io, "a context for the model's MTP blocks could not be created: " + log.errors("llama.cpp gives no reason") +
                                    ". Try a smaller context, or speculation \"lookup\""};
  }
  threads.attach(context.get());
  // Only rows with outputs give the block's own hidden state. Some architectures cut the others off, some only seem to: every row of a pass has outputs,
  // or none has.
  llama_set_embeddings_nextn(context.get(), true, true);
  std::unique_ptr<MtpDraft> draft(new MtpDraft(decoder, std::move(context), llama_model_n_embd_out(model), options.least_confidence));
  draft->most_rows_ = params.n_batch;
  draft->most_outputs_ = params.n_outputs_max;
  if (auto measured = draft->measure(); !measured) return std::move(measured).error();
  decoder.follow(draft.get());
  return draft;
}

Result<void> MtpDraft::measure() {
  LogCapture log;
  std::size_t size[2] = {};
  for (std::int32_t pos = 0; pos < 2; ++pos) {
    rows_.clear();
    add(0, pos, 0, {});
    if (!run(true)) return internal_error("the model's MTP blocks cannot be computed: " + log.errors("no reason given"));
    size[pos] = llama_state_seq_get_size(context_.get(), 0);
  }
  bytes_per_cell_ = static_cast<std::int64_t>(size[1] - size[0]);
  llama_memory_clear(llama_get_memory(context_.get()), true);
  return {};
}

std::span<const float> MtpDraft::last(const Unread& unread) const {
  return unread.tokens.empty() ? std::span<const float>(unread.before) : std::span<const float>(unread.hidden).last(width_);
}

void MtpDraft::add(SeqId seq, std::int32_t pos, Token token, std::span<const float> before) {
  rows_.token.push_back(token);
  rows_.pos.push_back(pos);
  rows_.seq.push_back(seq);
  rows_.hidden.insert(rows_.hidden.end(), before.begin(), before.end());
  rows_.hidden.resize(rows_.token.size() * width_);  // zeros for what is not known
}

void MtpDraft::add_unread(SeqId seq) {
  const Unread& u = unread(seq);
  // llama.cpp takes no gaps: what was read before one is given up.
  auto* const memory = llama_get_memory(context_.get());
  if (const llama_pos end = llama_memory_seq_pos_max(memory, seq); end >= 0 && end != u.begin - 1) llama_memory_seq_rm(memory, seq, -1, -1);
  std::span<const float> before = u.before;
  for (std::size_t i = 0; i < u.tokens.size(); ++i) {
    add(seq, u.begin + static_cast<std::int32_t>(i), u.tokens[i], before);
    before = std::span(u.hidden).subspan(i * width_, width_);
  }
}

void MtpDraft::set_read(SeqId seq) {
  Unread& u = unread(seq);
  if (u.tokens.empty()) return;
  const auto end = last(u);
  u.before.assign(end.begin(), end.end());
  u.begin = u.end();
  u.tokens.clear();
  u.hidden.clear();
}

void MtpDraft::forget(SeqId seq) { llama_memory_seq_rm(llama_get_memory(context_.get()), seq, -1, -1); }

// Computes rows_, in several passes where they are many. After a failure their sequences have been read not at all.
bool MtpDraft::run(bool outputs) {
  const auto begun = std::chrono::steady_clock::now();
  const std::size_t count = rows_.token.size();
  std::vector<SeqId*> seq_list(count);
  for (std::size_t i = 0; i < count; ++i) seq_list[i] = &rows_.seq[i];
  std::vector<std::int32_t> one(count, 1);
  std::vector<std::int8_t> output(count, outputs ? 1 : 0);
  LogCapture log;
  for (std::size_t begin = 0; begin < count; begin += most_rows_) {
    const llama_batch batch{.n_tokens = static_cast<std::int32_t>(std::min(most_rows_, count - begin)),
                            .token = rows_.token.data() + begin,
                            .embd = rows_.hidden.data() + begin * width_,
                            .pos = rows_.pos.data() + begin,
                            .n_seq_id = one.data(),
                            .seq_id = seq_list.data() + begin,
                            .logits = output.data() + begin};
    int rc = 0;
    try {
      if (adapter_changed_) {
        const MutexLock lock(adapter_list());
        rc = llama_decode(context_.get(), batch);
        adapter_changed_ = false;
      } else {
        rc = llama_decode(context_.get(), batch);
      }
    } catch (const std::exception&) { rc = -3; }  // no memory for the graphs of another adapter
    if (rc == 0) continue;
    for (const SeqId seq : rows_.seq) forget(seq);
    return false;
  }
  llama_synchronize(context_.get());
  milliseconds_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun).count();
  return true;
}

void MtpDraft::read(std::span<const SeqId> sequences) {
  rows_.clear();
  for (const SeqId seq : sequences) add_unread(seq);
  if (rows_.token.empty()) return;
  run(false);
  for (const SeqId seq : sequences) set_read(seq);
}

void MtpDraft::read_one(SeqId seq) {
  if (!unread(seq).tokens.empty()) read(std::span(&seq, 1));
}

void MtpDraft::read(std::size_t rows) {
  std::vector<SeqId> sequences;
  for (std::size_t seq = 0; seq < unread_.size(); ++seq) {
    if (unread_[seq].tokens.size() >= rows) sequences.push_back(static_cast<SeqId>(seq));
  }
  if (!sequences.empty()) read(sequences);
}

void MtpDraft::computed(std::span<const BatchToken* const> rows, const float* hidden) {
  read(block);  // before what may be guesses comes to it
  for (const BatchToken* row : rows) {
    Unread& u = unread(row->seq);
    if (row->pos != u.end()) u = {.begin = row->pos};
    u.tokens.push_back(row->token);
    u.hidden.insert(u.hidden.end(), hidden, hidden + width_);
    hidden += width_;
  }
}

void MtpDraft::shared(SeqId from, SeqId to, std::int32_t begin, std::int32_t end) {
  if (unread(from).begin < end) read_one(from);
  llama_memory_seq_cp(llama_get_memory(context_.get()), from, to, begin, end);
}

void MtpDraft::removed(SeqId seq, std::int32_t begin, std::int32_t end) {
  Unread& u = unread(seq);
  if (end < 0) {
    if (begin <= 0) {
      u = {};
    } else if (begin >= u.begin) {
      const auto left = static_cast<std::size_t>(begin - u.begin);
      if (left < u.tokens.size()) u.tokens.resize(left), u.hidden.resize(left * width_);
    } else {
      u = {.begin = begin};
    }
  } else if (u.begin < end) {
    read_one(seq);
  }
  llama_memory_seq_rm(llama_get_memory(context_.get()), seq, begin, end);
}

std::vector<std::uint8_t> MtpDraft::saved(SeqId seq) {
  read_one(seq);
  std::vector<std::uint8_t> state(llama_state_seq_get_size(context_.get(), seq));
  if (llama_state_seq_get_data(context_.get(), state.data(), state.size(), seq) != state.size()) state.clear();
  return state;
}

void MtpDraft::restored(SeqId seq, std::span<const std::uint8_t> state) {
  unread(seq) = {};
  LogCapture log;
  if (state.empty() || llama_state_seq_set_data(context_.get(), state.data(), state.size(), seq) == 0) forget(seq);
}

void MtpDraft::use_adapter(llama_adapter_lora* weights, float scale) {
  read(1);  // with the one it was computed with
  llama_set_adapters_lora(context_.get(), weights ? &weights : nullptr, weights ? 1 : 0, weights ? &scale : nullptr);
  adapter_changed_ = true;
}

void MtpDraft::draft(std::span<Want> wants) {
  const double before = milliseconds_;
  std::vector<Want*> active;
  std::size_t fresh = 0;
  for (Want& want : wants) {
    want.draft.clear();
    const Unread& u = unread(want.seq);
    if (want.limit <= 0) continue;
    // Just back from where it was parked: what the model thinks there is known again after the next pass.
    want.ready = u.end() + 1 == static_cast<std::int32_t>(want.tokens.size()) && !last(u).empty();
    if (!want.ready) continue;
    active.push_back(&want);
    fresh += u.tokens.size();
  }
  if (active.empty()) return;
  if (fresh + active.size() > most_outputs_) {
    read(std::size_t{1});
    fresh = 0;
  }
  rows_.clear();
  std::vector<int> row;  // of each active sequence
  for (const Want* want : active) {
    const Unread& u = unread(want->seq);
    add_unread(want->seq);
    add(want->seq, u.end(), want->tokens.back(), last(u));
    row.push_back(static_cast<int>(rows_.token.size()) - 1);
  }
  std::vector<Want*> guessing = active;
  int steps = 0;
  while (!guessing.empty()) {
    if (!run(true)) break;
    if (steps++ == 0) {
      for (const Want* want : active) set_read(want->seq);
    }
    Rows next;
    std::swap(rows_, next);
    rows_.clear();
    std::vector<Want*> going_on;
    std::vector<int> their_row;
    for (std::size_t i = 0; i < guessing.size(); ++i) {
      Want& want = *guessing[i];
      const float* logits = llama_get_logits_ith(context_.get(), row[i]);
      const float* hidden = llama_get_embeddings_nextn_ith(context_.get(), row[i]);
      if (logits == nullptr || hidden == nullptr) continue;
      const Token token = confident({logits, decoder_.vocabulary()}, least_confidence_);
      if (token < 0) continue;
      want.draft.push_back(token);
      if (static_cast<int>(want.draft.size()) == want.limit) continue;
      their_row.push_back(static_cast<int>(rows_.token.size()));
      add(want.seq, next.pos[static_cast<std::size_t>(row[i])] + 1, token, {hidden, width_});
      going_on.push_back(&want);
    }
    guessing = std::move(going_on);
    row = std::move(their_row);
  }
  for (const Want* want : active) {
    set_read(want->seq);
    // The guesses' own rows were made from the block's hidden states; those of what turns out right are read again from the model's.
    llama_memory_seq_rm(llama_get_memory(context_.get()), want->seq, unread(want->seq).begin, -1);
  }
  // The first step also read what had been said since: only when that was little does it say what a step costs.
  if (steps == 0 || fresh > 4 * active.size()) return;
  milliseconds_per_token_ +=
      ((milliseconds_ - before) / steps - milliseconds_per_token_) * (milliseconds_per_token_ == 0 ? 1 : cost_smoothing);
}

}  // namespace hearth::engine
