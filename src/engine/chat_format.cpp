#include "engine/chat_format.h"

#include <chat.h>
#include <common.h>
#include <json-schema-to-grammar.h>
#include <llama.h>

#include <algorithm>
#include <functional>
#include <mutex>

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/backend.h"
#include "engine/llama_decoder.h"

namespace hearth::engine {

struct OutputSyntax {
  common_chat_parser_params params;
  // Texts at which a tool call or a thought may begin or end. While none is in sight, more text is more of the same and needs no parsing.
  std::vector<std::string> markers;
  std::vector<std::string> call_markers, thought_ends;  // those among them
  bool markers_known = false;                           // false: the dialect has openings that are no fixed text
};

struct ChatFormat::Impl {
  const llama_model* model;
  common_chat_templates_ptr templates;
  bool thinking = false;
  bool images = false;
};

namespace {

// Grammars above these are refused: llama.cpp's parser and checker recurse once per nested group and per chained rule.
constexpr std::size_t kMaxGrammarBytes = 64 * 1024;
constexpr int kMaxGrammarNesting = 256;
constexpr std::size_t kMaxSchemaBytes = 256 * 1024;
constexpr std::size_t kMaxPatternBytes = 1024;

std::string tool_param(std::size_t i) { return "tools[" + std::to_string(i) + "].function.parameters"; }

Result<void> check_patterns(const json::value& value, const std::string& param) {
  if (const auto* array = value.if_array()) {
    for (const auto& item : *array) {
      if (auto ok = check_patterns(item, param); !ok) return ok;
    }
  } else if (const auto* object = value.if_object()) {
    for (const auto& [key, item] : *object) {
      if (key == "pattern" && item.is_string() && item.get_string().size() > kMaxPatternBytes) {
        return invalid("a \"pattern\" in the schema is longer than " + std::to_string(kMaxPatternBytes) + " bytes", param);
      }
      if (auto ok = check_patterns(item, param); !ok) return ok;
    }
  }
  return {};
}

// The schema's text, known to be a JSON object; {} means any object, as it does to OpenAI's API.
Result<std::string> check_schema(const std::string& text, const std::string& param) {
  if (text.size() > kMaxSchemaBytes) {
    return invalid("the schema has " + std::to_string(text.size()) + " bytes; the most is " + std::to_string(kMaxSchemaBytes), param);
  }
  auto value = parse_json(text.empty() ? std::string_view("{}") : std::string_view(text));
  if (!value) return invalid("the schema is not valid JSON: " + value.error().message, param);
  if (!value->is_object()) return invalid("the schema must be a JSON object, e.g. {\"type\": \"object\", \"properties\": {…}}", param);
  if (auto ok = check_patterns(*value, param); !ok) return ok.error();
  if (value->get_object().empty()) return std::string(R"({"type":"object"})");
  return text;
}

Result<std::string> schema_grammar(const std::string& schema, const std::string& param) {
  try {
    return json_schema_to_grammar(common_json::parse(schema));
  } catch (const std::exception& e) { return invalid(std::string("the schema cannot be turned into a grammar: ") + e.what(), param); }
}

Result<void> check_gbnf(const std::string& grammar) {
  if (grammar.empty()) return invalid("the grammar is empty: give GBNF rules, the first named \"root\"", "grammar");
  if (grammar.find('\0') != std::string::npos) return invalid("the grammar holds a NUL character", "grammar");
  if (grammar.size() > kMaxGrammarBytes) {
    return invalid("the grammar has " + std::to_string(grammar.size()) + " bytes; the most is " + std::to_string(kMaxGrammarBytes),
                   "grammar");
  }
  int depth = 0;
  for (char c : grammar) {
    if (c == '(' && ++depth > kMaxGrammarNesting) {
      return invalid("the grammar nests groups deeper than " + std::to_string(kMaxGrammarNesting), "grammar");
    }
    if (c == ')') --depth;
  }
  return {};
}

Result<void> check(const llama_model* model, const Constraints& wanted, const std::string& param) {
  auto ok = check_constraints(model, wanted);
  if (ok) return ok;
  Error error = std::move(ok).error();
  error.param = param;
  return error;
}

std::vector<std::size_t> tools_in_play(const chat::Request& request) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < request.tools.size(); ++i) {
    bool wanted = request.tool_choice.mode == chat::ToolChoice::Mode::named ? request.tools[i].name == request.tool_choice.name
                                                                            : request.tool_choice.mode != chat::ToolChoice::Mode::none;
    if (wanted) out.push_back(i);
  }
  return out;
}

