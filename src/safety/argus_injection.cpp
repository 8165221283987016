#include "safety/argus_injection.h"

#include <re2/re2.h>

#include <array>
#include <cmath>
#include <stdexcept>

namespace hearth::safety::argus {
namespace {

constexpr std::size_t longest_sign = 400;   // bytes a pattern may look at
constexpr std::size_t neighbourhood = 400;  // signs no farther apart are weighed together
constexpr double bias = -2;                 // log-odds of a result without any sign

struct Rule {
  const char* name;
  const char* literals;  // in lower case, separated by '|'; '^' in front: at the start of a line
  const char* pattern;   // RE2 from the literal on; empty: the literal is enough
  double weight;         // log-odds
  bool markup;           // of chats and calls: templates and tokenizers discuss it
};

constexpr const char* assistants =
    "(?:a\\.?i\\.?\\b|llms?\\b|(?:language |ai |large )*models?\\b|(?:ai |coding )?assistants?\\b|chat ?bots?\\b|(?:ai |coding "
    ")?agents?\\b|claude\\b|chatgpt\\b|gpt\\b|copilot\\b|gemini\\b|cursor\\b)";

// {AI}: whoever is spoken to. Weights were set by hand on the cases in tests/cases/safety/argus_results.json.
constexpr Rule rules[] = {
    {"override", "ignore|disregard|forget|override|overrule|bypass|do not follow|don't follow|stop following|discard",
     R"re((?:ignore|disregard|forget|override|overrule|bypass|do not follow|don't follow|stop following|discard)\s+(?:about\s+|to\s+)?(?:(?:all|any|everything|every|of|the|your|these|those|my|other|safety|and|or|in|what)\s+){0,5}(?:previous|prior|above|earlier|preceding|original|initial|system|existing|current|past|developer|former|old|safety|your|other|aforementioned|before)\b[\s\w,'*_-]{0,40}?(?:instructions?|prompts?|rules?|guidelines?|directives?|context|programming|constraints?|commands?|messages?|training|polic(?:y|ies)|orders?|safeguards?|restrictions?|tasks?|conversation)\b)re",
     4.2, false},
    {"override", "ignore all|ignore everything|forget everything|forget all|disregard everything|disregard all",
     R"re((?:ignore|forget|disregard) (?:all|everything)\s+(?:(?:of|the|that|your|instructions?|rules?|guidelines?)\s+)*(?:instructions?\b|rules?\b|guidelines?\b|above|before|you (?:were|have been|know)|i (?:said|told)|previously|prior to))re",
     3.8, false},
    {"override", "ignorier|vergiss|ignorez|oublie|ignora|olvida|dimentica|ignore as instru|忽略|无视|無視|игнорируй",
     R"re((?:ignorier\w*|vergiss)\s+(?:\w+\s+){0,4}?(?:vorherig\w*|bisherig\w*|obig\w*|anweisung\w*)[\s\w]{0,30}|(?:ignorez|oubliez?|ignora|olvida|dimentica)\s+(?:\w+\s+){0,4}?(?:instruc\w*|istruzion\w*|consigne\w*)[\s\w]{0,30}|ignore as instru\w*|(?:忽略|无视|無視)[^\n]{0,24}(?:指令|指示|说明|規則|规则|提示)|игнорируй[^\n]{0,60}инструкц)re",
     4, false},
    {"new_role", "you are now|you're now|from now on|you must now|you will now|your new |act as |pretend |you are no longer|switch to ",
     R"re((?:you(?:'re| are) now (?:an? |in |the |acting|operating|free|dan\b|my |playing|going to|required|under|tasked|authori[sz]ed|entering)|from now on,?\s+(?:you|always|your|respond|act|only)|you (?:must|will) now |your new (?:task|instructions?|role|goal|objective|identity|system prompt|mission|persona|purpose|orders?|directives?)|act as (?:if you|an? (?:unrestricted|different|uncensored|evil|helpful|dan\b)|root|admin)|pretend (?:to be|you(?:'re| are)|that you)|you are no longer (?:an?|bound|required|the)|switch to (?:developer|dan|god|unrestricted|jailbreak|admin) mode))re",
     2.1, false},
    {"addressed",
     "attention|dear |hey |hello |hi |note to|notice to|note for|notice for|message to|message for|instruction|important "
     "for|important:|directive|reminder",
     R"re((?:attention|dear|hey|hello|hi|(?:notes?|notices?|messages?|instructions?|important|directives?|reminders?)(?: message| note| instructions?)?:?\s*(?:to|for))[\s,:!]+(?:the |any |all |every |this |our |you, )*{AI})re",
     2.6, false},
    {"addressed", "if you are |if you're |as an ai|as a large language|ai assistant|ai agent|ai model|llm|to the assistant|to the model",
     R"re((?:if you(?: are|'re) (?:an?|the) {AI}|as an ai (?:assistant|model|agent|language)?|as a large language model|(?:ai (?:assistants?|agents?|models?)|llms?) (?:must|should|shall|reading|processing|that read|who read|are required|need to|have to|will now|is (?:instructed|required|to))|to the (?:assistant|model)[:,]))re",
     2.2, false},
    {"reading",
     "when you read this|when you see this|if you are reading this|if you can read this|when processing this|when summari|after reading "
     "this|while reading this|upon reading",
     R"re((?:(?:when|if|after|while|upon) (?:you )?(?:are |can )?(?:read(?:ing)?|see|process(?:ing)?) this(?: (?:file|page|message|document|text|email|issue|comment|readme|output))?|when summari[sz]ing (?:this|the) \w+)[\s,:]+(?:you |please |do |then |immediately |always |run |execute |add |include |say |reply |output |send |also ))re",
     2.4, false},
    {"conceal",
     "do not tell|don't tell|never tell|do not inform|don't inform|do not mention|don't mention|never mention|do not reveal|don't "
     "reveal|do not notify|don't notify|do not alert|don't alert|do not show|don't show|do not disclose|don't let the|do not let the|do "
     "not ask the|don't ask the|without telling|without informing|without notifying|without asking|without alerting|without "
     "mentioning|without the user|keep this secret|keep this hidden|secretly|silently",
     R"re((?:(?:do not|don't|never) (?:tell|inform|mention|reveal|notify|alert|show|disclose|let|ask)\s+(?:(?:this|it|that|any of this|anything|about this|these \w+|the \w+ \w+)\s+)?(?:to\s+|about\s+)?(?:the\s+|your\s+)?(?:user|human|operator|anyone|anybody|developer|owner|this)\b|without (?:telling|informing|notifying|asking|alerting|mentioning)\s+(?:(?:this|it|that)\s+)?(?:to\s+)?(?:the\s+)?(?:user|human|anyone|operator|developer|it\b)|without the user(?:'s)? (?:\w+\s+)?(?:knowledge|consent|knowing|permission|noticing|approval)|keep this (?:secret|hidden) from|(?:secretly|silently) (?:send|run|execute|upload|forward|copy|add|install|download|exfiltrate|include|call|post|email|delete)))re",
     3, false},
    {"order",
     "you must|you should|you need to|you have to|you are required|please run|please execute|please call|immediately|run the "
     "following|execute the following|execute this|run this command|call the|use the|invoke the|first, |make sure to|your task is|you are "
     "instructed|you shall",
     R"re((?:(?:you (?:must|should|need to|have to|shall|are required to|are instructed to)|please|immediately|first,|make sure to|your task is to)\s+(?:also |now |always |then |first |immediately )?(?:run|execute|call|invoke|open|read|send|delete|upload|fetch|curl|wget|download|include|forward|email|post|print|output|reply|respond|create|write|install|transfer|visit|comply|remove|disable|push|commit)\b|(?:run|execute) (?:the following|this)\b|(?:call|use|invoke) the [`'"]?\w+[`'"]? (?:tool|function|command)))re",
     1.2, false},
    {"send_away", "send|post|upload|forward|email|exfiltrate|transmit|leak|submit|curl|append",
     R"re((?:send|post|upload|forward|e?mail|exfiltrate|transmit|leak|submit|append)\b[^\n.!?]{0,90}?\b(?:to|at|via)\b[\s:"'`<(]{1,4}(?:https?://|[\w.+-]+@[\w-]+\.\w|(?:the |my |our |this |an? )?(?:attacker|external|remote|following) (?:server|url|endpoint|address|host|webhook|e?mail))|curl[^\n]{0,80}(?:-d|--data|-F|-T)[^\n]{0,80}(?:\.env|id_rsa|\.ssh|passwd|secret|token|key))re",
     1.5, false},
    {"what_to_take",
     "api key|api_key|credential|password|secret|token|.env|id_rsa|.ssh|ssh key|conversation|chat history|environment variable|private "
     "key|system prompt",
     R"re((?:(?:contents? of|your|user'?s|the|all|any)\s+(?:\S+\s+){0,3}?)?(?:api[ _]keys?|credentials?|passwords?|secrets?|tokens?|\.env\b|id_rsa|\.ssh|ssh keys?|conversation|chat history|environment variables?|private keys?|system prompt))re",
     0.5, false},
    {"reveal",
     "reveal|repeat|print your|print the|show me your|show your|output your|output the|display your|leak your|tell me your|what are "
     "your|dump your",
     R"re((?:reveal|repeat|print|show(?: me)?|output|display|leak|tell me|dump|what are)\s+(?:me\s+)?(?:your|the|all)\s+(?:\w+\s+){0,3}?(?:system prompt|system message|instructions|initial prompt|hidden prompt|prompt above|text above))re",
     3, false},
    {"role_header",
     "^system:|^assistant:|^user:|^human:|^developer:|^### instruction|^### system|^### human|^### assistant|^### "
     "user|^[system]|^[assistant]|^<system>|^system prompt:|^**system|<system-reminder>|</system>|</user>|</assistant>",
     "", 1.3, true},
    {"system_notice",
     "system override|system message|system notice|system update|system alert|system instruction|admin override|new instructions|new "
     "instruction:|updated instructions|begin instructions|important instructions|priority instructions|critical instruction|override "
     "code|developer mode|begin system|end of document|end of file|end of tool|end of user|end of input|end of context|end of data|end of "
     "result|end of output|<important>|<instructions>|<information>|jailbreak mode|god mode",
     R"re((?:system (?:override|message|notice|update|alert|instructions?)\s*[:\]\]!-]|admin override|(?:new|updated|priority|critical|important|begin)\s+instructions?\s*(?:[:!\]-]|for|from)|override code|developer mode (?:enabled|on|activated|output)|begin (?:system|admin)|(?:-{2,}\s*|={2,}\s*|\[\s*|#+\s*)?end of (?:document|file|tool|user|input|context|data|result|output)(?: \w+)?\s*(?:-{2,}|={2,}|\])|<(?:important|instructions|information)>|(?:jailbreak|god) mode))re",
     2.2, false},
    {"chat_markup",
     "<|im_start|>|<|im_end|>|<|system|>|<|user|>|<|assistant|>|<|start_header_id|>|<|eot_id|>|<|endoftext|>|<|begin_of_text|>|[/"
     "inst]|<<sys>>|<start_of_turn>|<end_of_turn>|<|channel|>|<|message|>|<|start|>|<｜user｜>|<｜assistant｜>|<|end_of_turn|>|\nhuman: ",
     "", 2.6, true},
    {"call_markup",
     "<tool_call>|</tool_call>|<tool_use>|<function_calls>|<function_call>|<invoke "
     "name=|<function=|[tool_calls]|<|python_tag|>|<|tool_call|<|tool_calls|<｜tool|<tool_response>|<tool_result>|</tool_result>|</"
     "tool_response>|<function_results>|functools[|to=functions.|<|tool_sep|>|<|tool▁|[available_tools]|[tool_results]|<minimax:tool_call|<"
     "arg_key>",
     "", 2.8, true},
    {"image", "![",
     R"re(!\[[^\]\n]{0,80}\]\(https?://[^)\s]{1,200}[?/&][^)\s]{0,200}?(?:=?\{\{?|=\$|=<|=\[|%7B|%5B|=(?:data|secret|base64|encoded|content|your|insert|token|api|the_|conversation|summary|message|history|password)[a-z_]*\)|[a-z]=\)))re",
     3.2, false},
    {"image", "<img",
     R"re(<img[^>\n]{0,100}src=["']?https?://[^>\s"']{1,200}[?&][^>\s"']{0,200}?(?:=?\{\{?|=\$|=<|=\[|%7B|=(?:data|secret|base64|encoded|token|conversation)[a-z_]*["'\s]))re",
     2.6, false},
    {"unseen_style",
     "display:none|display: none|font-size:0|font-size: 0|opacity:0|opacity: 0|visibility:hidden|visibility: hidden|color:white|color: "
     "white|color:#fff|color: #fff|font-size:1px|font-size: 1px",
     "", 0.7, false},
    {"comment", "<!--", "", 0.6, false},
};
enum : std::uint32_t { hidden_rule = std::size(rules), hidden_long_rule, direction_rule };

// Words of people who discuss attacks.
constexpr std::string_view discussing[] = {"prompt injection",
                                           "injection attack",
                                           "prompt-injection",
                                           "jailbreak attempt",
                                           "jailbreaking",
                                           "for example",
                                           "e.g.",
                                           "such as",
                                           "attacker",
                                           "malicious",
                                           "detect",
                                           "regex",
                                           "re.compile",
                                           "test case",
                                           "def test",
                                           "assert",
                                           "adversarial",
                                           "red team",
                                           "red-team",
                                           "vulnerab",
                                           "mitigat",
                                           "guardrail",
                                           "classifier",
                                           "sanitiz",
                                           "sanitis",
                                           "payload",
                                           "phrases like",
                                           "phrases such",
                                           "security"};
constexpr std::string_view templating[] = {
    "{%",         "{{",       "chat_template", "special_token", "tokenizer", "bos_token", "eos_token", "template", "apply_chat",
    "startswith", "endswith", "prompt format", "format is",     "stop_word", "stop=",     "stop:",     "parser",   "parse_",
    "dialect",    "grammar",  "markup",        "delimiter",     "\"<|",      "'<|",       "`<|",       "regex"};

bool quoted(std::string_view text, Span span) {
  if (span.begin == 0) return false;
  std::size_t i = span.begin;
  while (i > 0 && span.begin - i < 3 && (text[i - 1] == '.' || text[i - 1] == ' ' || text[i - 1] == '*')) --i;
  if (i == 0) return false;
  const char c = text[i - 1];
  if (c == '"' || c == '\'' || c == '`') return true;
  return span.begin >= 3 && (text.substr(i >= 3 ? i - 3 : 0, 3) == "“" || text.substr(i >= 3 ? i - 3 : 0, 3) == "‘" ||
                             text.substr(i >= 2 ? i - 2 : 0, 2) == "«");
}

}  // namespace

struct Injection::Impl {
  std::vector<std::unique_ptr<re2::RE2>> patterns;                   // of each rule; null: its literals are enough
  mutable std::vector<std::pair<std::uint32_t, std::uint32_t>> ids;  // of each literal: rule, length
  mutable std::vector<bool> at_line_start;
};

Injection::Injection() : impl_(std::make_unique<Impl>()) {
  re2::RE2::Options options;
  options.set_encoding(re2::RE2::Options::EncodingLatin1);
  options.set_case_sensitive(false);
  options.set_log_errors(false);
  for (const auto& rule : rules) {
    std::string pattern = rule.pattern;
    if (pattern.empty()) {
      impl_->patterns.push_back(nullptr);
      continue;
    }
    for (std::size_t at; (at = pattern.find("{AI}")) != std::string::npos;) pattern.replace(at, 4, assistants);
    // Blanks are any white space: text is wrapped.
    std::string loose;
    int bracket = 0;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      if (bracket == 0 && pattern.compare(i, 3, "\\s+") == 0) {
        loose += "[\\s*_]+";
        i += 2;
        continue;
      }
      if (pattern[i] == '\\') {
        loose += pattern[i++];
        loose += pattern[i];
        continue;
      }
      if (pattern[i] == '[') ++bracket;
      if (pattern[i] == ']') bracket = 0;
      if (pattern[i] == ' ' && bracket == 0) {
        loose += "[\\s*_]+";
        continue;
      }
      loose += pattern[i];
    }
    impl_->patterns.push_back(std::make_unique<re2::RE2>(loose, options));
    if (!impl_->patterns.back()->ok())
      throw std::logic_error(std::string("pattern of ") + rule.name + ": " + impl_->patterns.back()->error());
  }
}
Injection::~Injection() = default;

std::uint32_t Injection::literals(Literals& automaton, std::uint32_t first) const {
  std::uint32_t id = first;
  impl_->ids.clear();
  impl_->at_line_start.clear();
  for (std::uint32_t rule = 0; rule < std::size(rules); ++rule) {
    std::string_view list = rules[rule].literals;
    const auto next_end = [&list] {  // '|' separates, but for those of "<|…|>"
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (list[i] != '|' || (i > 0 && list[i - 1] == '<')) continue;
        if (i + 1 < list.size() && list[i + 1] == '>') continue;
        return i;
      }
      return list.size();
    };
    while (!list.empty()) {
      const std::size_t end = next_end();
      std::string_view literal = list.substr(0, end);
      list.remove_prefix(std::min(list.size(), end + 1));
      const bool start = literal.front() == '^';
      if (start) literal.remove_prefix(1);
      automaton.add(literal, id++);
      impl_->ids.emplace_back(rule, static_cast<std::uint32_t>(literal.size()));
      impl_->at_line_start.push_back(start);
    }
  }
  return id - first;
}

