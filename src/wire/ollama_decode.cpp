// Requests of the Ollama API → chat vocabulary.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/base64.h"
#include "base/json.h"
#include "wire/ollama.h"
#include "wire/request_parts.h"

namespace hearth::wire::ollama {
namespace {

using std::chrono::milliseconds;

// ---- keep_alive -------------------------------------------------------------------------------------------------------------------

constexpr milliseconds for_ever{-1};

milliseconds to_milliseconds(double seconds) {
  constexpr double longest = 1e9;  // over thirty years
  if (seconds < 0 || seconds > longest) return for_ever;
  return milliseconds(static_cast<std::int64_t>(std::ceil(seconds * 1000)));
}

// Seconds of a duration as Go writes it: "5m", "1h30m", "-1s"; a bare number means seconds.
std::optional<double> parse_duration(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty()) return {};
  double seconds = 0;
  for (bool first = true; !text.empty(); first = false) {
    double number = 0;
    if (text[0] != '.' && (text[0] < '0' || text[0] > '9')) return {};
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (ec != std::errc()) return {};
    const bool bare = first && end == text.data() + text.size();
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const std::size_t length = std::min(text.find_first_of("0123456789."), text.size());
    const std::string_view unit = text.substr(0, length);
    text.remove_prefix(length);
    if (bare || unit == "s") seconds += number;
    else if (unit == "h") seconds += number * 3600;
    else if (unit == "m") seconds += number * 60;
    else if (unit == "ms") seconds += number / 1e3;
    else if (unit == "us" || unit == "\xC2\xB5s") seconds += number / 1e6;
    else if (unit == "ns") seconds += number / 1e9;
    else return {};
  }
  return negative ? -seconds : seconds;
}

std::optional<milliseconds> read_keep_alive(const Fields& request) {
  const json::value* value = request.find("keep_alive");
  if (value == nullptr) return {};
  if (value->is_number()) return to_milliseconds(value->to_number<double>());
  const auto seconds = value->is_string() ? parse_duration(to_std(value->get_string())) : std::optional<double>();
  if (!seconds) {
    request.wrong("keep_alive", R"(must be a duration such as "5m", or a number of seconds (-1: for ever), not )" + describe(*value));
    return {};
  }
  return to_milliseconds(*seconds);
}

// ---- what all requests share ------------------------------------------------------------------------------------------------------

std::optional<int> read_options(const Fields& request, chat::Request& out, Problem& problem) {
  const json::object* options = request.object("options");
  if (options == nullptr) return {};
  const Fields fields(*options, "options", problem);
  auto& sampling = out.sampling;
  sampling.temperature = fields.real("temperature", 0, 2);
  sampling.top_p = fields.real("top_p", 0, 1, true);
  sampling.min_p = fields.real("min_p", 0, 1);
  sampling.top_k = fields.integer("top_k", -1, max_int);
  sampling.presence_penalty = fields.real("presence_penalty", -2, 2);
  sampling.frequency_penalty = fields.real("frequency_penalty", -2, 2);
  sampling.repeat_penalty = fields.real("repeat_penalty", 0, 100, true);
  sampling.seed = read_seed(fields);
  sampling.stop = read_stop(fields, problem);
  // -1 is "no limit", -2 "until the context is full": here both end with the context, as does 0 there.
  if (const auto most = fields.integer("num_predict", -2, max_int); most && *most > 0) out.max_tokens = most;
  const auto context = fields.integer("num_ctx", 0, max_int);
  return context && *context > 0 ? context : std::nullopt;
}

void read_format(const Fields& request, chat::OutputFormat& out) {
  const json::value* format = request.find("format");
  if (format == nullptr || (format->is_string() && format->get_string().empty())) return;
  if (format->is_string() && format->get_string() == "json") {
    out.kind = chat::OutputFormat::Kind::json_object;
  } else if (format->is_object()) {
    out.kind = chat::OutputFormat::Kind::json_schema;
    append_json(out.schema, *format);
  } else {
    request.wrong("format", R"(must be "json" or a JSON Schema object, not )" + describe(*format));
  }
}

void read_think(const Fields& request, chat::Reasoning& out) {
  const json::value* think = request.find("think");
  if (think == nullptr) return;
  const std::string effort = think->is_string() ? to_std(think->get_string()) : std::string();
  if (think->is_bool()) {
    out.enabled = think->get_bool();
  } else if (effort == "low" || effort == "medium" || effort == "high") {
    out.enabled = true;
    out.effort = effort;
  } else {
    request.wrong("think", R"(must be true, false, "low", "medium" or "high", not )" + describe(*think));
  }
}

void refuse_logprobs(const Fields& request) {
  if (request.boolean("logprobs").value_or(false)) {
    request.wrong("logprobs", "cannot be true in this API; /v1/chat/completions has log-probabilities", ErrorCode::unsupported);
  }
}

void read_common(const Fields& request, GenerateRequest& out, Problem& problem) {
  out.request.model = request.text("model");
  out.context = read_options(request, out.request, problem);
  read_format(request, out.request.format);
  read_think(request, out.request.reasoning);
  refuse_logprobs(request);
  out.request.stream = request.boolean("stream").value_or(true);
  out.request.start_usage = true;  // tells when the prompt was computed
  out.request.keep_loaded = read_keep_alive(request);
  (void)request.boolean("truncate");
}

void check_load(const Fields& request, bool load, const std::string& model) {
  if (!load || !model.empty()) return;
  request.need("model", "name the model to load");
  request.wrong("model", "must not be empty; name the model to load");
}

// The kind of an image by its first bytes: this API does not say it.
std::string_view media_type(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG")) return "image/png";
  if (bytes.starts_with("\xFF\xD8\xFF")) return "image/jpeg";
  if (bytes.starts_with("GIF8")) return "image/gif";
  if (bytes.starts_with("RIFF") && bytes.substr(std::min<std::size_t>(bytes.size(), 8)).starts_with("WEBP")) return "image/webp";
  if (bytes.starts_with("BM")) return "image/bmp";
  return {};
}

void read_images(const Fields& holder, std::vector<chat::ContentPart>& out, Problem& problem) {
  const json::array* images = holder.array("images");
  for (std::size_t i = 0; images != nullptr && i < images->size() && !problem; ++i) {
    const std::string at = element(holder.path("images"), i);
    const json::value& value = (*images)[i];
    const auto bytes = value.is_string() ? base64_decode(to_std(value.get_string())) : std::nullopt;
    const auto type = bytes ? media_type(*bytes) : std::string_view();
    if (type.empty()) {
      problem.set(at, "must be a PNG, JPEG, GIF, WebP or BMP file in base64 (no data: URL), not " + describe(value));
      return;
    }
    out.push_back({.kind = chat::ContentPart::Kind::image, .media_type = std::string(type), .data = to_std(value.get_string())});
  }
}

// ---- /api/chat --------------------------------------------------------------------------------------------------------------------

class MessageReader {
 public:
  explicit MessageReader(Problem& problem) : problem_(problem) {}

