// Any body: either refused with a message, or decoded into something that survives the way to a worker.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "wire/openai.h"
#include "wire/responses.h"

using namespace hearth;

namespace {

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto decoded = wire::responses::decode_create({reinterpret_cast<const char*>(data), size});
  if (!decoded) {
    const Error& error = decoded.error();
    check(!error.message.empty() && error.message.size() < 4096 && http_status(error.code) == 400, "a refusal says shortly what was wrong");
    return 0;
  }
  const std::string body = wire::openai::encode_request(decoded->request);
  const auto again = wire::openai::decode_chat(body);
  check(again.ok(), "what was accepted once is accepted from the gateway");
  check(wire::openai::encode_request(*again) == body, "and means the same");
  // What the request said is repeated in every answer.
  const wire::responses::AnswerHead head{.id = "r", .model = "m", .echo = decoded->echo};
  wire::Answer answer;
  answer.choices.resize(1);
  check(parse_json(wire::responses::encode_answer(head, answer)).ok(), "an answer is JSON");
  return 0;
}