// `images`: where those of the message are added; null when the model takes none.
Result<common_chat_msg> to_common(const chat::Message& message, std::size_t index, const std::string& marker,
                                  std::vector<PlacedImage>* images) {
  common_chat_msg out;
  switch (message.role) {
    case chat::Role::system: out.role = "system"; break;
    case chat::Role::user: out.role = "user"; break;
    case chat::Role::assistant: out.role = "assistant"; break;
    case chat::Role::tool: out.role = "tool"; break;
  }
  bool pictured = false;
  for (std::size_t i = 0; i < message.content.size(); ++i) {
    const chat::ContentPart& part = message.content[i];
    if (part.kind == chat::ContentPart::Kind::text) {
      out.content_parts.push_back({.type = "text", .text = part.text});
      continue;
    }
    std::string param = "messages[" + std::to_string(index) + "].content[" + std::to_string(i) + "]";
    if (images == nullptr) {
      return Error{ErrorCode::unsupported,
                   "this model reads text only, not images: leave them out, or choose a model that /v1/models shows with vision",
                   std::move(param)};
    }
    images->push_back({.marker = marker + std::to_string(images->size()) + "_", .image = &part, .param = std::move(param)});
    out.content_parts.push_back({.type = "media_marker", .text = images->back().marker});
    pictured = true;
  }
  if (!pictured) {
    out.content_parts.clear();
    out.content = message.text();
  }
  out.reasoning_content = message.reasoning;
  out.tool_call_id = message.tool_call_id;
  if (message.role == chat::Role::tool) out.tool_name = message.name;
  for (const chat::ToolCall& call : message.tool_calls) {
    out.tool_calls.push_back({.name = call.name, .arguments = call.arguments.empty() ? "{}" : call.arguments, .id = call.id});
  }
  return out;
}

// Brings the images into the order of the prompt. Templates may move messages, and some pass over what is no text.
Result<void> place(const std::string& prompt, std::vector<PlacedImage>& images) {
  std::vector<std::pair<std::size_t, PlacedImage>> found;
  for (PlacedImage& image : images) {
    const std::size_t at = prompt.find(image.marker);
    if (at == std::string::npos || prompt.find(image.marker, at + 1) != std::string::npos) {
      return Error{ErrorCode::unsupported, "this model's chat template has no place for an image here; put it into a user's message",
                   image.param};
    }
    found.emplace_back(at, std::move(image));
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  images.clear();
  for (auto& [at, image] : found) images.push_back(std::move(image));
  return {};
}

// Whether the prompt ends inside a thought that it has begun.
bool leaves_open(const common_chat_params& params) {
  if (params.thinking_start_tag.empty() || params.thinking_end_tags.empty()) return false;
  const std::size_t start = params.generation_prompt.rfind(params.thinking_start_tag);
  if (start == std::string::npos) return false;
  return std::none_of(params.thinking_end_tags.begin(), params.thinking_end_tags.end(), [&](const std::string& tag) {
    return !tag.empty() && params.generation_prompt.find(tag, start) != std::string::npos;
  });
}

// llama.cpp tells templates the date through localtime, which has one buffer for all threads.
common_chat_params apply_templates(const common_chat_templates* templates, const common_chat_templates_inputs& inputs) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  return common_chat_templates_apply(templates, inputs);
}

// What a call begins with; empty when the template does not tell, or may begin it in several ways.
std::string call_mark(const common_chat_templates* templates, common_chat_templates_inputs inputs) {
  inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
  const auto triggers = apply_templates(templates, inputs).grammar_triggers;
  return triggers.size() == 1 && triggers[0].type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD ? triggers[0].value : std::string();
}

// How many bytes at the end of `text` could be the beginning of `marker`.
std::size_t partial_match(std::string_view text, std::string_view marker) {
  for (std::size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == marker.substr(0, n)) return n;
  }
  return 0;
}

std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.find_last_not_of(" \t\r\n");
  return end == std::string_view::npos ? text.size() : text.size() - end - 1;
}

}  // namespace

