// The text of a policy as a document: read, checked for what can be seen without running it, and nothing else. Mistakes carry line and column.
#pragma once

#include <re2/re2.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/effect.h"
#include "safety/paths.h"
#include "safety/policy.h"
#include "safety/tools.h"
#include "safety/verdict.h"

namespace hearth::safety {

struct Position {
  int line = 1;
  int column = 1;  // in characters, from 1
};

enum class Compare { less, at_most, equal, at_least, more };

// A condition as a tree. What a kind uses of the fields stands beside it.
struct Condition {
  enum class Kind {
    all,             // parts
    any,             // parts
    negation,        // parts[0]
    named,           // index: a definition
    always,          //
    tool,            // texts: globs over plain names
    effect,          // bits
    certain,         //
    path,            // texts
    place,           // bits
    program,         // texts
    command,         // texts
    argument,        // texts2: its names; as `match` says: texts or patterns
    host,            // texts
    tenant,          // texts
    model,           // texts
    remote,          // the model is on another machine
    classification,  // compare, texts[0]
    spill,           // bits: kinds; texts: detectors; texts2[0] with compare: level
    direction,       // bits
    time,            // from, to: minutes of the day
    day,             // bits: 1 << day of week
    trajectory,      // compare, number
    guard,           // compare, number
    tainted,         //
  };
  enum class Text { glob, contains, pattern };
  Kind kind = Kind::always;
  std::vector<Condition> parts;
  std::vector<std::string> texts, texts2;
  std::vector<std::size_t> patterns;  // into Document::patterns
  Text match = Text::glob;
  std::uint32_t bits = 0;
  Compare compare = Compare::at_least;
  double number = 0;
  int from = 0, to = 0;
  std::size_t index = 0;
  Position at;
};

struct Example {
  enum class Kind { command, call, text, result };
  Kind kind = Kind::command;
  bool matches = true;  // match or not_match
  std::string content;  // the command, the text, or the arguments as JSON
  std::string tool;     // of a call
  std::string shown;    // as it stands in the file
  std::string context;  // the same for what follows "with"
  std::string tenant, model, classification, folder, description;
  bool remote = false, tainted = false;
  int minute = 720, day = 3;
  double trajectory = 0, guard = 0;
  Position at;
};

struct Rule {
  std::string name;
  Decision decision = Decision::deny;
  Condition when;
  std::string reason, remedy;
  std::uint32_t lifts = 0;  // ALLOW: effects whose gate it stands instead of
  bool redact = false;
  std::vector<Example> examples;
  bool shipped = false;
  Position at, when_at;
  std::string condition_text;  // as written, spaces made one
};

struct Definition {
  std::string name;
  Condition condition;
  bool used = false;
  bool shipped = false;
  Position at;
};

struct Gate {
  Decision certain = Decision::allow, uncertain = Decision::allow;
  bool given = false, shipped = false;
  Position at;
};

struct Threshold {
  double from = 0;
  Decision decision = Decision::audit;
};

struct Document {
  std::vector<Rule> rules;
  std::vector<Definition> definitions;
  std::array<Gate, effect_count> gates;
  std::vector<Threshold> guard, trajectory;  // rising
  std::vector<std::string> writable, protect, trusted;
  std::vector<ToolEntry> tools;
  std::vector<std::string> levels{"UNCLASSIFIED", "CUI", "CONFIDENTIAL", "SECRET", "TOP SECRET"};
  std::vector<std::unique_ptr<RE2>> patterns;
};

struct Expectation {
  enum class Kind { decision, blocked, released };
  Kind kind = Kind::decision;
  Decision decision = Decision::deny;
  Example example;
};

// A mistake in a policy; thrown within the readers, and made an Error at their border.
struct PolicyMistake {
  Position at;
  std::string message;
};

// config_invalid with "NAME:LINE:COLUMN: …".
Result<Document> read_policy(std::string_view text, std::string_view name);
Result<std::vector<Expectation>> read_cases(std::string_view text, std::string_view name, const Document& policy);
Error mistake(std::string_view name, Position at, const std::string& message);

// 1 for the lowest of `levels`; 0 for none; one above the highest for a level nobody knows, because it may be any. "TS//SI" counts as "TOP SECRET".
std::size_t rank_of(std::string_view level, const std::vector<std::string>& levels);
inline constexpr std::array<std::string_view, 12> place_names{"workspace", "temporary", "home",   "elsewhere", "system",   "credentials",
                                                              "startup",   "logs",      "device", "root",      "harmless", "secret_like"};

}  // namespace hearth::safety
