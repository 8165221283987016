// Any body: either refused with a message, or decoded into something that survives the way to a worker.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "wire/ollama.h"
#include "wire/openai.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void check_refusal(const Error& error) {
  check(!error.message.empty() && error.message.size() < 4096 && http_status(error.code) == 400, "a refusal says shortly what was wrong");
}

void check_request(const Result<wire::ollama::GenerateRequest>& decoded) {
  if (!decoded) {
    check_refusal(decoded.error());
    return;
  }
  check(!decoded->request.keep_loaded || decoded->request.keep_loaded->count() >= -1, "a time to stay is a time, or for ever");
  if (decoded->load) {
    check(!decoded->request.model.empty(), "what is loaded has a name");
    return;
  }
  const std::string body = wire::openai::encode_request(decoded->request);
  const auto again = wire::openai::decode_chat_or_completion(body);
  check(again.ok(), "what was accepted once is accepted from the gateway");
  check(wire::openai::encode_request(*again) == body, "and means the same");
}

void check_inputs(const Result<wire::ollama::EmbedRequest>& decoded) {
  if (!decoded) {
    check_refusal(decoded.error());
  } else if (!decoded->load) {
    check(wire::openai::decode_embeddings(wire::openai::encode_embedding_request(decoded->request)).ok(), "an embedding request survives");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check_request(wire::ollama::decode_chat(body));
  check_request(wire::ollama::decode_generate(body));
  check_inputs(wire::ollama::decode_embed(body));
  check_inputs(wire::ollama::decode_embeddings(body));
  if (const auto name = wire::ollama::decode_show(body); !name) check_refusal(name.error());
  return 0;
}
