#include "safety/argus_markings.h"

#include <array>
#include <optional>
#include <unordered_set>

namespace hearth::safety::argus {
namespace {

constexpr std::size_t longest_line = 200;  // of which a banner line is looked at

// What is looked for, and what it calls for.
enum class Sign { slashes, level_word, portion, cui, legacy, legacy_phrase, authority, spaced };
struct Literal {
  std::string_view text;
  Sign sign;
};
constexpr Literal signs[] = {
    {"//", Sign::slashes},
    {"/ /", Sign::slashes},
    {"secret", Sign::level_word},
    {"confidential", Sign::level_word},
    {"classified", Sign::level_word},
    {"restricted", Sign::level_word},
    {"(u)", Sign::portion},
    {"(c)", Sign::portion},
    {"(s)", Sign::portion},
    {"(ts)", Sign::portion},
    {"(cui)", Sign::portion},
    {"(fouo)", Sign::portion},
    {"(sbu)", Sign::portion},
    {"cui", Sign::cui},
    {"controlled", Sign::level_word},
    {"fouo", Sign::legacy},
    {"noforn", Sign::legacy},
    {"orcon", Sign::legacy},
    {"limdis", Sign::legacy},
    {"sbu", Sign::legacy},
    {"for official use only", Sign::legacy_phrase},
    {"sensitive but unclassified", Sign::legacy_phrase},
    {"law enforcement sensitive", Sign::legacy_phrase},
    {"sensitive security information", Sign::legacy_phrase},
    {"controlled unclassified information", Sign::legacy_phrase},
    {"rel to usa", Sign::legacy_phrase},
    {"classified by:", Sign::authority},
    {"derived from:", Sign::authority},
    {"declassify on:", Sign::authority},
    {"cui category:", Sign::authority},
    {"s e c r e t", Sign::spaced},
    {"c o n f i d e n t i a l", Sign::spaced},
};

struct Level {
  std::string_view written;  // upper case
  std::string_view level;
  bool word;  // written out
};
// Longest first. Abbreviations count only before a control that is known.
constexpr Level levels[] = {
    {"COSMIC TOP SECRET", "COSMIC TOP SECRET", true},
    {"NATO CONFIDENTIAL", "NATO CONFIDENTIAL", true},
    {"NATO RESTRICTED", "NATO RESTRICTED", true},
    {"NATO SECRET", "NATO SECRET", true},
    {"UNCLASSIFIED", "UNCLASSIFIED", true},
    {"CONFIDENTIAL", "CONFIDENTIAL", true},
    {"TOP SECRET", "TOP SECRET", true},
    {"TOPSECRET", "TOP SECRET", true},
    {"CONTROLLED", "CUI", true},
    {"RESTRICTED", "RESTRICTED", true},
    {"SECRET", "SECRET", true},
    {"CUI", "CUI", true},
    {"CTS", "COSMIC TOP SECRET", false},
    {"TS", "TOP SECRET", false},
    {"NS", "NATO SECRET", false},
    {"NC", "NATO CONFIDENTIAL", false},
    {"NR", "NATO RESTRICTED", false},
    {"S", "SECRET", false},
    {"C", "CONFIDENTIAL", false},
    {"U", "UNCLASSIFIED", false},
    {"R", "RESTRICTED", false},
};

// Controls that stand in manuals and in use beside the vocabulary's own values.
constexpr const char* further_controls[] = {"NOFORN",       "ORCON",
                                            "ORCON-USGOV",  "IMCON",
                                            "PROPIN",       "REL TO",
                                            "SAR",          "FGI",
                                            "LIMDIS",       "EXDIS",
                                            "NODIS",        "COMINT",
                                            "UMBRA",        "GAMMA",
                                            "CNWDI",        "SIGMA",
                                            "DISPLAY ONLY", "LES NOFORN",
                                            "SBU NOFORN",   "DOD UCNI",
                                            "DOE UCNI",     "NO FOREIGN NATIONALS",
                                            "FVEY",         "USA",
                                            "ATOMAL",       "BOHEMIA",
                                            "BALK",         "WAIVED",
                                            "SPECAT",       "SIOP-ESI"};

struct Replacement {
  std::string_view abbreviation, name;
};
constexpr Replacement canonical[] = {{"NF", "NOFORN"}, {"OC", "ORCON"}, {"PR", "PROPIN"}, {"DS", "LIMDIS"}};

std::string uppered(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), to_upper);
  return result;
}
bool is_in_capitals(std::string_view text) { return std::none_of(text.begin(), text.end(), is_lower); }