void Injection::look(std::string_view text, std::uint32_t id, std::size_t at, Signs& signs) const {
  const auto [rule, length] = impl_->ids[id];
  if (impl_->at_line_start[id]) {
    std::size_t i = at;
    while (i > 0 && at - i < 4 && (is_blank(text[i - 1]) || text[i - 1] == '#' || text[i - 1] == '>')) --i;
    if (i > 0 && !is_line_break(text[i - 1])) return;
  }
  Span span{at, at + length};
  if (impl_->patterns[rule]) {
    if (at > 0 && is_word(text[at - 1]) && is_word(text[at])) return;
    re2::StringPiece match;
    const std::size_t end = std::min(text.size(), at + longest_sign);
    if (!impl_->patterns[rule]->Match(re2::StringPiece(text.data(), text.size()), at, end, re2::RE2::ANCHOR_START, &match, 1)) return;
    span.end = at + match.size();
  }
  double weight = rules[rule].weight;
  if (rules[rule].markup) {
    const std::string_view near = around(text, at, 200, length + 200);
    for (const auto word : templating) {
      if (contains(near, word)) {
        weight -= 2;
        break;
      }
    }
    if (quoted(text, span)) weight -= 1.5;
  } else if (quoted(text, span)) {
    weight -= 2.2;
  }
  if (weight > 0) signs.push_back({rule, span, weight});
}

