#include "fleet/session.h"

#include <openssl/evp.h>

#include <array>
#include <cstring>
#include <memory>
#include <string_view>

namespace hearth::fleet {
namespace {

using Digest = std::array<unsigned char, 32>;

// Every field is written as its length and its bytes, every list as its length and its entries: the reading is unique, hence no two inputs collide by
// where one field ends and the next begins.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }

  void number(std::uint64_t value) {
    std::array<unsigned char, 8> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  void text(std::string_view value) {
    number(value.size());
    EVP_DigestUpdate(context_.get(), value.data(), value.size());
  }
  void message(const chat::Message& message) {
    number(static_cast<std::uint64_t>(message.role));
    number(message.content.size());
    for (const auto& part : message.content) {
      number(static_cast<std::uint64_t>(part.kind));
      for (const auto* field : {&part.text, &part.media_type, &part.data, &part.url}) text(*field);
    }
    text(message.reasoning);
    number(message.tool_calls.size());
    for (const auto& call : message.tool_calls) {
      for (const auto* field : {&call.id, &call.name, &call.arguments}) text(*field);
    }
    text(message.tool_call_id);
    number(message.tool_failed ? 1 : 0);
    text(message.name);
  }
  void prompt(const chat::RawPrompt& prompt) {
    text(prompt.text);
    number(prompt.tokens.size());
    for (const auto token : prompt.tokens) number(static_cast<std::uint32_t>(token));
  }
  Digest finish() {
    Digest out;
    EVP_DigestFinal_ex(context_.get(), out.data(), nullptr);
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

std::string session_id(const chat::Request& request) {
  Sha256 hash;
  hash.number(request.messages.size());
  for (const auto& message : request.messages) hash.message(message);
  hash.number(request.prompts.size());
  for (const auto& prompt : request.prompts) hash.prompt(prompt);
  std::string out;
  for (const auto byte : hash.finish()) {
    constexpr std::string_view digits = "0123456789abcdef";
    out += {digits[byte >> 4], digits[byte & 15]};
  }
  return out;
}

std::uint64_t prefix_key(const chat::Request& request) {
  Sha256 hash;
  hash.text(request.model);
  hash.text(request.adapter);
  hash.number(request.tools.size());
  for (const auto& tool : request.tools) {
    for (const auto* field : {&tool.name, &tool.description, &tool.parameters}) hash.text(*field);
  }
  for (const auto& message : request.messages) {
    hash.message(message);
    if (message.role == chat::Role::user) break;
  }
  // A raw prompt grows from turn to turn like a conversation does; its beginning stays.
  constexpr std::size_t beginning = 1024;
  if (!request.prompts.empty()) {
    const auto& prompt = request.prompts.front();
    hash.text(std::string_view(prompt.text).substr(0, beginning));
    for (std::size_t i = 0; i < prompt.tokens.size() && i < beginning / 4; ++i) hash.number(static_cast<std::uint32_t>(prompt.tokens[i]));
  }
  const auto digest = hash.finish();
  std::uint64_t key = 0;
  std::memcpy(&key, digest.data(), sizeof key);
  return key;
}

}  // namespace hearth::fleet