// How many of `text` from `at` on are `written`, in any case; between its words any of blanks, '_', '-', '.' or nothing where it has a space. 0: it is not.
std::size_t reads(std::string_view text, std::size_t at, std::string_view written) {
  std::size_t i = at;
  for (const char c : written) {
    if (c == ' ') {
      const std::size_t begin = i;
      while (i < text.size() && i - begin < 4 && (is_blank(text[i]) || text[i] == '_' || text[i] == '-' || text[i] == '.')) ++i;
      if (i == begin) return 0;
    } else if (i >= text.size() || to_upper(text[i]) != c) {
      return 0;
    } else {
      ++i;
    }
  }
  return i - at;
}

struct Line {
  std::size_t begin, end;  // without decoration
  bool whole;              // within what is looked at
};
// The line around [begin, end), without what decorates banners.
Line line_around(std::string_view text, std::size_t begin, std::size_t end) {
  Line line{begin, end, true};
  while (line.begin > 0 && begin - line.begin < longest_line && !is_line_break(text[line.begin - 1])) --line.begin;
  while (line.end < text.size() && line.end - end < longest_line && !is_line_break(text[line.end])) ++line.end;
  line.whole = (line.begin == 0 || is_line_break(text[line.begin - 1])) && (line.end == text.size() || is_line_break(text[line.end]));
  const auto decorates = [](char c) {
    return c == ' ' || c == '\t' || c == '*' || c == '#' || c == '=' || c == '-' || c == '_' || c == '|' || c == '~' || c == '+' ||
           c == '/' || c == '[' || c == ']' || c == '"' || c == '\'' || c == '!' || c == '`' || c == '<' || c == '>';
  };
  const auto strip_tag = [&] {  // "<b>TOP SECRET</b>"
    const std::string_view inside = text.substr(line.begin, line.end - line.begin);
    if (inside.size() > 7 && inside.front() == '<' && inside.back() == '>') {
      const std::size_t close = inside.find('>'), open = inside.rfind('<');
      if (close < open && close < 40 && inside.size() - open < 40) line.begin += close + 1, line.end -= inside.size() - open;
    }
  };
  strip_tag();
  while (line.begin < begin && decorates(text[line.begin])) ++line.begin;
  while (line.end > end && decorates(text[line.end - 1])) --line.end;
  return line;
}

// Whether a word of `words` ends right before `at`, with blanks and one of ":=-\"" between.
bool follows_label(std::string_view text, std::size_t at) {
  std::size_t i = at;
  bool separated = false;
  while (i > 0 && at - i < 8 &&
         (is_space(text[i - 1]) || text[i - 1] == '"' || text[i - 1] == '\'' || text[i - 1] == ':' || text[i - 1] == '=')) {
    separated = separated || text[i - 1] == ':' || text[i - 1] == '=';
    --i;
  }
  if (!separated) return false;
  std::size_t begin = i;
  while (begin > 0 && i - begin < 40 && (is_word(text[begin - 1]) || is_blank(text[begin - 1]) || text[begin - 1] == '-')) --begin;
  const std::string label = lowered(text.substr(begin, i - begin));
  for (const std::string_view word : {"classification", "classified", "marking", "banner", "handling", "sensitivity", "security level",
                                      "security_level", "portion", "caveat", "releasability"}) {
    if (label.find(word) != std::string::npos) return true;
  }
  return false;
}