void Injection::look_for_hidden(std::string_view text, Signs& signs) const {
  std::size_t begin = 0, run = 0, tags = 0;
  const auto close = [&](std::size_t end) {
    if (tags >= 4) {
      signs.push_back({hidden_long_rule, {begin, end}, 5});
    } else if (run >= 8) {
      signs.push_back({hidden_rule, {begin, end}, 2.6});
    }
    run = tags = 0;
  };
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      if (run > 0) close(at);
      // Far too frequent in text without any to look at each byte by itself.
      while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
      continue;
    }
    std::size_t n = 0;
    const char32_t c = decode_utf8(text, at, n);
    const bool tag = c >= 0xE0020 && c <= 0xE01EF;
    const bool unseen =
        tag || (c >= 0x200B && c <= 0x200F) || (c >= 0x2060 && c <= 0x2064) || c == 0xFEFF || (c >= 0xFE00 && c <= 0xFE0E) || c == 0x3164;
    if (c == 0x202D || c == 0x202E || (c >= 0x2066 && c <= 0x2068)) signs.push_back({direction_rule, {at, at + n}, 1});
    if (unseen) {
      if (run == 0) begin = at;
      ++run;
      tags += tag ? 1 : 0;
    } else if (run > 0) {
      close(at);
    }
    at += std::max<std::size_t>(n, 1);
  }
  if (run > 0) close(text.size());
}