  chat::Message read(const json::value& value, const std::string& at) {
    chat::Message out;
    if (!value.is_object()) {
      problem_.set(at, "must be an object with role and content, not " + describe(value));
      return out;
    }
    const Fields message(value.get_object(), at, problem_);
    constexpr const char* roles = "it must be system, user, assistant or tool";
    message.need("role", roles);
    const std::string role = message.text("role");
    if (problem_) return out;
    const bool user = role == "user", assistant = role == "assistant", tool = role == "tool";
    if (!user && !assistant && !tool && role != "system") message.wrong("role", "is " + quoted(role) + "; " + roles);
    out.role = user ? chat::Role::user : assistant ? chat::Role::assistant : tool ? chat::Role::tool : chat::Role::system;
    const json::array* images = message.array("images");
    const bool pictured = images != nullptr && !images->empty();
    if (pictured && !user && !tool) message.wrong("images", "belong to messages with the role user or tool");
    read_images(message, out.content, problem_);
    if (!assistant && !pictured) message.need("content", "give a string");
    if (std::string text = message.text("content"); !text.empty()) out.content.push_back({.text = std::move(text)});
    if (assistant) {
      out.reasoning = message.text("thinking");
      read_calls(message, out);
    }
    if (tool) read_result(message, out);
    return out;
  }