// The word that ends right before `at`, blanks between; lower case.
std::string word_before(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end > 0 && at - end < 4 && (is_blank(text[end - 1]) || text[end - 1] == '"' || text[end - 1] == '\'' || text[end - 1] == '*'))
    --end;
  std::size_t begin = end;
  while (begin > 0 && end - begin < 20 && is_letter(text[begin - 1])) --begin;
  return lowered(text.substr(begin, end - begin));
}

}  // namespace

struct Markings::Vocabulary {
  std::unordered_set<std::string> controls;  // upper case
  std::unordered_set<std::string> categories;

  // A control or category that begins at `at`; its end, `at` when there is none. What it is called goes to `name`.
  std::size_t read_control(std::string_view text, std::size_t at, std::string& called) const {
    // Word ends, up to six words of letters, digits and hyphens.
    std::array<std::size_t, 6> ends{};
    std::size_t words = 0, i = at;
    while (words < ends.size()) {
      const std::size_t begin = i;
      while (i < text.size() && (is_alnum(text[i]) || (text[i] == '-' && i > begin)) && i - begin < 40) ++i;
      while (i > begin && text[i - 1] == '-') --i;
      if (i == begin) break;
      ends[words++] = i;
      if (i < text.size() && text[i] == ' ' && i + 1 < text.size() && is_alnum(text[i + 1])) {
        ++i;
      } else {
        break;
      }
    }
    for (; words > 0; --words) {
      const std::size_t end = ends[words - 1];
      std::string phrase = uppered(text.substr(at, end - at));
      const bool special = phrase.starts_with("SAR-") || phrase.starts_with("SP-") || phrase.starts_with("ACCM-") ||
                           phrase.starts_with("SI-") || phrase.starts_with("TK-") || phrase.starts_with("HCS-") ||
                           phrase.starts_with("BUR-") || phrase.starts_with("RD-") || phrase.starts_with("FRD-");
      if (special && words > 1 && !is_in_capitals(text.substr(at, end - at))) continue;  // prose follows
      if (!special && !controls.contains(phrase) && !categories.contains(phrase)) continue;
      std::size_t last = end;
      if (phrase == "REL TO" || phrase == "REL" || phrase == "DISPLAY ONLY" || phrase == "FGI" || phrase == "EYES ONLY" || phrase == "SI" ||
          phrase == "TK") {
        // A list of countries or compartments: capitals, three or four letters each.
        const bool countries = phrase.starts_with("REL") || phrase == "DISPLAY ONLY" || phrase == "FGI" || phrase == "EYES ONLY";
        while (countries && last < text.size() && (text[last] == ' ' || text[last] == ',')) {
          std::size_t begin = last;
          while (begin < text.size() && (text[begin] == ' ' || text[begin] == ',') && begin - last < 3) ++begin;
          std::size_t to = begin;
          while (to < text.size() && is_letter(text[to])) ++to;
          const std::string country = uppered(text.substr(begin, to - begin));
          const bool lower = !is_in_capitals(text.substr(begin, to - begin));
          const bool known = country == "USA" || country == "FVEY" || country == "NATO" || country == "GBR" || country == "AUS" ||
                             country == "CAN" || country == "NZL" || country == "TO" || country == "ACGU";
          if (!known && (lower || country.size() < 3 || country.size() > 4)) break;
          last = to;
        }
        phrase = uppered(text.substr(at, last - at));
      }
      for (const auto& [abbreviation, full] : canonical) {
        if (phrase == abbreviation) phrase = full;
      }
      called = std::move(phrase);
      return last;
    }
    return at;
  }

