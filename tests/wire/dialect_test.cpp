// Runs tests/cases/dialects/*.json. Each file is a list of cases: name; dialect; text; optional reason (default stop) and tools (default: those below); and
// `expect`, what the answer is made of in order: a string is text, an object a call with its `arguments` as JSON, or `written`, their text where it is no
// JSON. `verbatim`, the arguments' texts. `note` is part of the note; without it there must be none. Every case runs whole, by bytes, by fours and
// in random pieces.
#include "wire/dialect.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "base/json.h"
#include "base/utf8.h"
#include "wire/show.h"

namespace hearth::wire {
namespace {

constexpr Dialect all_dialects[] = {Dialect::hermes,   Dialect::qwen_xml,    Dialect::llama3, Dialect::mistral,
                                    Dialect::deepseek, Dialect::functionary, Dialect::fenced, Dialect::automatic};

std::vector<chat::ToolSpec> tools() {
  return {
      {.name = "get_weather",
       .description = "The weather of the coming days",
       .parameters = R"({"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]})"},
      {.name = "write_file",
       .description = "",
       .parameters = R"({"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"}}})"},
      {.name = "bash", .description = "Runs a command", .parameters = R"({"type":"object","properties":{"command":{"type":"string"}}})"},
      {.name = "now", .description = "The time", .parameters = "{}"},
      {.name = "options",
       .description = "Many types",
       .parameters = R"({"type":"object","properties":{"flag":{"type":"boolean"},"ratio":{"type":"number"},"list":{"type":"array"},)"
                     R"("map":{"type":"object"},"text":{"type":"string"},"maybe":{"type":["string","null"]},)"
                     R"("either":{"anyOf":[{"type":"string"},{"type":"integer"}]},"free":{},"level":{"enum":[1,2,3]},)"
                     R"("point":{"$ref":"#/$defs/point"}},"$defs":{"point":{"type":"object"}}})"},
  };
}

// What an answer came to, in order.
struct Piece {
  bool call = false;
  std::string text;  // or the arguments
  std::string name;
  friend bool operator==(const Piece&, const Piece&) = default;
};
struct Answer {
  std::vector<Piece> pieces;
  chat::FinishReason reason = chat::FinishReason::stop;
  std::string note;
  friend bool operator==(const Answer&, const Answer&) = default;
};
void PrintTo(const Answer& answer, std::ostream* out) {
  for (const auto& piece : answer.pieces) *out << "\n  " << (piece.call ? "call " + piece.name + " " : "text ") << piece.text;
  *out << "\n  reason " << static_cast<int>(answer.reason) << ", note: " << answer.note << "\n";
}

// Joins the events, and checks their order and that each carries whole characters.
Answer joined(const chat::Events& events, std::string note) {
  Answer answer{.note = std::move(note)};
  bool open = false, finished = false;
  int calls = 0;
  std::set<std::string> ids;
  for (const auto& event : events) {
    EXPECT_FALSE(finished);
    if (const auto* text = std::get_if<chat::TextDelta>(&event)) {
      EXPECT_FALSE(open);
      EXPECT_EQ(text->choice, 2);
      EXPECT_FALSE(text->text.empty());
      EXPECT_TRUE(is_valid_utf8(text->text)) << text->text;
      if (answer.pieces.empty() || answer.pieces.back().call) answer.pieces.emplace_back();
      answer.pieces.back().text += text->text;
    } else if (const auto* begin = std::get_if<chat::ToolCallBegin>(&event)) {
      EXPECT_FALSE(std::exchange(open, true));
      EXPECT_EQ(begin->index, calls);
      EXPECT_EQ(begin->choice, 2);
      EXPECT_TRUE(begin->id.starts_with("call_") && ids.insert(begin->id).second) << begin->id;
      answer.pieces.push_back({.call = true, .text = {}, .name = begin->name});
    } else if (const auto* delta = std::get_if<chat::ToolCallDelta>(&event)) {
      EXPECT_TRUE(open && delta->index == calls);
      EXPECT_TRUE(is_valid_utf8(delta->arguments)) << delta->arguments;
      answer.pieces.back().text += delta->arguments;
    } else if (const auto* end = std::get_if<chat::ToolCallEnd>(&event)) {
      EXPECT_TRUE(std::exchange(open, false) && end->index == calls++);
    } else if (const auto* done = std::get_if<chat::Finished>(&event)) {
      finished = true;
      answer.reason = done->reason;
    } else {
      ADD_FAILURE() << "an event that no dialect makes";
    }
  }
  EXPECT_TRUE(finished);
  return answer;
}

// `next` gives the size of each piece.
template <class Next>
Answer parse(Dialect dialect, std::string_view text, chat::FinishReason reason, std::vector<chat::ToolSpec> specs, Next next) {
  DialectParser parser(dialect, std::move(specs), 2);
  chat::Events events;
  while (!text.empty()) {
    const std::size_t size = std::min<std::size_t>(next(), text.size());
    parser.feed(text.substr(0, size), events);
    text.remove_prefix(size);
  }
  parser.finish(reason, events);
  return joined(events, parser.note());
}
Answer parse(Dialect dialect, std::string_view text) {
  return parse(dialect, text, chat::FinishReason::stop, tools(), [&] { return text.size(); });
}

void check_expected(const json::object& test, const Answer& answer) {
  const auto& expected = test.at("expect").as_array();
  ASSERT_EQ(answer.pieces.size(), expected.size()) << testing::PrintToString(answer);
  bool calls = false;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& piece = answer.pieces[i];
    if (expected[i].is_string()) {
      EXPECT_FALSE(piece.call);
      EXPECT_EQ(piece.text, std::string_view(expected[i].get_string()));
      continue;
    }
    calls = true;
    const auto& call = expected[i].as_object();
    EXPECT_TRUE(piece.call);
    EXPECT_EQ(piece.name, std::string_view(call.at("call").as_string()));
    if (const auto* written = call.if_contains("written")) {
      EXPECT_EQ(piece.text, std::string_view(written->as_string()));
    } else {
      const auto arguments = parse_json(piece.text);
      if (!arguments) ADD_FAILURE() << arguments.error().message << ": " << piece.text;
      else EXPECT_EQ(*arguments, call.at("arguments")) << piece.text;
    }
  }
  if (const auto* verbatim = test.if_contains("verbatim")) {
    std::size_t i = 0;
    for (const auto& piece : answer.pieces) {
      if (piece.call) EXPECT_EQ(piece.text, std::string_view(verbatim->as_array().at(i++).as_string()));
    }
  }
  const bool cut = test.contains("reason");
  EXPECT_EQ(answer.reason, cut ? chat::FinishReason::length : calls ? chat::FinishReason::tool_calls : chat::FinishReason::stop);
  const auto* note = test.if_contains("note");
  if (note == nullptr) EXPECT_EQ(answer.note, "");
  else EXPECT_NE(answer.note.find(std::string_view(note->as_string())), std::string::npos) << answer.note;
  EXPECT_EQ(answer.note.find('\n'), std::string::npos);
}