 private:
  // Nine characters, letters and digits: the templates that look at ids want them so.
  std::string next_id() {
    char id[16];
    std::snprintf(id, sizeof id, "call%05d", made_++);
    return id;
  }

  void read_calls(const Fields& message, chat::Message& out) {
    const json::array* calls = message.array("tool_calls");
    if (calls == nullptr || calls->empty()) return;
    open_.clear();
    for (std::size_t i = 0; i < calls->size() && !problem_; ++i) {
      const std::string at = element(message.path("tool_calls"), i);
      if (!(*calls)[i].is_object()) {
        problem_.set(at, "must be an object, not " + describe((*calls)[i]));
        return;
      }
      const Fields call((*calls)[i].get_object(), at, problem_);
      call.need("function", "give an object with name and arguments");
      const json::object* function = call.object("function");
      if (function == nullptr) return;
      const Fields fields(*function, call.path("function"), problem_);
      fields.need("name", "give the tool's name");
      chat::ToolCall known{call.text("id"), fields.text("name"), "{}"};
      if (known.name.empty()) fields.wrong("name", "must not be empty");
      if (known.id.empty()) known.id = next_id();
      if (fields.object("arguments") != nullptr) {
        known.arguments.clear();
        append_json(known.arguments, *fields.find("arguments"));
      }
      open_.push_back(known);
      out.tool_calls.push_back(std::move(known));
    }
  }

  void read_result(const Fields& message, chat::Message& out) {
    const std::string id = message.text("tool_call_id");
    out.name = message.text(message.find("tool_name") != nullptr ? "tool_name" : "name");
    const auto call = std::find_if(open_.begin(), open_.end(), [&](const chat::ToolCall& waiting) {
      return !id.empty() ? waiting.id == id : out.name.empty() || waiting.name == out.name;
    });
    if (call == open_.end()) {
      std::string waiting;
      for (const auto& one : open_) waiting += (waiting.empty() ? "" : ", ") + one.name;
      message.wrong(!id.empty()         ? "tool_call_id"
                    : !out.name.empty() ? "tool_name"
                                        : "role",
                    "belongs to no call; a result follows the assistant's message with its call, and those that wait for one are: " +
                        (waiting.empty() ? "none" : waiting));
      return;
    }
    out.tool_call_id = call->id;
    out.name = call->name;
    open_.erase(call);
  }

