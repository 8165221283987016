#include "wire/show.h"

#include <spdlog/fmt/fmt.h>

namespace hearth::wire {
namespace {

json::array show(const std::vector<chat::RawPrompt>& prompts) {
  json::array out;
  for (const auto& prompt : prompts) {
    if (prompt.tokens.empty()) out.emplace_back(prompt.text);
    else out.emplace_back(json::array(prompt.tokens.begin(), prompt.tokens.end()));
  }
  return out;
}

json::object show(const chat::Message& message) {
  static constexpr const char* roles[] = {"system", "user", "assistant", "tool"};
  json::object out{{"role", roles[static_cast<int>(message.role)]}};
  json::array content;
  for (const auto& part : message.content) {
    if (part.kind == chat::ContentPart::Kind::text) content.emplace_back(part.text);
    else if (!part.url.empty()) content.emplace_back(json::object{{"url", part.url}});
    else content.emplace_back(json::object{{"media_type", part.media_type}, {"data", part.data}});
  }
  out["content"] = content;
  if (!message.reasoning.empty()) out["reasoning"] = message.reasoning;
  if (!message.reasoning_signature.empty()) out["reasoning_signature"] = message.reasoning_signature;
  if (!message.tool_calls.empty()) {
    json::array calls;
    for (const auto& call : message.tool_calls)
      calls.emplace_back(json::object{{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
    out["tool_calls"] = calls;
  }
  if (!message.tool_call_id.empty()) out["tool_call_id"] = message.tool_call_id;
  if (message.tool_failed) out["tool_failed"] = true;
  if (!message.name.empty()) out["name"] = message.name;
  return out;
}

template <class T>
void put(json::object& out, const char* key, const std::optional<T>& value) {
  if (value) out[key] = *value;
}

std::string show(const chat::TokenProbability& token) {
  std::string bytes;
  append_json_string(bytes, token.bytes);
  for (const char c : token.bytes) bytes += fmt::format(" {:02x}", static_cast<unsigned char>(c));
  return fmt::format("({} {} {})", token.token, bytes, token.logprob);
}

struct Line {
  std::string operator()(const chat::TextDelta& e) { return fmt::format("{} text {}", e.choice, e.text); }
  std::string operator()(const chat::ReasoningDelta& e) { return fmt::format("{} reasoning {}", e.choice, e.text); }
  std::string operator()(const chat::ToolCallBegin& e) { return fmt::format("{} call {} begin {} {}", e.choice, e.index, e.id, e.name); }
  std::string operator()(const chat::ToolCallDelta& e) { return fmt::format("{} call {} delta {}", e.choice, e.index, e.arguments); }
  std::string operator()(const chat::ToolCallEnd& e) { return fmt::format("{} call {} end", e.choice, e.index); }
  std::string operator()(const chat::TokenInfo& e) {
    std::string out = fmt::format("{} token {} entropy {}", e.choice, show(e.chosen), e.entropy);
    for (const auto& top : e.top) out += " " + show(top);
    return out;
  }
  std::string operator()(const chat::Started& e) { return fmt::format("started {} {}", e.prompt_tokens, e.cached_tokens); }
  std::string operator()(const chat::ReasoningSignature& e) { return fmt::format("{} signature {}", e.choice, e.signature); }
  std::string operator()(const chat::Finished& e) {
    return fmt::format("{} finished {}{}", e.choice, static_cast<int>(e.reason), e.stop_sequence.empty() ? "" : " " + e.stop_sequence);
  }
  std::string operator()(const chat::Usage& e) {
    return fmt::format("usage {} {} {}", e.prompt_tokens, e.cached_tokens, e.completion_tokens);
  }
  std::string operator()(const chat::Failed& e) {
    return fmt::format("failed {} {} {} {}", name(e.error.code), e.error.message, e.error.param, e.error.retry_after.count());
  }
};

}  // namespace

json::object show(const chat::Request& request) {
  static constexpr const char* formats[] = {"text", "json_object", "json_schema", "gbnf"};
  static constexpr const char* choices[] = {"auto", "none", "required", "named"};
  json::object out;
  if (!request.model.empty()) out["model"] = request.model;
  if (!request.messages.empty()) {
    json::array messages;
    for (const auto& message : request.messages) messages.emplace_back(show(message));
    out["messages"] = messages;
  }
  if (!request.prompts.empty()) out["prompts"] = show(request.prompts);
  if (!request.tools.empty()) {
    json::array tools;
    for (const auto& tool : request.tools) {
      tools.emplace_back(json::object{{"name", tool.name}, {"description", tool.description}, {"parameters", tool.parameters}});
    }
    out["tools"] = tools;
  }
  if (request.tool_choice.mode != chat::ToolChoice::Mode::automatic)
    out["tool_choice"] = choices[static_cast<int>(request.tool_choice.mode)];
  if (!request.tool_choice.name.empty()) out["tool_choice_name"] = request.tool_choice.name;
  if (!request.parallel_tool_calls) out["parallel_tool_calls"] = false;
  if (request.format.kind != chat::OutputFormat::Kind::text) out["format"] = formats[static_cast<int>(request.format.kind)];
  if (!request.format.schema.empty()) out["schema"] = request.format.schema;
  const auto& sampling = request.sampling;
  put(out, "temperature", sampling.temperature);
  put(out, "top_p", sampling.top_p);
  put(out, "min_p", sampling.min_p);
  put(out, "top_k", sampling.top_k);
  put(out, "presence_penalty", sampling.presence_penalty);
  put(out, "frequency_penalty", sampling.frequency_penalty);
  put(out, "repeat_penalty", sampling.repeat_penalty);
  put(out, "seed", sampling.seed);
  if (!sampling.logit_bias.empty()) {
    json::array biases;
    for (const auto& [token, bias] : sampling.logit_bias) biases.emplace_back(json::array{token, bias});
    out["logit_bias"] = biases;
  }
  if (!sampling.stop.empty()) out["stop"] = json::array(sampling.stop.begin(), sampling.stop.end());
  put(out, "reasoning_enabled", request.reasoning.enabled);
  if (!request.reasoning.effort.empty()) out["reasoning_effort"] = request.reasoning.effort;
  put(out, "reasoning_budget", request.reasoning.budget);
  if (request.choices != 1) out["n"] = request.choices;
  put(out, "max_tokens", request.max_tokens);
  put(out, "top_logprobs", request.top_logprobs);
  for (const auto& [key, on] :
       {std::pair{"echo", request.echo}, std::pair{"stream", request.stream}, std::pair{"include_usage", request.include_usage},
        std::pair{"ignore_eos", request.ignore_eos}, std::pair{"background", request.priority == chat::Priority::background}}) {
    if (on) out[key] = true;
  }
  if (request.time_limit) out["time_limit_ms"] = request.time_limit->count();
  if (request.keep_loaded) out["keep_loaded_ms"] = request.keep_loaded->count();
  return out;
}

json::object show(const chat::EmbeddingRequest& request) {
  json::object out{{"inputs", show(request.inputs)}};
  if (!request.model.empty()) out["model"] = request.model;
  put(out, "dimensions", request.dimensions);
  if (request.base64) out["base64"] = true;
  return out;
}

json::object show(const chat::RerankRequest& request) {
  json::object out{{"query", request.query}, {"documents", json::array(request.documents.begin(), request.documents.end())}};
  if (!request.model.empty()) out["model"] = request.model;
  put(out, "top_n", request.top_n);
  if (request.return_documents) out["return_documents"] = true;
  return out;
}

std::string show(const chat::Events& events) {
  std::string out;
  for (const auto& event : events) out += std::visit(Line{}, event) + "\n";
  return out;
}

}  // namespace hearth::wire