  // Controls after a level that ends at `at`: "//SI/TK//NOFORN", " / / SI". The end of what was read; `level` gets what it says. `strict`: nothing that the
  // vocabulary does not know.
  std::size_t read_controls(std::string_view text, std::size_t at, bool strict, bool single_slash, std::string& level) const {
    const bool capitals = !strict && at > 0 && is_upper(text[at - 1]);
    for (int items = 0; items < 24; ++items) {
      std::size_t i = at;
      const auto skip = [&] {
        for (int n = 0; n < 3 && i < text.size() && is_blank(text[i]); ++n) ++i;
      };
      skip();
      if (i >= text.size() || (text[i] != '/' && !(items > 0 && (text[i] == ',' || text[i] == '-')))) break;
      const bool comma = text[i] != '/';
      ++i;
      const std::size_t first = i;
      skip();
      bool doubled = false;
      if (!comma && i < text.size() && text[i] == '/') ++i, doubled = true;
      if (!doubled) i = first;
      if (!doubled && items == 0 && !single_slash) break;
      skip();
      std::string called;
      std::size_t end = read_control(text, i, called);
      if (end < text.size() && end > i && is_word(text[end])) end = i;
      if (end == i && doubled) {
        // Another level: "//GBR SECRET", or a codeword that only its place tells.
        std::size_t to = i;
        while (to < text.size() && (is_upper(text[to]) || is_digit(text[to]) || text[to] == '-') && to - i < 30) ++to;
        if (capitals && to - i >= 2 && is_upper(text[i]) && (to == text.size() || !is_word(text[to]))) {
          called = text.substr(i, to - i);
          end = to;
        }
      }
      if (end == i) break;
      level += doubled || items == 0 ? "//" : "/";
      level += called;
      at = end;
    }
    return at;
  }
};

Markings::Markings() : vocabulary_(std::make_unique<Vocabulary>()) {
  for (std::size_t i = 0; i < marking_controls_count; ++i) vocabulary_->controls.insert(marking_controls[i]);
  for (const char* control : further_controls) vocabulary_->controls.insert(control);
  for (std::size_t i = 0; i < cui_categories_count; ++i) vocabulary_->categories.insert(cui_categories[i]);
}
Markings::~Markings() = default;

std::uint32_t Markings::literals(Literals& automaton, std::uint32_t first) const {
  for (const auto& sign : signs) automaton.add(sign.text, first++);
  return static_cast<std::uint32_t>(std::size(signs));
}