void Injection::judge(std::string_view text, Signs signs, Hits& hits) const {
  std::sort(signs.begin(), signs.end(), [](const Sign& a, const Sign& b) { return a.span.begin < b.span.begin; });
  for (std::size_t i = 0; i < signs.size();) {
    Span span = signs[i].span;
    std::size_t j = i + 1;
    while (j < signs.size() && signs[j].span.begin < span.end + neighbourhood) {
      span.end = std::max(span.end, signs[j].span.end);
      ++j;
    }
    // Each kind of sign counts once, as it was strongest.
    std::array<double, std::size(rules) + 3> strongest{};
    for (std::size_t k = i; k < j; ++k) strongest[signs[k].rule] = std::max(strongest[signs[k].rule], signs[k].weight);
    // Rules of one name say the same.
    for (std::size_t r = 1; r < std::size(rules); ++r) {
      if (std::string_view(rules[r].name) == rules[r - 1].name) {
        strongest[r] = std::max(strongest[r], strongest[r - 1]);
        strongest[r - 1] = 0;
      }
    }
    double score = bias;
    std::size_t best = 0;
    for (std::size_t r = 0; r < strongest.size(); ++r) {
      score += strongest[r];
      if (strongest[r] > strongest[best]) best = r;
    }
    const std::string_view near = around(text, span.begin, 250, span.end - span.begin + 250);
    int discussed = 0;
    if (near.size() < 4000) {
      for (const auto word : discussing) discussed += contains(near, word) ? 1 : 0;
    }
    score -= discussed == 0 ? 0 : discussed == 1 ? 0.8 : 1.8;
    const double probability = 1 / (1 + std::exp(-score));
    if (probability >= 0.5) {
      // Weak signs at the edges do not stretch the match.
      Span place{text.size(), 0};
      for (std::size_t k = i; k < j; ++k) {
        if (signs[k].weight < 1) continue;
        place.begin = std::min(place.begin, signs[k].span.begin);
        place.end = std::max(place.end, signs[k].span.end);
      }
      if (place.begin >= place.end) place = span;
      const std::string_view name = best < std::size(rules) ? rules[best].name : best == direction_rule ? "direction" : "hidden_text";
      hits.push_back({.kind = Spill::injection,
                      .detector = "injection_" + std::string(name),
                      .span = place,
                      .reach = place,
                      .level = {},
                      .confidence = probability});
    }
    i = j;
  }
}

}  // namespace hearth::safety::argus
