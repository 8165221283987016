#include "engine/reference.h"

#include <chat.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <mtmd-helper.h>
#include <mtmd.h>

#include <algorithm>
#include <memory>

#include "engine/backend.h"

namespace hearth::engine::testing {
namespace {

using Model = std::unique_ptr<llama_model, void (*)(llama_model*)>;
using Context = std::unique_ptr<llama_context, void (*)(llama_context*)>;

Model open(const std::string& path) {
  start_backend();  // its log
  llama_model_params params = llama_model_default_params();
  return {llama_model_load_from_file(path.c_str(), params), llama_model_free};
}

std::vector<int> tokenize(const llama_vocab* vocab, const std::string& text, bool special) {
  std::vector<int> tokens(text.size() + 8);
  int n = llama_tokenize(vocab, text.c_str(), static_cast<int>(text.size()), tokens.data(), static_cast<int>(tokens.size()), special, true);
  tokens.resize(static_cast<std::size_t>(std::max(n, 0)));
  return tokens;
}

}  // namespace

Reference reference(const std::string& path, const std::string& prompt, int max_tokens, bool score, const std::string& adapter,
                    float scale) {
  Reference out;
  Model model = open(path);
  const llama_vocab* vocab = llama_model_get_vocab(model.get());
  auto width = static_cast<std::size_t>(llama_vocab_n_tokens(vocab));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 2048;
  params.n_batch = 512;
  params.n_threads = params.n_threads_batch = 1;
  Context context(llama_init_from_model(model.get(), params), llama_free);
  if (!adapter.empty()) {
    llama_adapter_lora* lora = llama_adapter_lora_init(model.get(), adapter.c_str());  // freed with the model
    EXPECT_NE(lora, nullptr);
    llama_set_adapters_lora(context.get(), &lora, 1, &scale);
  }
  out.prompt = tokenize(vocab, prompt, true);
  std::vector<llama_token> tokens = out.prompt;
  llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
  batch.n_tokens = static_cast<int>(tokens.size());
  for (int i = 0; i < batch.n_tokens; ++i) {
    batch.token[i] = tokens[static_cast<std::size_t>(i)];
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = score || i + 1 == batch.n_tokens;
  }
  EXPECT_EQ(llama_decode(context.get(), batch), 0);
  for (int i = score ? 0 : batch.n_tokens - 1; i < batch.n_tokens; ++i) {
    const float* row = llama_get_logits_ith(context.get(), i);
    out.prompt_logits.emplace_back(row, row + width);
  }
  llama_batch_free(batch);
  out.first_logits = out.prompt_logits.back();
  for (int i = 0; i < max_tokens; ++i) {
    const float* logits = llama_get_logits_ith(context.get(), -1);
    llama_token next = static_cast<llama_token>(std::max_element(logits, logits + width) - logits);
    if (llama_vocab_is_eog(vocab, next)) break;
    out.tokens.push_back(next);
    char piece[256];
    int n = llama_token_to_piece(vocab, next, piece, sizeof piece, 0, false);
    out.text.append(piece, static_cast<std::size_t>(std::max(n, 0)));
    EXPECT_EQ(llama_decode(context.get(), llama_batch_get_one(&next, 1)), 0);
  }
  return out;
}

Reference reference_image(const std::string& path, const std::string& projector, const std::string& before, const std::string& image,
                          const std::string& after, int max_tokens, int batch) {
  Reference out;
  Model model = open(path);
  const llama_vocab* vocab = llama_model_get_vocab(model.get());
  auto width = static_cast<std::size_t>(llama_vocab_n_tokens(vocab));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 2048;
  params.n_batch = 512;
  params.n_threads = params.n_threads_batch = 1;
  Context context(llama_init_from_model(model.get(), params), llama_free);
  mtmd_context_params vision = mtmd_context_params_default();
  vision.print_timings = false;
  vision.n_threads = 1;
  const mtmd::context_ptr eye(mtmd_init_from_file(projector.c_str(), model.get(), vision));
  EXPECT_TRUE(eye);
  if (!eye) return out;

  common_chat_templates_inputs inputs;
  common_chat_msg message;
  message.role = "user";
  message.content_parts = {
      {.type = "text", .text = before}, {.type = "media_marker", .text = mtmd_default_marker()}, {.type = "text", .text = after}};
  inputs.messages.push_back(message);
  inputs.enable_thinking = common_chat_templates_support_enable_thinking(common_chat_templates_init(model.get(), "").get());
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  const std::string prompt = common_chat_templates_apply(common_chat_templates_init(model.get(), "").get(), inputs).prompt;

  const mtmd::bitmap_ptr bitmap(mtmd_helper_bitmap_init_from_buf(eye.get(), reinterpret_cast<const unsigned char*>(image.data()),
                                                                 image.size(), false, mtmd_helper_init_opt_default())
                                    .bitmap);
  const mtmd_bitmap* bitmaps[] = {bitmap.get()};
  const mtmd_input_text text{.text = prompt.data(), .text_len = prompt.size(), .add_special = true, .parse_special = true};
  const mtmd::input_chunks_ptr chunks(mtmd_input_chunks_init());
  EXPECT_EQ(mtmd_tokenize(eye.get(), chunks.get(), &text, bitmaps, 1), 0);
  out.prompt.resize(mtmd_helper_get_n_tokens(chunks.get()));
  llama_pos past = 0;
  EXPECT_EQ(mtmd_helper_eval_chunks(eye.get(), context.get(), chunks.get(), 0, 0, batch, true, &past), 0);
  const float* first = llama_get_logits_ith(context.get(), -1);
  out.first_logits.assign(first, first + width);
  for (int i = 0; i < max_tokens; ++i) {
    const float* logits = llama_get_logits_ith(context.get(), -1);
    llama_token next = static_cast<llama_token>(std::max_element(logits, logits + width) - logits);
    if (llama_vocab_is_eog(vocab, next)) break;
    out.tokens.push_back(next);
    EXPECT_EQ(llama_decode(context.get(), llama_batch_get_one(&next, 1)), 0);
  }
  return out;
}

std::vector<int> reference_tokens(const std::string& path, const std::string& text, bool special) {
  Model model = open(path);
  return tokenize(llama_model_get_vocab(model.get()), text, special);
}

std::vector<float> reference_pooled(const std::string& path, const std::vector<int>& tokens, int pooling) {
  Model model = open(path);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = 512;
  params.n_threads = params.n_threads_batch = 1;
  params.embeddings = true;
  params.pooling_type = static_cast<enum llama_pooling_type>(pooling);
  Context context(llama_init_from_model(model.get(), params), llama_free);
  std::vector<llama_token> input = tokens;
  llama_batch batch = llama_batch_init(512, 0, 1);
  for (std::size_t i = 0; i < input.size(); ++i) {
    batch.token[i] = input[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<int>(input.size());
  EXPECT_EQ(llama_decode(context.get(), batch), 0);
  llama_batch_free(batch);
  const float* values = llama_get_embeddings_seq(context.get(), 0);
  int width = pooling == LLAMA_POOLING_TYPE_RANK ? 1 : llama_model_n_embd_out(model.get());
  return {values, values + width};
}

}  // namespace hearth::engine::testing
