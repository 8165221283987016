#include "wire/dialect.h"

#include <algorithm>
#include <cctype>
#include <iterator>

namespace hearth::wire {
namespace {

constexpr std::string_view names[] = {"hermes", "qwen_xml", "llama3", "mistral", "deepseek", "functionary", "fenced", "automatic"};

// What a model's name tells, the first match counts: a fine-tune speaks as its tuner taught it, whatever its base.
constexpr std::pair<std::string_view, Dialect> families[] = {
    {"functionary", Dialect::functionary},
    {"hermes", Dialect::hermes},
    {"deepseek", Dialect::deepseek},
    {"qwen3coder", Dialect::qwen_xml},
    {"qwen3.5", Dialect::qwen_xml},
    {"nemotron3", Dialect::qwen_xml},
    {"qwen", Dialect::hermes},
    {"qwq", Dialect::hermes},
    {"mistral", Dialect::mistral},
    {"mixtral", Dialect::mistral},
    {"ministral", Dialect::mistral},
    {"magistral", Dialect::mistral},
    {"devstral", Dialect::mistral},
    {"codestral", Dialect::mistral},
    {"pixtral", Dialect::mistral},
    {"llama3", Dialect::llama3},
};

}  // namespace

std::string_view name(Dialect dialect) { return names[static_cast<std::size_t>(dialect)]; }

std::optional<Dialect> dialect_from_name(std::string_view text) {
  const auto found = std::find(std::begin(names), std::end(names), text);
  if (found == std::end(names)) return std::nullopt;
  return static_cast<Dialect>(found - std::begin(names));
}

Dialect dialect_of_model(std::string_view model) {
  std::string plain;  // "Meta-Llama-3.1", "llama3.1" and "Llama 3.1" are one
  for (const char c : model) {
    if (c != '-' && c != '_' && c != ' ') plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  for (const auto& [part, dialect] : families) {
    if (plain.find(part) != std::string::npos) return dialect;
  }
  return Dialect::automatic;
}

}  // namespace hearth::wire