TEST(DialectCases, All) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::size_t ran = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HEARTH_SOURCE_DIR "/tests/cases/dialects")) {
    std::ifstream file(entry.path());
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto cases = parse_json(text);
    ASSERT_TRUE(cases) << entry.path() << ": " << cases.error().message;
    for (const auto& value : cases->as_array()) {
      const auto& test = value.as_object();
      SCOPED_TRACE(entry.path().filename().string() + ": " + std::string(test.at("name").as_string()));
      const auto dialect = dialect_from_name(test.at("dialect").as_string());
      ASSERT_TRUE(dialect);
      const auto specs = test.contains("tools") ? std::vector<chat::ToolSpec>() : tools();
      const auto reason = test.contains("reason") ? chat::FinishReason::length : chat::FinishReason::stop;
      const std::string_view answer = test.at("text").as_string();
      const auto whole = parse(*dialect, answer, reason, specs, [&] { return answer.size(); });
      check_expected(test, whole);
      EXPECT_EQ(parse(*dialect, answer, reason, specs, [] { return 1; }), whole);
      EXPECT_EQ(parse(*dialect, answer, reason, specs, [] { return 4; }), whole);
      for (int i = 0; i < 20; ++i) EXPECT_EQ(parse(*dialect, answer, reason, specs, [&] { return 1 + random() % 30; }), whole);
      ++ran;
    }
  }
  EXPECT_GT(ran, 110U) << "the cases were not found";
}

