// Any body: either refused with a message, or decoded into something that survives the way to a worker.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "wire/openai.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void check_refusal(const Error& error) {
  check(!error.message.empty() && http_status(error.code) == 400, "a refusal says what was wrong");
  check(error.message.size() < 4096, "a refusal is short");
}

void check_request(const Result<chat::Request>& decoded) {
  if (!decoded) {
    check_refusal(decoded.error());
    return;
  }
  check(decoded->choices >= 1 && decoded->choices <= 16, "n is in range");
  const std::string body = wire::openai::encode_request(*decoded);
  const auto again = wire::openai::decode_chat_or_completion(body);
  check(again.ok(), "what was accepted once is accepted from the gateway");
  check(wire::openai::encode_request(*again) == body, "and means the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check_request(wire::openai::decode_chat(body));
  check_request(wire::openai::decode_completion(body));
  if (const auto decoded = wire::openai::decode_embeddings(body)) {
    check(wire::openai::decode_embeddings(wire::openai::encode_embedding_request(*decoded)).ok(), "an embedding request survives");
  } else {
    check_refusal(decoded.error());
  }
  if (const auto decoded = wire::openai::decode_rerank(body)) {
    check(wire::openai::decode_rerank(wire::openai::encode_rerank_request(*decoded)).ok(), "a rerank request survives");
  } else {
    check_refusal(decoded.error());
  }
  return 0;
}