void Markings::look(std::string_view text, std::uint32_t id, std::size_t at, Hits& hits) const {
  const Literal& sign = signs[id];
  const std::size_t end = at + sign.text.size();
  const auto report = [&](std::string_view detector, Span span, std::string level, double confidence, Span reach) {
    hits.push_back({.kind = Spill::marking,
                    .detector = std::string(detector),
                    .span = span,
                    .reach = {std::min(span.begin, reach.begin), std::max(span.end, reach.end)},
                    .level = std::move(level),
                    .confidence = confidence});
  };
  const auto bounded = [&text](std::size_t from, std::size_t to) {
    return (from == 0 || !is_word(text[from - 1])) && (to >= text.size() || !is_word(text[to]));
  };
  const auto with_parentheses = [&text](Span span) {
    if (span.begin > 0 && text[span.begin - 1] == '(' && span.end < text.size() && text[span.end] == ')') --span.begin, ++span.end;
    return span;
  };
  // A level that ends before or at `to`, with its controls behind.
  const auto level_at = [&](std::size_t begin, bool single_slash) {
    for (const auto& level : levels) {
      const std::size_t length = reads(text, begin, level.written);
      if (length == 0 || (begin + length < text.size() && is_word(text[begin + length]))) continue;
      std::string called(level.level);
      const std::size_t stop = vocabulary_->read_controls(text, begin + length, !level.word || !is_in_capitals(text.substr(begin, length)),
                                                          single_slash, called);
      if (stop == begin + length) {
        // "SECRET//" with nothing that is known behind it.
        const bool open = level.word && is_in_capitals(text.substr(begin, length)) && text.substr(stop, 2) == "//" &&
                          (stop + 2 == text.size() || is_space(text[stop + 2]));
        if (!open || (stop + 2 < text.size() && !is_line_break(text[stop + 2]))) return false;
        report("classification_banner", {begin, stop + 2}, called, 0.8, {});
        return true;
      }
      const Span span = with_parentheses({begin, stop});
      const bool cui = called.starts_with("CUI");
      const bool portion = span.begin < begin;
      report(cui ? (portion ? "cui_portion" : "cui_banner") : (portion ? "portion_mark" : "classification_banner"), span, std::move(called),
             0.97, {});
      return true;
    }
    return false;
  };

  switch (sign.sign) {
    case Sign::slashes: {
      std::size_t to = at;
      while (to > 0 && at - to < 3 && is_blank(text[to - 1])) --to;
      std::size_t begin = to;
      while (begin > 0 && to - begin < 14 && is_letter(text[begin - 1])) --begin;
      // A comment behind a letter is no marking: "int c // nf".
      if (to - begin == 1 && is_lower(text[begin]) && (to < at || (end < text.size() && is_blank(text[end])))) return;
      if (begin == to || to - begin >= 14 || (begin > 0 && (is_word(text[begin - 1]) || text[begin - 1] == ':' || text[begin - 1] == '.')))
        return;
      // "TOP SECRET", "NATO SECRET": from the first word on.
      const std::string last = lowered(text.substr(begin, to - begin));
      if (last == "secret" || last == "confidential" || last == "restricted") {
        for (const std::string_view first : {"cosmic top ", "top ", "nato "}) {
          for (std::size_t gap = 0; gap < 4; ++gap) {
            const std::size_t length = first.size() - 1;
            if (begin < length + 1 + gap) continue;
            const std::size_t from = begin - length - 1 - gap;
            if (reads(text, from, uppered(first)) == begin - from && (from == 0 || !is_word(text[from - 1]))) {
              level_at(from, false);
              return;
            }
          }
        }
      }
      level_at(begin, false);
      return;
    }
    case Sign::level_word: {
      // The whole phrase, from "TOP" or "UN" on.
      std::size_t begin = at;
      std::string_view level;
      if (sign.text == "classified") {
        if (at < 2 || !has_at(text, at - 2, "un")) return;
        begin = at - 2;
        level = "UNCLASSIFIED";
      } else if (sign.text == "controlled") {
        level = "CUI";
      } else {
        level = sign.text == "secret" ? "SECRET" : sign.text == "confidential" ? "CONFIDENTIAL" : "RESTRICTED";
        std::size_t i = at;
        while (i > 0 && at - i < 3 && (is_blank(text[i - 1]) || text[i - 1] == '_' || text[i - 1] == '-' || text[i - 1] == '.')) --i;
        if (sign.text == "secret" && i >= 3 && has_at(text, i - 3, "top") && (i == 3 || !is_letter(text[i - 4])))
          begin = i - 3, level = "TOP SECRET";
        if (i < at && i >= 4 && has_at(text, i - 4, "nato") && (i == 4 || !is_letter(text[i - 5]))) {
          begin = i - 4;
          level = sign.text == "secret" ? "NATO SECRET" : sign.text == "confidential" ? "NATO CONFIDENTIAL" : "NATO RESTRICTED";
        }
        if (level == "RESTRICTED") return;  // alone it marks nothing
      }
      if (!bounded(begin, end)) return;
      const std::string_view written = text.substr(begin, end - begin);
      const bool capitals = is_in_capitals(written);
      const bool top = level == "TOP SECRET";
      if (capitals && sign.text != "controlled") {
        // "SECRET NOFORN", "TOP SECRET/SI/NOFORN": written out in capitals, a known control may follow without two slashes.
        if (end < text.size() && text[end] == '/' && level_at(begin, true)) return;
        if (end + 1 < text.size() && is_blank(text[end])) {
          std::string called;
          const std::size_t stop = vocabulary_->read_control(text, end + 1, called);
          if (stop > end + 1 && is_in_capitals(text.substr(end, stop - end)) && bounded(end + 1, stop) && called.size() > 2 &&
              called != "PR") {
            report("classification_banner", {begin, stop}, std::string(level) + "//" + called, 0.9, {});
            return;
          }
        }
      }
      const Line line = line_around(text, begin, end);
      const bool alone = line.whole && line.begin == begin && line.end == end;
      const Span reach{line.begin, line.end};
      double confidence = 0;
      if (alone && capitals) {
        confidence = top || level.starts_with("NATO") ? 0.95
                     : level == "SECRET"              ? 0.8
                     : level == "UNCLASSIFIED"        ? 0.7
                     : level == "CUI"                 ? 0.5
                                                      : 0.6;
      } else if (alone && top) {
        confidence = 0.6;
      } else if (level != "CUI" && follows_label(text, begin)) {
        confidence = 0.85;
      } else if (capitals && level != "CUI" && level != "UNCLASSIFIED") {
        const std::string before = word_before(text, begin);
        if (before == "classified" || before == "marked" || before == "stamped") confidence = 0.8;
        if (top && (before == "is" || before == "are" || before == "as" || before == "level" || before == "at" || before == "at"))
          confidence = 0.7;
      } else if (top && word_before(text, begin) == "classified") {
        confidence = 0.6;
      }
      if (confidence > 0)
        report(level == "CUI" ? "cui_banner" : "classification_banner", {begin, end}, std::string(level), confidence, reach);
      return;
    }
    case Sign::portion: {
      const std::string_view mark = text.substr(at + 1, end - at - 2);
      if (!is_in_capitals(mark)) return;
      // At the start of a paragraph or heading, perhaps after its number or bullet, or after "Subject:"; a sentence follows.
      std::size_t begin = at;
      while (begin > 0 && at - begin < 24 && !is_line_break(text[begin - 1])) --begin;
      if (begin > 0 && !is_line_break(text[begin - 1])) return;
      const std::string before = lowered(text.substr(begin, at - begin));
      const bool numbered =
          std::all_of(before.begin(), before.end(),
                      [](char c) { return is_blank(c) || is_digit(c) || c == '.' || c == '-' || c == '*' || c == '#' || c == '>'; }) ||
          (before.size() <= 5 && before.find('.') != std::string::npos);
      const bool headed = before.find("subject") != std::string::npos || before.find("title") != std::string::npos;
      if (!numbered && !headed) return;
      std::size_t next = end;
      while (next < text.size() && is_blank(text[next])) ++next;
      if (next == end || next >= text.size() || !(is_upper(text[next]) || (mark.size() > 1 && is_letter(text[next])))) return;
      if (mark == "C" || mark == "S") {
        // Copyright lines and lists of choices.
        std::size_t stop = next;
        while (stop < text.size() && stop - next < longest_line && !is_line_break(text[stop])) ++stop;
        const std::string_view rest = text.substr(next, stop - next);
        if (contains(rest, "copyright") || contains(rest, "rights reserved") || contains(rest, " inc") || contains(rest, " ltd") ||
            contains(rest, "llc") || contains(rest, "(c)") || rest.find(' ') == std::string_view::npos) {
          return;
        }
        for (std::size_t i = 0; i + 3 < rest.size(); ++i) {
          if ((rest.substr(i, 2) == "19" || rest.substr(i, 2) == "20") && is_digit(rest[i + 2]) && is_digit(rest[i + 3])) return;
        }
        const std::string_view near = around(text, at, 400, 400);
        for (const std::string_view choice : {"(A)", "(B)", "(D)", "(a)", "(b)", "(d)"}) {
          if (near.find(choice) != std::string_view::npos) return;
        }
      }
      const std::string_view level = mark == "U"    ? "UNCLASSIFIED"
                                     : mark == "C"  ? "CONFIDENTIAL"
                                     : mark == "S"  ? "SECRET"
                                     : mark == "TS" ? "TOP SECRET"
                                                    : mark;
      report(mark == "CUI" ? "cui_portion" : "portion_mark", {at, end},
             mark == "FOUO" || mark == "SBU" ? "UNCLASSIFIED//" + std::string(mark) : std::string(level),
             mark.size() > 1 ? 0.85
             : mark == "U"   ? 0.75
                             : 0.65,
             {begin, next + 1});
      return;
    }
    case Sign::cui: {
      if (!bounded(at, end) || !is_in_capitals(text.substr(at, end - at))) return;
      const Line line = line_around(text, at, end);
      if (line.whole && line.begin == at && line.end == end) report("cui_banner", {at, end}, "CUI", 0.9, {line.begin, line.end});
      return;
    }
    case Sign::legacy: {
      if (!bounded(at, end) || !is_in_capitals(text.substr(at, end - at))) return;
      const Line line = line_around(text, at, end);
      const bool alone = line.whole && line.begin == at && line.end == end;
      const bool enclosed = at > 0 && text[at - 1] == '(' && end < text.size() && text[end] == ')';
      if (sign.text == "sbu" && !alone && !enclosed) return;
      if (at > 0 && (text[at - 1] == '-' || text[at - 1] == '"' || text[at - 1] == '`')) return;  // a name or a mention
      const std::string control = uppered(sign.text);
      const bool unclassified = control == "FOUO" || control == "SBU";
      report("control_marking", {at, end}, unclassified ? "UNCLASSIFIED//" + control : control, alone || enclosed ? 0.9 : 0.6, {});
      return;
    }
    case Sign::legacy_phrase: {
      if (!bounded(at, end)) return;
      const bool capitals = is_in_capitals(text.substr(at, end - at));
      const Line line = line_around(text, at, end);
      const bool alone = line.whole && line.begin == at && line.end == end;
      if (!capitals && !alone) return;
      const std::string control = uppered(sign.text);
      std::string level = control.starts_with("CONTROLLED") ? "CUI" : control == "REL TO USA" ? "REL TO USA" : "UNCLASSIFIED//" + control;
      report("control_marking", {at, end}, std::move(level), capitals ? 0.9 : 0.55, {line.begin, line.end});
      return;
    }
    case Sign::authority: {
      // A line of a classification authority block.
      std::size_t begin = at;
      while (begin > 0 && at - begin < 8 && is_blank(text[begin - 1])) --begin;
      if ((begin > 0 && !is_line_break(text[begin - 1])) || !is_upper(text[at])) return;
      std::size_t stop = end;
      while (stop < text.size() && stop - end < longest_line && !is_line_break(text[stop])) ++stop;
      if (stop - end < 3) return;
      if (sign.text == "derived from:" && !contains(around(text, at, 300, 300), "declassify") &&
          !contains(around(text, at, 300, 300), "classified"))
        return;
      report(sign.text.starts_with("cui") ? "cui_designation" : "classification_authority", {at, stop},
             sign.text.starts_with("cui") ? "CUI" : "", 0.8, {});
      return;
    }
    case Sign::spaced: {
      std::size_t begin = at;
      std::size_t i = at;
      while (i > 0 && at - i < 6 && is_blank(text[i - 1])) --i;
      bool top = false;
      if (i < at && i >= 5 && has_at(text, i - 5, "t o p")) begin = i - 5, top = true;
      if (!bounded(begin, end)) return;
      const std::string_view level = top ? "TOP SECRET" : sign.text[0] == 's' ? "SECRET" : "CONFIDENTIAL";
      report("classification_banner", {begin, end}, std::string(level), 0.8, {});
      return;
    }
  }
}

}  // namespace hearth::safety::argus