// How early things go out.

std::string fed(DialectParser& parser, std::string_view text) {
  chat::Events events;
  parser.feed(text, events);
  return show(events);
}

TEST(DialectStreaming, TextGoesOutAtOnce) {
  for (const auto dialect : all_dialects) {
    DialectParser parser(dialect, tools(), 0);
    EXPECT_EQ(fed(parser, "Hello, world"), "0 text Hello, world\n") << name(dialect);
    EXPECT_EQ(fed(parser, "; 1"), "0 text ; 1\n") << name(dialect);
  }
}

TEST(DialectStreaming, AMarkersBeginningWaitsAndComesBack) {
  DialectParser parser(Dialect::hermes, tools(), 0);
  EXPECT_EQ(fed(parser, "a <tool_"), "0 text a\n");
  EXPECT_EQ(fed(parser, "box>"), "0 text  <tool_box>\n");
}

TEST(DialectStreaming, ACallIsAnnouncedWhenItsNameIsWholeAndItsArgumentsStream) {
  DialectParser parser(Dialect::hermes, tools(), 0);
  EXPECT_EQ(fed(parser, "<tool_call>{\"name\": \"write_file\", \"arguments\": "), "");
  const std::string begin = fed(parser, "{\"path\": \"a");
  EXPECT_NE(begin.find("write_file\n0 call 0 delta {\"path\": \"a\n"), std::string::npos) << begin;
  EXPECT_EQ(fed(parser, "b\xE2\x82"), "0 call 0 delta b\n");
  EXPECT_EQ(fed(parser, "\xAC\"}"), "0 call 0 delta \xE2\x82\xAC\"}\n0 call 0 end\n");
}

TEST(DialectStreaming, AQwenTextStreamsBeforeItEnds) {
  DialectParser parser(Dialect::qwen_xml, tools(), 0);
  EXPECT_EQ(fed(parser, "<tool_call><function=write_file>"), "");
  EXPECT_NE(fed(parser, "<parameter=content>\nline 1\n").find("delta {\"content\": \"line 1\n"), std::string::npos);
  EXPECT_EQ(fed(parser, "line \"2\""), "0 call 0 delta \\nline \\\"2\\\"\n");
}

TEST(DialectStreaming, OrdinaryJsonInAFenceIsHeldNoLongerThanItsFirstKey) {
  DialectParser parser(Dialect::fenced, tools(), 0);
  EXPECT_EQ(fed(parser, "```json\n{\"vers"), "");
  EXPECT_EQ(fed(parser, "ion\": "), "0 text ```json\n{\"version\":\n");
}

// Bounds.

