#include "engine/draft_model.h"

#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string_view>

namespace hearth::engine {
namespace {

constexpr int most_padding = 128;   // models of one family pad their vocabulary to different sizes
constexpr int catch_up_rows = 256;  // prompt tokens computed per pass of the large model: they delay it
constexpr double cost_smoothing = 0.1;

}  // namespace

struct DraftModel::Model {
  explicit Model(llama_model* model) : handle(model) {}
  ~Model() { llama_model_free(handle); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  llama_model* handle;
};

Result<void> check_same_vocabulary(const llama_model* target, const llama_model* draft, const std::string& draft_name) {
  const llama_vocab *large = llama_model_get_vocab(target), *small = llama_model_get_vocab(draft);
  const auto refuse = [&](const std::string& what) {
    return Error{ErrorCode::config_invalid, "the draft model " + draft_name + " cannot guess for this model: " + what +
                                                ". A draft model must have been made with the same tokenizer"};
  };
  if (llama_vocab_type(large) != llama_vocab_type(small)) return refuse("their tokenizers are of different kinds");
  const int large_size = llama_vocab_n_tokens(large), small_size = llama_vocab_n_tokens(small);
  if (std::abs(large_size - small_size) > most_padding) {
    return refuse("its vocabulary has " + std::to_string(small_size) + " tokens, the model's has " + std::to_string(large_size));
  }
  const auto text = [](const llama_vocab* vocab, Token token) {
    const char* text = llama_vocab_get_text(vocab, token);
    return std::string_view(text ? text : "");
  };
  for (Token token = 0; token < std::min(large_size, small_size); ++token) {
    if (text(large, token) != text(small, token)) {
      return refuse("token " + std::to_string(token) + " is \"" + std::string(text(small, token)) + "\" there and \"" +
                    std::string(text(large, token)) + "\" here");
    }
  }
  return {};
}

DraftModel::DraftModel(std::unique_ptr<Model> model, std::unique_ptr<LlamaDecoder> decoder, float least_confidence, int vocabulary)
    : model_(std::move(model)),
      decoder_(std::move(decoder)),
      least_confidence_(least_confidence),
      vocabulary_(vocabulary),
      held_(static_cast<std::size_t>(decoder_->max_sequences())) {}

DraftModel::~DraftModel() { decoder_.reset(); }

Result<std::unique_ptr<DraftModel>> DraftModel::load(const llama_model* target, const ThreadPool& threads,
                                                     const DraftModelOptions& options) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(options.path, failed)) {
    return Error{ErrorCode::io, "the draft model " + options.path +
                                    " cannot be opened: " + (failed ? failed.message() : std::string("it is not a regular file"))};
  }
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = options.gpu_layers;
  LogCapture log;
  std::unique_ptr<Model> model;
  try {
    if (llama_model* loaded = llama_model_load_from_file(options.path.c_str(), params)) model = std::make_unique<Model>(loaded);
  } catch (const std::exception& e) {
    return Error{ErrorCode::model_invalid, "the draft model " + options.path + " cannot be loaded: " + e.what()};
  }
  if (!model) {
    return Error{ErrorCode::model_invalid,
                 "the draft model " + options.path + " cannot be loaded: " + log.errors("llama.cpp gives no reason")};
  }
  if (auto same = check_same_vocabulary(target, model->handle, options.path); !same) return same.error();
  if (llama_model_is_recurrent(model->handle) || llama_model_is_hybrid(model->handle)) {
    return Error{ErrorCode::config_invalid,
                 "the draft model " + options.path + " is recurrent: it cannot take a wrong guess back. Choose one with attention alone"};
  }
  auto decoder = LlamaDecoder::create(model->handle, threads, options.decoder);
  if (!decoder) return std::move(decoder).error();
  const int vocabulary =
      std::min(llama_vocab_n_tokens(llama_model_get_vocab(target)), llama_vocab_n_tokens(llama_model_get_vocab(model->handle)));
  return std::unique_ptr<DraftModel>(new DraftModel(std::move(model), std::move(*decoder), options.least_confidence, vocabulary));
}

void DraftModel::drop(SeqId seq) {
  Held& held = held_[static_cast<std::size_t>(seq)];
  if (!held.tokens.empty()) decoder_->remove(seq, 0, -1);
  held = {};
}