ChatFormat::ChatFormat(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatFormat::~ChatFormat() = default;

Result<std::unique_ptr<ChatFormat>> ChatFormat::create(const llama_model* model, bool images) {
  try {
    auto impl = std::make_unique<Impl>();
    impl->model = model;
    impl->images = images;
    impl->templates = common_chat_templates_init(model, "");
    impl->thinking = common_chat_templates_support_enable_thinking(impl->templates.get());
    return std::unique_ptr<ChatFormat>(new ChatFormat(std::move(impl)));
  } catch (const std::exception& e) {
    return Error{ErrorCode::model_invalid, std::string("the model's chat template cannot be used: ") + e.what()};
  }
}

bool ChatFormat::tools() const {
  const auto abilities = common_chat_templates_get_caps(impl_->templates.get());
  const auto has = [&](const char* ability) {
    const auto found = abilities.find(ability);
    return found != abilities.end() && found->second;
  };
  return has("supports_tools") && has("supports_tool_calls");
}

Result<RenderedChat> ChatFormat::render(const chat::Request& request, bool answer) const {
  using Mode = chat::ToolChoice::Mode;
  using Format = chat::OutputFormat::Kind;
  if (request.messages.empty()) return invalid("messages must not be empty", "messages");

  common_chat_templates_inputs inputs;
  std::vector<PlacedImage> images;
  const std::string marker = random_id("image_") + "_";
  for (std::size_t i = 0; i < request.messages.size(); ++i) {
    auto message = to_common(request.messages[i], i, marker, impl_->images ? &images : nullptr);
    if (!message) return std::move(message).error();
    inputs.messages.push_back(std::move(*message));
  }
  inputs.add_generation_prompt = answer;
  inputs.parallel_tool_calls = request.parallel_tool_calls;
  const chat::Reasoning& reasoning = request.reasoning;
  if (reasoning.budget && *reasoning.budget < 0) {
    return invalid("the budget for thinking is " + std::to_string(*reasoning.budget) + " tokens; it must not be negative", "reasoning");
  }
  const bool may_think = reasoning.enabled.value_or(true) && reasoning.budget.value_or(1) > 0;
  inputs.enable_thinking = impl_->thinking && may_think;
  // Templates read what they know of these. None knows "minimal".
  if (!reasoning.effort.empty())
    inputs.chat_template_kwargs["reasoning_effort"] =
        json::serialize(json::string(reasoning.effort == "minimal" ? "low" : reasoning.effort));
  if (reasoning.budget) inputs.chat_template_kwargs["thinking_budget"] = std::to_string(*reasoning.budget);
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;

  std::vector<std::size_t> tools = tools_in_play(request);
  bool must_call = request.tool_choice.mode == Mode::required || request.tool_choice.mode == Mode::named;
  if (must_call && tools.empty()) {
    if (request.tool_choice.mode == Mode::named) {
      return invalid("tool_choice names \"" + request.tool_choice.name + "\", which is not among the tools", "tool_choice");
    }
    return invalid("tool_choice is \"required\", but the request offers no tools", "tool_choice");
  }
  for (std::size_t i : tools) {
    auto parameters = check_schema(request.tools[i].parameters, tool_param(i));
    if (!parameters) return std::move(parameters).error();
    inputs.tools.push_back({request.tools[i].name, request.tools[i].description, std::move(*parameters)});
  }
  inputs.tool_choice = tools.empty() ? COMMON_CHAT_TOOL_CHOICE_NONE
                       : must_call   ? COMMON_CHAT_TOOL_CHOICE_REQUIRED
                                     : COMMON_CHAT_TOOL_CHOICE_AUTO;

  bool gbnf = request.format.kind == Format::gbnf;
  if (gbnf) {
    if (!tools.empty()) return invalid("a grammar cannot be combined with tools: leave one of them out", "grammar");
    if (auto ok = check_gbnf(request.format.schema); !ok) return ok.error();
  } else if (request.format.kind != Format::text) {
    auto schema = check_schema(request.format.kind == Format::json_schema ? request.format.schema : "{}", "response_format");
    if (!schema) return std::move(schema).error();
    if (auto grammar = schema_grammar(*schema, "response_format"); !grammar) return std::move(grammar).error();
    inputs.json_schema = std::move(*schema);
  }

  common_chat_params params;
  try {
    params = apply_templates(impl_->templates.get(), inputs);
  } catch (const std::exception& e) {
    // The template or one of the tools' schemas: ask each schema alone, so that the message can name the field.
    for (std::size_t i = 0; i < tools.size(); ++i) {
      if (auto grammar = schema_grammar(inputs.tools[i].parameters, tool_param(tools[i])); !grammar) return std::move(grammar).error();
    }
    return invalid(std::string("the model's chat template refused the messages: ") + e.what(), "messages");
  }
  if (must_call && params.grammar.empty()) {
    return Error{ErrorCode::unsupported, "this model's chat template has no form for tool calls, so none can be required", "tool_choice"};
  }

  if (!may_think && leaves_open(params)) {
    // A template that always has the model think: the thought ends before it has begun, as other templates write it themselves.
    const std::string end = params.thinking_end_tags.front() + "\n\n";
    params.prompt += end;
    params.generation_prompt += end;
  }
  RenderedChat out;
  out.prompt = std::move(params.prompt);
  if (auto placed = place(out.prompt, images); !placed) return placed.error();
  out.images = std::move(images);
  out.stop = std::move(params.additional_stops);
  const llama_vocab* vocab = llama_model_get_vocab(impl_->model);
  Constraints& wanted = out.constraints;
  for (const std::string& text : params.preserved_tokens) {
    auto tokens = common_tokenize(vocab, text, false, true);
    if (tokens.size() == 1) wanted.preserved_tokens.push_back(tokens[0]);
  }
  if (gbnf) {
    wanted.grammar = request.format.schema;
    wanted.origin = Constraints::Origin::user;
  } else if (!params.grammar.empty()) {
    wanted.grammar = std::move(params.grammar);
    wanted.origin = Constraints::Origin::tool_calls;
    wanted.lazy = params.grammar_lazy;
  }
  wanted.generation_prompt = params.generation_prompt;
  wanted.thinking_start = params.thinking_start_tag;
  for (const std::string& tag : params.thinking_end_tags) {
    if (!tag.empty()) wanted.thinking_ends.push_back(tag);
  }
  if (may_think && !gbnf) wanted.thinking_budget = reasoning.budget;

  auto syntax = std::make_shared<OutputSyntax>();
  syntax->markers_known = wanted.lazy || tools.empty();
  for (const common_grammar_trigger& trigger : params.grammar_triggers) {
    GrammarTrigger mine{.kind = GrammarTrigger::Kind::word, .value = trigger.value, .token = trigger.token};
    switch (trigger.type) {
      case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: {
        // A word that is one special token triggers on the token: its text may never be printed.
        auto tokens = common_tokenize(vocab, trigger.value, false, true);
        if (tokens.size() == 1) {
          mine.kind = GrammarTrigger::Kind::token;
          mine.token = tokens[0];
          wanted.preserved_tokens.push_back(tokens[0]);
        }
        if (!trigger.value.empty()) {
          syntax->markers.push_back(trigger.value);
          syntax->call_markers.push_back(trigger.value);
        }
        break;
      }
      case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: mine.kind = GrammarTrigger::Kind::token; break;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: mine.kind = GrammarTrigger::Kind::pattern; break;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: mine.kind = GrammarTrigger::Kind::pattern_full; break;
    }
    if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD) syntax->markers_known = false;
    wanted.triggers.push_back(std::move(mine));
  }
  if (auto ok = check(impl_->model, wanted, gbnf ? "grammar" : tools.empty() ? "response_format" : "tools"); !ok) return ok.error();

  bool thinks = params.supports_thinking || !params.thinking_end_tags.empty();
  if (must_call && !(thinks && may_think)) {
    // The grammar lets text go before the call, and a model that does not know these tools may never come to it: its answer is begun for it.
    const std::string mark = call_mark(impl_->templates.get(), inputs);
    Constraints begun = wanted;
    begun.generation_prompt += mark;
    if (!mark.empty() && check_constraints(impl_->model, begun)) {
      wanted = std::move(begun);
      params.generation_prompt += mark;
      out.prompt += mark;
    }
  }

  if (params.parser.empty()) return out;
  try {
    syntax->params = common_chat_parser_params(params);
    syntax->params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    syntax->params.parse_tool_calls = !tools.empty();
    syntax->params.parser.load(params.parser);
    // Most dialects without tools and thoughts are plain text; a few wrap even that, and then the parser does not give it back unchanged.
    const std::string probe = "Plain text.";
    if (tools.empty() && !thinks && common_chat_parse(probe, false, syntax->params).content == probe) return out;
  } catch (const std::exception& e) {
    if (syntax->params.parser.empty()) return internal_error(std::string("this chat template's parser cannot be used: ") + e.what());
  }
  if (!params.thinking_start_tag.empty()) syntax->markers.push_back(params.thinking_start_tag);
  for (const std::string& tag : params.thinking_end_tags) {
    if (tag.empty()) continue;
    syntax->markers.push_back(tag);
    syntax->thought_ends.push_back(tag);
  }
  if (tools.empty() && !thinks) syntax->markers_known = false;
  out.syntax = std::move(syntax);
  return out;
}