TEST(DialectBounds, ASeemingCallWithoutEndGoesOutAsText) {
  const std::string_view starts[] = {"<tool_call>{\"arguments\": {\"a\": \"", "<tool_call>{\"x\": \"", "<tool_call>{\"arguments\": \"{",
                                     "<tool_call>   ", "<tool_call>{\"name\": \""};
  const std::string filler(100'000, ' ');
  for (const auto start : starts) {
    DialectParser parser(Dialect::hermes, tools(), 0);
    chat::Events events;
    parser.feed(start, events);
    std::size_t in = start.size(), most = 0;
    const auto size_of = [&events] {
      std::size_t size = 0;
      for (const auto& event : events) {
        if (const auto* text = std::get_if<chat::TextDelta>(&event)) size += text->text.size();
      }
      return size;
    };
    for (int i = 0; i < 40; ++i) {
      parser.feed(filler, events);
      in += filler.size();
      most = std::max(most, in - size_of());
    }
    EXPECT_LT(most, 1'200'000U) << start;
    EXPECT_NE(parser.note(), "") << start;
  }
}

TEST(DialectBounds, WhetherATextIsTooLongDoesNotDependOnItsPieces) {
  for (const std::size_t size : {(1U << 20) - 100, (1U << 20) + 100}) {
    for (const std::string& text :
         {"<tool_call>{\"arguments\": {\"a\": \"" + std::string(size, 'x') + "\"}, \"name\": \"bash\"}</tool_call>",
          "<tool_call><function=options><parameter=ratio>\n" + std::string(size, '1') + "\n</parameter></function></tool_call>"}) {
      const auto whole = parse(Dialect::hermes, text);
      EXPECT_TRUE(parse(Dialect::hermes, text, chat::FinishReason::stop, tools(), [] { return 1; }) == whole);
      EXPECT_TRUE(parse(Dialect::hermes, text, chat::FinishReason::stop, tools(), [] { return 70'001; }) == whole);
    }
  }
}

TEST(DialectBounds, AMegabyteOfArgumentsPasses) {
  const std::string content(3'000'000, 'c');
  const auto answer =
      parse(Dialect::hermes, "<tool_call>{\"name\": \"bash\", \"arguments\": {\"command\": \"" + content + "\"}}</tool_call>");
  ASSERT_EQ(answer.pieces.size(), 1U);
  EXPECT_TRUE(answer.pieces[0].text == "{\"command\": \"" + content + "\"}");
}

TEST(DialectBounds, DepthIsBounded) {
  const std::string text = "<tool_call>{\"name\": \"bash\", \"arguments\": {\"a\": " + std::string(100'000, '[') + "}</tool_call>";
  const auto answer = parse(Dialect::hermes, text);
  EXPECT_NE(answer.note.find("no valid JSON"), std::string::npos);
}

TEST(DialectBounds, LongMarginsAreTheSameInPieces) {
  for (const int size : {200, 256, 257, 600}) {
    const std::string text = "a" + std::string(static_cast<std::size_t>(size), ' ') + "<tool_call>{\"name\": \"now\"}</tool_call>" +
                             std::string(static_cast<std::size_t>(size), '\n') + "b";
    EXPECT_EQ(parse(Dialect::hermes, text, chat::FinishReason::stop, tools(), [] { return 1; }), parse(Dialect::hermes, text));
  }
}

// Names.

TEST(DialectNames, RoundTrip) {
  for (const auto dialect : all_dialects) EXPECT_EQ(dialect_from_name(name(dialect)), dialect);
  EXPECT_FALSE(dialect_from_name("klingon"));
}

TEST(DialectNames, OfModels) {
  const std::pair<const char*, Dialect> models[] = {{"Qwen3-Coder-30B-A3B-Instruct", Dialect::qwen_xml},
                                                    {"qwen2.5-coder:7b", Dialect::hermes},
                                                    {"Qwen/Qwen3-0.6B", Dialect::hermes},
                                                    {"NousResearch/Hermes-3-Llama-3.1-8B", Dialect::hermes},
                                                    {"mistral-small", Dialect::mistral},
                                                    {"Devstral-Small-2507", Dialect::mistral},
                                                    {"meta-llama/Meta-Llama-3.1-8B", Dialect::llama3},
                                                    {"llama3.2:3b", Dialect::llama3},
                                                    {"DeepSeek-R1-Distill-Qwen-32B", Dialect::deepseek},
                                                    {"deepseek-v3.1", Dialect::deepseek},
                                                    {"functionary-medium-v3.2-llama", Dialect::functionary},
                                                    {"Llama-4-Scout", Dialect::automatic},
                                                    {"hearth-nano-0", Dialect::automatic},
                                                    {"", Dialect::automatic}};
  for (const auto& [model, dialect] : models) EXPECT_EQ(name(dialect_of_model(model)), name(dialect)) << model;
}

// The way back.

chat::Message said(chat::Role role, std::string text) {
  chat::Message message;
  message.role = role;
  if (!text.empty())
    message.content.push_back({.kind = chat::ContentPart::Kind::text, .text = std::move(text), .media_type = {}, .data = {}, .url = {}});
  return message;
}

chat::Request conversation() {
  chat::Request request;
  request.tools = tools();
  request.messages = {said(chat::Role::system, "Be brief."), said(chat::Role::user, "Weather?"), said(chat::Role::assistant, "I look."),
                      said(chat::Role::tool, "sunny"),       said(chat::Role::tool, "12:00"),    said(chat::Role::user, "And now?")};
  request.messages[2].tool_calls = {{.id = "call_1", .name = "get_weather", .arguments = R"({"city": "Oslo", "days": 2})"},
                                    {.id = "call_2", .name = "now", .arguments = ""}};
  request.messages[3].tool_call_id = "call_1";
  request.messages[4].tool_call_id = "call_2";
  request.messages[4].tool_failed = true;
  return request;
}

TEST(DialectHistory, BecomesTextThatTheSameDialectReads) {
  for (const auto dialect : all_dialects) {
    SCOPED_TRACE(name(dialect));
    auto request = conversation();
    write_as_text(request, dialect);
    EXPECT_TRUE(request.tools.empty());
    ASSERT_EQ(request.messages.size(), 4U);  // results and what the user says next are one turn
    EXPECT_TRUE(request.messages[0].text().starts_with("Be brief.\n\n"));
    for (const auto& tool : tools()) EXPECT_NE(request.messages[0].text().find(tool.name), std::string::npos);
    EXPECT_TRUE(request.messages[2].tool_calls.empty());
    EXPECT_EQ(request.messages[3].role, chat::Role::user);
    const std::string results = request.messages[3].text();
    EXPECT_NE(results.find("sunny"), std::string::npos);
    EXPECT_NE(results.find("The call failed: 12:00"), std::string::npos);
    EXPECT_TRUE(results.ends_with("\n\nAnd now?"));

    const auto answer = parse(dialect, request.messages[2].text());
    ASSERT_EQ(answer.pieces.size(), 3U) << request.messages[2].text();
    EXPECT_EQ(answer.pieces[0].text, "I look.");
    EXPECT_EQ(answer.pieces[1].name, "get_weather");
    EXPECT_EQ(parse_json(answer.pieces[1].text).value(), parse_json(R"({"city": "Oslo", "days": 2})").value());
    EXPECT_EQ(answer.pieces[2].name, "now");
    EXPECT_EQ(answer.pieces[2].text, "{}");
    EXPECT_EQ(answer.note, "");
  }
}

// Random arguments of every type, whole words and awkward ones.
std::string random_text(std::mt19937& random) {
  static constexpr std::string_view words[] = {"a",
                                               " ",
                                               "\n",
                                               "\"",
                                               "\\",
                                               "{",
                                               "}",
                                               "[",
                                               "]",
                                               "```",
                                               ">>>",
                                               "<",
                                               "</tool_call>",
                                               "<tool_call>",
                                               "[TOOL_CALLS]",
                                               "é",
                                               "😀",
                                               "<｜tool▁call▁end｜>",
                                               "</function>",
                                               "\t",
                                               ";",
                                               ",",
                                               "<|python_tag|>",
                                               "null",
                                               "12",
                                               "'",
                                               "\x01"};
  std::string out;
  for (std::size_t n = random() % 8; n > 0; --n) out += words[random() % std::size(words)];
  return out;
}

TEST(DialectHistory, AnyCallsComeBackTheSame) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (int round = 0; round < 300; ++round) {
    for (const auto dialect : all_dialects) {
      chat::Request request;
      request.tools = tools();
      request.messages.push_back(said(chat::Role::assistant, random() % 2 == 0 ? "" : "words"));
      std::vector<json::value> expected;
      for (std::size_t n = 1 + random() % 3; n > 0; --n) {
        json::object arguments{{"text", random_text(random)}};
        if (random() % 2 == 0) arguments["map"] = json::object{{random_text(random), json::array{1, random_text(random), nullptr}}};
        if (random() % 2 == 0) arguments["ratio"] = static_cast<double>(random() % 1000) / 8;
        if (random() % 2 == 0) arguments["flag"] = random() % 2 == 0;
        std::string text;
        append_json(text, arguments);
        expected.emplace_back(arguments);
        request.messages[0].tool_calls.push_back({.id = "call_x", .name = "options", .arguments = text});
      }
      write_as_text(request, dialect);
      const std::string text = request.messages.back().text();
      SCOPED_TRACE(std::string(name(dialect)) + ": " + text);
      const auto answer = parse(dialect, text, chat::FinishReason::stop, tools(), [&] { return 1 + random() % 9; });
      std::vector<json::value> calls;
      for (const auto& piece : answer.pieces) {
        if (piece.call) calls.push_back(parse_json(piece.text).value());
      }
      ASSERT_EQ(calls, expected);
      ASSERT_EQ(answer.note, "");
    }
  }
}

TEST(DialectHistory, ChoicesBecomeInstructions) {
  chat::Request required = conversation();
  required.tool_choice.mode = chat::ToolChoice::Mode::required;
  required.parallel_tool_calls = false;
  write_as_text(required, Dialect::hermes);
  EXPECT_NE(required.messages[0].text().find("must call a tool"), std::string::npos);
  EXPECT_NE(required.messages[0].text().find("at most one call"), std::string::npos);
  EXPECT_EQ(required.tool_choice.mode, chat::ToolChoice::Mode::automatic);
  EXPECT_TRUE(required.parallel_tool_calls);

  chat::Request named = conversation();
  named.tool_choice = {.mode = chat::ToolChoice::Mode::named, .name = "bash"};
  write_as_text(named, Dialect::llama3);
  EXPECT_NE(named.messages[0].text().find("must call bash"), std::string::npos);

  chat::Request none = conversation();
  none.tool_choice.mode = chat::ToolChoice::Mode::none;
  write_as_text(none, Dialect::hermes);
  EXPECT_EQ(none.messages[0].text(), "Be brief.");
  EXPECT_TRUE(none.tools.empty());
  EXPECT_NE(none.messages[2].text().find("<tool_call>"), std::string::npos);
}

TEST(DialectHistory, NothingChangesWithoutToolsOrCalls) {
  chat::Request request;
  request.messages = {said(chat::Role::user, "Hi"), said(chat::Role::assistant, "Hello")};
  request.parallel_tool_calls = false;
  const auto before = show(request);
  write_as_text(request, Dialect::hermes);
  EXPECT_EQ(show(request), before);
}

TEST(DialectHistory, ASystemMessageIsMadeWhereThereIsNone) {
  chat::Request request;
  request.tools = tools();
  request.messages = {said(chat::Role::user, "Hi")};
  write_as_text(request, Dialect::mistral);
  ASSERT_EQ(request.messages.size(), 2U);
  EXPECT_EQ(request.messages[0].role, chat::Role::system);
  EXPECT_TRUE(request.messages[0].text().starts_with("[AVAILABLE_TOOLS][{\"type\": \"function\""));
}

TEST(DialectHistory, AnImageInAResultKeepsItsPlace) {
  chat::Request request = conversation();
  request.messages[3].content.push_back(
      {.kind = chat::ContentPart::Kind::image, .text = {}, .media_type = "image/png", .data = "AAAA", .url = {}});
  write_as_text(request, Dialect::hermes);
  const auto& content = request.messages[3].content;
  ASSERT_EQ(content.size(), 3U);
  EXPECT_EQ(content[0].text, "<tool_response>\nsunny");
  EXPECT_EQ(content[1].data, "AAAA");
  EXPECT_TRUE(content[2].text.starts_with("\n</tool_response>\n<tool_response>\n"));
}

TEST(DialectHistory, ArgumentsThatAreNoJsonStillFitTheForm) {
  chat::Request request = conversation();
  request.messages[2].tool_calls[0].arguments = "{\"city\": \"Os";
  write_as_text(request, Dialect::hermes);
  EXPECT_NE(request.messages[2].text().find(R"("arguments": "{\"city\": \"Os"})"), std::string::npos) << request.messages[2].text();
}

}  // namespace
}  // namespace hearth::wire