// Runs the batch; what it adds is held afterwards. After a failure the sequences concerned start from nothing.
bool DraftModel::decode() {
  const bool done = decoder_->decode(batch_).ok();
  for (const BatchToken& row : batch_) {
    if (done) held_[static_cast<std::size_t>(row.seq)].tokens.push_back(row.token);
    else drop(row.seq);
  }
  return done;
}

Token DraftModel::guess(int row) const {
  const auto logits = decoder_->logits(row);
  return confident(logits.first(std::min(logits.size(), static_cast<std::size_t>(vocabulary_))), least_confidence_);
}

// Brings the KV memory up to all of each sequence's tokens, the last of them with logits, and puts the first guesses' rows into batch_. False when there
// is more to compute than one pass of the large model may be delayed for: the rest follows next time.
bool DraftModel::catch_up(std::span<Want*> wants) {
  int room = std::min(catch_up_rows, decoder_->max_batch());
  bool whole = true;
  batch_.clear();
  for (Want* want : wants) {
    Held& held = held_[static_cast<std::size_t>(want->seq)];
    const std::size_t size = want->tokens.size();
    while (held.same < held.tokens.size() && held.same < size && held.tokens[held.same] == want->tokens[held.same]) ++held.same;
    // The last token is always computed: its logits are what is asked for.
    const std::size_t keep = std::min(held.same, size - 1);
    if (keep < held.tokens.size()) {
      decoder_->remove(want->seq, static_cast<std::int32_t>(keep), -1);
      held.tokens.resize(keep);
      held.same = keep;
    }
    const int rows = std::min(room, static_cast<int>(size - keep));
    for (int i = 0; i < rows; ++i) {
      const std::size_t pos = keep + static_cast<std::size_t>(i);
      batch_.push_back({want->tokens[pos], static_cast<std::int32_t>(pos), want->seq, pos + 1 == size});
    }
    room -= rows;
    if (keep + static_cast<std::size_t>(rows) < size) {
      want->limit = 0;
      want->ready = false;
      whole = false;
    }
  }
  return whole;
}

void DraftModel::draft(std::span<Want> wants) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Want*> active;
  for (Want& want : wants) {
    want.draft.clear();
    const std::size_t from = std::min(held_[static_cast<std::size_t>(want.seq)].same, want.tokens.size());
    const auto fresh = want.tokens.subspan(from);
    const bool known = std::all_of(fresh.begin(), fresh.end(), [this](Token t) { return t >= 0 && t < vocabulary_; });
    if (known && want.limit > 0 && static_cast<int>(want.tokens.size()) + want.limit <= decoder_->max_request_tokens())
      active.push_back(&want);
  }
  if (active.empty()) return;
  const bool whole = catch_up(active);
  const std::size_t fresh_rows = batch_.size(), steps_rows = 4 * active.size();
  std::erase_if(active, [](const Want* want) { return want->limit == 0; });
  int steps = 0;
  while (!batch_.empty() && decode()) {
    ++steps;
    std::vector<std::pair<Want*, Token>> guessed;
    for (std::size_t row = 0; row < batch_.size(); ++row) {
      if (!batch_[row].output) continue;
      const auto at = std::find_if(active.begin(), active.end(), [&](const Want* want) { return want->seq == batch_[row].seq; });
      const Token token = guess(static_cast<int>(row));
      if (token >= 0) guessed.emplace_back(*at, token);
    }
    batch_.clear();
    for (auto [want, token] : guessed) {
      want->draft.push_back(token);
      // The last guess needs no row: nothing follows from it.
      if (static_cast<int>(want->draft.size()) == want->limit) continue;
      const auto pos = static_cast<std::int32_t>(held_[static_cast<std::size_t>(want->seq)].tokens.size());
      batch_.push_back({token, pos, want->seq, true});
    }
  }
  const double spent = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  milliseconds_ += spent;
  // The first step also computed what had been said since: only when that was little does it say what a step costs.
  if (!whole || steps == 0 || fresh_rows > steps_rows) return;
  milliseconds_per_token_ += (spent / steps - milliseconds_per_token_) * (milliseconds_per_token_ == 0 ? 1 : cost_smoothing);
}

}  // namespace hearth::engine