  Problem& problem_;
  std::vector<chat::ToolCall> open_;  // calls of the last turn without a result
  int made_ = 0;
};

std::vector<chat::ToolSpec> tools_of(const Fields& request, Problem& problem) {
  std::vector<chat::ToolSpec> out;
  const json::array* tools = request.array("tools");
  for (std::size_t i = 0; tools != nullptr && i < tools->size() && !problem; ++i) {
    const std::string at = element("tools", i);
    if (!(*tools)[i].is_object()) {
      problem.set(at, "must be an object, not " + describe((*tools)[i]));
      break;
    }
    const Fields tool((*tools)[i].get_object(), at, problem);
    if (const auto* type = tool.string("type"); type != nullptr && *type != "function") {
      tool.wrong("type", "is " + quoted(*type) + R"(; only "function" tools can be used here)", ErrorCode::unsupported);
    }
    tool.need("function", "give an object with name, description and parameters");
    if (const json::object* function = tool.object("function")) {
      out.push_back(function_tool(Fields(*function, tool.path("function"), problem)));
    }
  }
  return out;
}

GenerateRequest chat_request(const Fields& fields, Problem& problem) {
  GenerateRequest out;
  read_common(fields, out, problem);
  const json::array* messages = fields.array("messages");
  MessageReader reader(problem);
  for (std::size_t i = 0; messages != nullptr && i < messages->size() && !problem; ++i) {
    out.request.messages.push_back(reader.read((*messages)[i], element("messages", i)));
  }
  out.request.tools = tools_of(fields, problem);
  out.load = out.request.messages.empty();
  check_load(fields, out.load, out.request.model);
  return out;
}

// ---- /api/generate ----------------------------------------------------------------------------------------------------------------

GenerateRequest generate_request(const Fields& fields, Problem& problem) {
  GenerateRequest out;
  read_common(fields, out, problem);
  std::string prompt = fields.text("prompt");
  const std::string system = fields.text("system");
  const bool raw = fields.boolean("raw").value_or(false);
  if (!fields.text("suffix").empty()) {
    fields.wrong("suffix", "is not supported: nothing is inserted between two texts here; leave it out", ErrorCode::unsupported);
  }
  if (!fields.text("template").empty()) {
    fields.wrong("template", "cannot be replaced: the model's own is used; give a finished prompt with raw: true", ErrorCode::unsupported);
  }
  if (const auto* context = fields.array("context"); context != nullptr && !context->empty()) {
    fields.wrong("context", "is not kept here; send the conversation to /api/chat", ErrorCode::unsupported);
  }
  chat::Message user;
  read_images(fields, user.content, problem);
  out.load = prompt.empty() && user.content.empty();
  check_load(fields, out.load, out.request.model);
  if (raw) {
    if (!system.empty()) fields.wrong("system", "cannot be combined with raw: the prompt is all the model gets");
    if (!user.content.empty()) fields.wrong("images", "cannot be combined with raw: the prompt is all the model gets");
    if (!out.load) out.request.prompts.push_back({std::move(prompt), {}});
  } else if (!out.load) {
    if (!system.empty()) out.request.messages.push_back({.role = chat::Role::system, .content = {{.text = system}}});
    if (!prompt.empty()) user.content.push_back({.text = std::move(prompt)});
    out.request.messages.push_back(std::move(user));
  }
  return out;
}

// ---- embeddings -------------------------------------------------------------------------------------------------------------------

void read_embed(const Fields& fields, EmbedRequest& out, Problem& problem) {
  out.request.model = fields.text("model");
  chat::Request ignored;  // embeddings are not sampled; the options are checked all the same
  out.context = read_options(fields, ignored, problem);
  out.keep_loaded = read_keep_alive(fields);
  (void)fields.boolean("truncate");
  out.request.dimensions = fields.integer("dimensions", 1, max_int);
}

EmbedRequest embed_request(const Fields& fields, Problem& problem) {
  constexpr std::size_t most = 2048;
  EmbedRequest out;
  read_embed(fields, out, problem);
  const json::value* input = fields.find("input");
  if (input != nullptr && input->is_string()) {
    if (!input->get_string().empty()) out.request.inputs.push_back({to_std(input->get_string()), {}});
  } else if (input != nullptr && input->is_array()) {
    const json::array& texts = input->get_array();
    if (texts.size() > most) {
      fields.wrong("input", "has " + std::to_string(texts.size()) + " entries; at most " + std::to_string(most) + " are allowed");
    }
    for (std::size_t i = 0; i < texts.size() && !problem; ++i) {
      if (!texts[i].is_string()) problem.set(element("input", i), "must be a string, not " + describe(texts[i]));
      else if (texts[i].get_string().empty()) problem.set(element("input", i), "must not be empty");
      else out.request.inputs.push_back({to_std(texts[i].get_string()), {}});
    }
  } else if (input != nullptr) {
    fields.wrong("input", "must be a string or a list of strings, not " + describe(*input));
  }
  out.load = out.request.inputs.empty();
  check_load(fields, out.load, out.request.model);
  return out;
}

EmbedRequest embeddings_request(const Fields& fields, Problem& problem) {
  EmbedRequest out;
  read_embed(fields, out, problem);
  if (std::string prompt = fields.text("prompt"); !prompt.empty()) out.request.inputs.push_back({std::move(prompt), {}});
  out.load = out.request.inputs.empty();
  check_load(fields, out.load, out.request.model);
  return out;
}

}  // namespace

Result<GenerateRequest> decode_chat(std::string_view body) { return decode_document(body, chat_request); }
Result<GenerateRequest> decode_generate(std::string_view body) { return decode_document(body, generate_request); }
Result<EmbedRequest> decode_embed(std::string_view body) { return decode_document(body, embed_request); }
Result<EmbedRequest> decode_embeddings(std::string_view body) { return decode_document(body, embeddings_request); }

Result<std::string> decode_show(std::string_view body) {
  return decode_document(body, [](const Fields& fields, Problem&) {
    const char* key = fields.find("model") == nullptr && fields.find("name") != nullptr ? "name" : "model";
    fields.need(key, "name the model to show");
    return fields.text(key);
  });
}

}  // namespace hearth::wire::ollama