Result<Constraints> format_constraints(const llama_model* model, const chat::OutputFormat& format) {
  using Format = chat::OutputFormat::Kind;
  Constraints wanted;
  if (format.kind == Format::text) return wanted;
  if (format.kind == Format::gbnf) {
    if (auto ok = check_gbnf(format.schema); !ok) return ok.error();
    wanted.grammar = format.schema;
    if (auto ok = check(model, wanted, "grammar"); !ok) return ok.error();
    return wanted;
  }
  auto schema = check_schema(format.kind == Format::json_schema ? format.schema : "{}", "response_format");
  if (!schema) return std::move(schema).error();
  auto grammar = schema_grammar(*schema, "response_format");
  if (!grammar) return std::move(grammar).error();
  wanted.grammar = std::move(*grammar);
  wanted.origin = Constraints::Origin::output_format;
  if (auto ok = check(model, wanted, "response_format"); !ok) return ok.error();
  return wanted;
}

OutputParser::OutputParser(std::shared_ptr<const OutputSyntax> syntax, int choice) : syntax_(std::move(syntax)), choice_(choice) {}
OutputParser::~OutputParser() = default;

chat::Events OutputParser::feed(std::string_view text) {
  chat::Events out;
  if (text.empty()) return out;
  raw_ += text;
  if (pass_through(out)) return out;
  // Parsing starts over each time. Waiting for a 32nd more keeps the sum linear in the length of the answer; short answers do not wait.
  if (raw_.size() > 1024 && (raw_.size() - parsed_) * 32 < raw_.size()) return out;
  parse(true, out);
  parsed_ = raw_.size();
  return out;
}

