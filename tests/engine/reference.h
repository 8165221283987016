// The plainest possible loop around llama.cpp's C API, against which the engine is held.
#pragma once

#include <string>
#include <vector>

namespace hearth::engine::testing {

struct Reference {
  std::vector<int> prompt;          // tokens
  std::vector<float> first_logits;  // after the prompt
  std::vector<int> tokens;          // greedy continuation, end-of-generation left out
  std::string text;
  std::vector<std::vector<float>> prompt_logits;  // one row per prompt token
};
// `score`: fill prompt_logits too. (The last layer then works on more rows at once, which rounds differently.) `adapter`: a LoRA file to apply.
Reference reference(const std::string& model, const std::string& prompt, int max_tokens, bool score = false,
                    const std::string& adapter = {}, float scale = 1);

// The same for a user's message of `before`, the image file `image` and `after`, in the model's own template, through llama.cpp's image library.
// `batch`: rows of an image computed at once.
Reference reference_image(const std::string& model, const std::string& projector, const std::string& before, const std::string& image,
                          const std::string& after, int max_tokens, int batch = 512);

// llama.cpp's own pooled vector of `text`, not normalised; one value for a ranking model.
std::vector<float> reference_pooled(const std::string& model, const std::vector<int>& tokens, int pooling);
std::vector<int> reference_tokens(const std::string& model, const std::string& text, bool special);

}  // namespace hearth::engine::testing
