// Any body: either refused with a message, or decoded into something that survives the way to a worker and to another Anthropic endpoint.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "wire/anthropic.h"
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

// System first, then turns; a result comes after an answer with its call.
void check_order(const chat::Request& request) {
  bool first = true;
  chat::Role before = chat::Role::system;
  for (const auto& message : request.messages) {
    check(message.role != chat::Role::system || first, "the one system message comes first");
    check(first || message.role != before || before == chat::Role::tool, "neighbours of one role are one message");
    check(message.role != chat::Role::tool || before == chat::Role::assistant || before == chat::Role::tool, "results follow their calls");
    check(message.role == chat::Role::tool || !message.content.empty() || !message.tool_calls.empty() || !message.reasoning.empty(),
          "no message is empty");
    before = message.role;
    first = false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto counted = wire::anthropic::decode_count(body);
  if (!counted) check_refusal(counted.error());
  const auto decoded = wire::anthropic::decode_messages(body);
  if (!decoded) {
    check_refusal(decoded.error());
    return 0;
  }
  check(counted.ok(), "what can be asked can be counted");
  const chat::Request& request = decoded->request;
  check(wire::anthropic::estimate_tokens(request) > 0, "an estimate is never nothing");
  check_order(request);

  const auto worker = wire::openai::decode_chat(wire::openai::encode_request(request));
  check(worker.ok(), "what was accepted is accepted by a worker");
  check(wire::openai::encode_request(*worker) == wire::openai::encode_request(request), "and means the same");

  const auto encoded = wire::anthropic::encode_request(request);
  check(encoded.ok(), "what came in this protocol can be said in it");
  const auto again = wire::anthropic::decode_messages(*encoded);
  check(again.ok(), "and is accepted again");

  const wire::Origin origin{wire::Protocol::anthropic, std::string(body), {}};
  if (const auto passed = wire::anthropic::body_for(origin, "another \"model\"", true)) {
    const auto renamed = wire::anthropic::decode_messages(*passed);
    check(renamed.ok() && renamed->request.model == "another \"model\"" && renamed->request.stream,
          "a body that passes says model and stream");
    check(renamed->request.messages.size() == request.messages.size(), "and nothing else anew");
  }
  return 0;
}