// Inside a text or a thought, everything up to the next possible marker is more of it. False: parse.
bool OutputParser::pass_through(chat::Events& out) {
  if (!syntax_->markers_known || inside_ == Inside::unknown || !calls_.empty()) return false;
  std::string_view fresh = std::string_view(raw_).substr(parsed_);
  std::size_t held = 0;
  for (const std::string& marker : syntax_->markers) {
    if (fresh.find(marker) != std::string_view::npos) {
      inside_ = Inside::unknown;
      return false;
    }
    held = std::max(held, partial_match(fresh, marker));
  }
  std::string_view more = fresh.substr(0, fresh.size() - held);
  inside_ == Inside::text ? emit_text(more, out) : emit_reasoning(more, out);
  parsed_ += more.size();
  return true;
}

void OutputParser::parse(bool partial, chat::Events& out) {
  common_chat_msg message;
  try {
    message = common_chat_parse(raw_, partial, syntax_->params);
  } catch (const std::exception&) {
    if (partial) return;  // not enough yet; the end of the answer decides
    throw;
  }
  // A longer parse may say that white space already sent belongs to the markup: only what extends the old text is news.
  std::string sent = reasoning_;
  if (message.reasoning_content.starts_with(sent)) emit_reasoning(std::string_view(message.reasoning_content).substr(sent.size()), out);
  sent = text_ + space_;
  if (message.content.starts_with(sent)) emit_text(std::string_view(message.content).substr(sent.size()), out);

  for (std::size_t i = 0; i < message.tool_calls.size(); ++i) {
    if (calls_.size() <= i) calls_.emplace_back();
    Call& call = calls_[i];
    if (call.begun && !message.tool_calls[i].arguments.starts_with(std::string_view(call.arguments).substr(0, call.sent))) continue;
    if (!call.begun) {
      call.id = message.tool_calls[i].id;
      call.name = message.tool_calls[i].name;
    }
    call.arguments = message.tool_calls[i].arguments;
  }
  emit_calls(false, out);
  // Text may pass unparsed from here on only if the parser holds nothing back.
  bool pending = !calls_.empty() || std::any_of(syntax_->markers.begin(), syntax_->markers.end(),
                                                [&](const std::string& marker) { return partial_match(raw_, marker) > 0; });
  std::string said = text_ + space_;
  if (!pending && !said.empty() && raw_.ends_with(said)) inside_ = Inside::text;
  else if (!pending && said.empty() && !reasoning_.empty() && raw_.ends_with(reasoning_)) inside_ = Inside::reasoning;
  else inside_ = Inside::unknown;
}

// The end of an answer that looked like the beginning of a call and was none: llama.cpp's parser forgives and forgets it.
std::string_view OutputParser::unsaid() const {
  if (!calls_.empty()) return {};
  std::string_view rest = raw_;
  std::string said = text_ + space_;
  if (!said.empty()) {
    std::size_t at = rest.rfind(said);
    if (at == std::string_view::npos) return {};
    rest.remove_prefix(at + said.size());
  } else if (!reasoning_.empty()) {
    std::size_t end = 0;
    for (const std::string& tag : syntax_->thought_ends) {
      if (std::size_t at = rest.rfind(tag); at != std::string_view::npos) end = std::max(end, at + tag.size());
    }
    if (end == 0) return {};
    rest.remove_prefix(end);
  }
  std::string_view start = rest.substr(std::min(rest.size(), rest.find_first_not_of(" \t\r\n")));
  if (start.empty()) return {};
  for (const std::string& marker : syntax_->call_markers) {
    if (start.starts_with(marker) || marker.starts_with(start)) return rest;
  }
  return {};
}

void OutputParser::emit_text(std::string_view text, chat::Events& out) {
  std::string whole = space_ + std::string(text);
  std::size_t keep = trailing_space(whole);
  space_ = whole.substr(whole.size() - keep);
  whole.resize(whole.size() - keep);
  if (whole.empty()) return;
  text_ += whole;
  out.push_back(chat::TextDelta{choice_, std::move(whole)});
}

void OutputParser::emit_reasoning(std::string_view text, chat::Events& out) {
  if (text.empty()) return;
  reasoning_ += text;
  out.push_back(chat::ReasoningDelta{choice_, std::string(text)});
}

// A call begins once its name can no longer grow: when arguments or another call follow.
void OutputParser::emit_calls(bool complete, chat::Events& out) {
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    Call& call = calls_[i];
    int index = static_cast<int>(i);
    bool last = complete || i + 1 < calls_.size();
    if (!call.begun && !call.name.empty() && (last || !call.arguments.empty())) {
      call.begun = true;
      if (call.id.empty()) call.id = random_id("call_");
      out.push_back(chat::ToolCallBegin{choice_, index, call.id, call.name});
    }
    if (!call.begun || call.ended) continue;
    if (last && call.arguments.empty()) call.arguments = "{}";
    if (call.arguments.size() > call.sent) {
      out.push_back(chat::ToolCallDelta{choice_, index, call.arguments.substr(call.sent)});
      call.sent = call.arguments.size();
    }
    if (last) {
      call.ended = true;
      out.push_back(chat::ToolCallEnd{choice_, index});
    }
  }
}

chat::Events OutputParser::finish(chat::FinishReason reason, std::string stop_sequence) {
  chat::Events out;
  try {
    if (!raw_.empty()) parse(reason != chat::FinishReason::stop, out);
    emit_text(unsaid(), out);
  } catch (const std::exception&) {
    // Not in the model's own format after all. Nothing is lost: what has not been said yet goes out as it was written.
    if (std::none_of(calls_.begin(), calls_.end(), [](const Call& call) { return call.begun; })) {
      calls_.clear();
      std::string_view rest = raw_;
      std::string said = text_ + space_;
      if (rest.starts_with(said)) rest.remove_prefix(said.size());
      else if (inside_ != Inside::unknown) rest.remove_prefix(parsed_);
      emit_text(rest, out);
    }
  }
  emit_calls(true, out);
  bool begun = std::any_of(calls_.begin(), calls_.end(), [](const Call& call) { return call.begun; });
  if (!begun && !space_.empty()) {
    text_ += space_;
    out.push_back(chat::TextDelta{choice_, std::move(space_)});
    space_.clear();
  }
  if (reason == chat::FinishReason::stop && begun) reason = chat::FinishReason::tool_calls;
  out.push_back(chat::Finished{choice_, reason, reason == chat::FinishReason::stop ? std::move(stop_sequence) : std::string()});
  return out;
}

}  // namespace hearth::engine
