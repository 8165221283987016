#include "safety/argus.h"

#include <algorithm>
#include <cctype>
#include <deque>
#include <iterator>

#include "base/utf8.h"
#include "safety/argus_documents.h"
#include "safety/argus_injection.h"
#include "safety/argus_json.h"
#include "safety/argus_literals.h"
#include "safety/argus_markings.h"
#include "safety/argus_personal.h"
#include "safety/argus_secrets.h"
#include "safety/argus_text.h"

namespace hearth::safety {
namespace {

using namespace argus;

constexpr std::size_t least_hold_back = 64;
constexpr std::size_t longest_held = 64 * 1024;
constexpr std::size_t longest_joined = 16 * 1024;  // beyond it strings are put together in one way only
constexpr std::size_t longest_text = std::size_t{1} << 31;

// What every Argus of the process shares: compiled once, never changed.
struct Detectors {
  Markings markings;
  Secrets secrets;
  Injection injection;
  Literals leaving, arriving;  // the second looks for injection too
  std::uint32_t first_secret = 0, first_injection = 0;

  Detectors() {
    for (Literals* literals : {&leaving, &arriving}) {
      first_secret = markings.literals(*literals, 0);
      first_injection = first_secret + secrets.literals(*literals, first_secret);
    }
    injection.literals(arriving, first_injection);
    leaving.build();
    arriving.build();
  }
};
const Detectors& detectors() {
  static const Detectors shared;
  return shared;
}

int strictness(Spill kind) {
  switch (kind) {
    case Spill::secret: return 5;
    case Spill::marking: return 4;
    case Spill::document: return 3;
    case Spill::personal: return 2;
    case Spill::injection: return 1;
  }
  return 0;
}
bool stricter(const Match& a, const Match& b) {
  if (a.kind != b.kind) return strictness(a.kind) > strictness(b.kind);
  if (a.confidence != b.confidence) return a.confidence > b.confidence;
  return a.end - a.begin > b.end - b.begin;
}

// For people: enough to recognise, not enough to use.
std::string masked(Spill kind, std::string_view text, const std::string& level) {
  const auto clean = [](std::string_view part) {
    std::string out;
    for (const char c : part) out += static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F ? '.' : c;
    return out;
  };
  switch (kind) {
    case Spill::marking: return level.empty() ? clean(text.substr(0, 40)) : level;
    case Spill::document: return std::to_string(text.size()) + " bytes of \"" + level + "\"";
    case Spill::injection: return clean(text.substr(0, 24)) + (text.size() > 24 ? "…" : "");
    case Spill::personal: return text.size() < 8 ? "…" : clean(text.substr(0, 1)) + "…" + clean(text.substr(text.size() - 2));
    case Spill::secret: break;
  }
  return text.size() < 16 ? "…" : clean(text.substr(0, 4)) + "…" + clean(text.substr(text.size() - 2));
}

std::string stand_in(const Match& match) {
  std::string kind(name(match.kind));
  std::transform(kind.begin(), kind.end(), kind.begin(), to_upper);
  return "[" + kind + ":" + match.detector + "]";
}

// In order and without overlaps.
void resolve(std::vector<Match>& matches) {
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) {
    if (a.begin != b.begin) return a.begin < b.begin;
    return stricter(a, b);
  });
  std::vector<Match> kept;
  for (auto& match : matches) {
    if (kept.empty() || match.begin >= kept.back().end) {
      kept.push_back(std::move(match));
      continue;
    }
    Match& last = kept.back();
    const std::size_t begin = last.begin, end = std::max(last.end, match.end);
    if (stricter(match, last)) last = std::move(match);
    last.begin = begin;
    last.end = end;
  }
  matches = std::move(kept);
}

}  // namespace

std::string_view name(Spill spill) {
  switch (spill) {
    case Spill::marking: return "marking";
    case Spill::secret: return "secret";
    case Spill::personal: return "personal";
    case Spill::document: return "document";
    case Spill::injection: return "injection";
  }
  return "";
}

class Argus::Impl {
 public:
  explicit Impl(ArgusOptions chosen) : options(chosen) { detectors(); }

  // What the detectors say about one text.
  void detect(std::string_view text, bool arriving, Hits& hits) const {
    const Detectors& all = detectors();
    Secrets::Progress progress = all.secrets.start();
    Injection::Signs signs;
    const Literals& literals = arriving ? all.arriving : all.leaving;
    literals.scan(text, [&](std::uint32_t id, std::size_t at) {
      if (id >= all.first_injection) {
        all.injection.look(text, id - all.first_injection, at, signs);
      } else if (id >= all.first_secret) {
        if (options.secrets) all.secrets.look(text, id - all.first_secret, at, progress, hits);
      } else if (options.markings) {
        all.markings.look(text, id, at, hits);
      }
    });
    if (options.personal) find_personal(text, hits);
    if (options.documents && !documents.empty()) documents.find(text, options.document_similarity, hits);
    if (arriving) {
      all.injection.look_for_hidden(text, signs);
      if (!signs.empty()) all.injection.judge(text, std::move(signs), hits);
    }
  }

  // Looks at the last of `views` and all that can be unwrapped from it. `found(match, span)` is told of each match, spans those of that view's text.
  template <class Found>
  void search(std::deque<View>& views, bool arriving, const Found& found) const {
    const std::size_t first = views.size() - 1;
    unwrap(views);
    Hits hits;
    for (std::size_t i = first; i < views.size(); ++i) {
      hits.clear();
      detect(views[i].text, arriving, hits);
      for (auto& hit : hits) {
        if (i > first && !views[i].touches(hit.reach.begin, hit.reach.end)) continue;  // the parent has it too
        std::vector<Wrapping> wrappings;
        const Span span = views[i].in_ancestor(hit.span, views[first], wrappings);
        Match match;
        match.kind = hit.kind;
        match.detector = std::move(hit.detector);
        match.shown = masked(hit.kind, views[i].text.substr(hit.span.begin, hit.span.end - hit.span.begin), hit.level);
        match.level = std::move(hit.level);
        match.confidence = std::clamp(hit.confidence, 0.01, 1.0);
        if (span.end > span.begin) found(std::move(match), span, std::move(wrappings));
      }
    }
  }
  static void name_wrappings(const std::vector<Wrapping>& wrappings, Match& match) {
    for (const auto wrapping : wrappings) {
      if (wrapping != Wrapping::structure && (match.decoded.empty() || match.decoded.back() != name(wrapping)))
        match.decoded.push_back(name(wrapping));
    }
  }

  std::vector<Match> scan(std::string_view text, bool arriving) const {
    std::vector<Match> matches;
    std::deque<View> views;
    views.emplace_back().text = text.substr(0, longest_text);
    search(views, arriving, [&](Match match, Span span, const std::vector<Wrapping>& wrappings) {
      match.begin = span.begin;
      match.end = span.end;
      name_wrappings(wrappings, match);
      matches.push_back(std::move(match));
    });
    resolve(matches);
    return matches;
  }

  // Matches in the strings of `document`, read as `json` has them.
  template <class Found>
  void search_json(const View& document, JsonView json, const Found& found) const {
    if (json.view.storage.empty()) return;
    std::deque<View> views;
    views.push_back(std::move(json.view));
    const View& base = views.front();
    views.front().text = base.storage;
    search(views, false, [&](Match match, Span span, std::vector<Wrapping> wrappings) {
      auto place = std::partition_point(json.places.begin(), json.places.end(), [&](const JsonPlace& p) { return p.end <= span.begin; });
      for (; place != json.places.end() && place->begin < span.end; ++place) {
        std::vector<Wrapping> outer;
        const Span part = base.in_ancestor({std::max<std::size_t>(place->begin, span.begin), std::min<std::size_t>(place->end, span.end)},
                                           document, outer);
        if (match.parts.empty()) wrappings.insert(wrappings.begin(), outer.begin(), outer.end());
        if (part.end > part.begin) match.parts.push_back({part.begin, part.end});
      }
      if (match.parts.empty()) return;
      match.begin = match.parts.front().begin;
      match.end = match.parts.back().end;
      for (const auto& part : match.parts) match.begin = std::min(match.begin, part.begin), match.end = std::max(match.end, part.end);
      name_wrappings(wrappings, match);
      found(std::move(match));
    });
  }

  std::vector<Match> scan_json(std::string_view json) const {
    std::vector<JsonString> strings;
    if (json.size() > longest_text || !read_json_strings(json, strings)) return scan(json, false);
    View document;
    document.text = json;
    std::vector<Match> matches;  // of single strings, in the end
    std::vector<Match> joined;   // of several
    search_json(document, json_lines(document, strings), [&](Match match) {
      if (match.parts.size() > 1) return joined.push_back(std::move(match));
      match.parts.clear();
      matches.push_back(std::move(match));
    });
    // A field's name may say what its value is where the text of a line would not: blanks in a password.
    for (std::size_t i = 0; options.secrets && i + 1 < strings.size(); ++i) {
      const auto &key = strings[i], &value = strings[i + 1];
      if (!key.key || value.key || value.number || value.begin == value.end) continue;
      if (!Secrets::is_secret_field(json.substr(key.begin, key.end - key.begin), json.substr(value.begin, value.end - value.begin)))
        continue;
      Match match;
      match.detector = "secret_field";
      match.begin = value.begin;
      match.end = value.end;
      match.shown = masked(Spill::secret, json.substr(value.begin, value.end - value.begin), {});
      match.confidence = 0.8;
      matches.push_back(std::move(match));
    }
    resolve(matches);
    // What is whole only when strings are put together. Names of keys say nothing there, so formats alone count.
    if (strings.size() > 1) {
      const auto join = [&](bool keys, std::size_t run) {
        search_json(document, json_joined(document, strings, keys, run), [&](Match match) {
          if (match.parts.size() < 2 || (match.confidence < 0.6 && match.kind != Spill::document)) return;
          if (match.kind == Spill::personal && match.detector != "iban") return;
          if (match.kind == Spill::marking && match.confidence < 0.85) return;
          if (match.detector == "password" || match.detector == "generic_secret" || match.detector == "connection_string") return;
          joined.push_back(std::move(match));
        });
      };
      const bool has_keys = std::any_of(strings.begin(), strings.end(), [](const JsonString& s) { return s.key; });
      for (const std::size_t run : {0, 2, 3, 4}) {
        if (run > 0 && (json.size() > longest_joined || strings.size() <= run)) continue;
        join(false, run);
        if (has_keys && run < 3) join(true, run);
      }
    }
    std::vector<Match> several;
    for (auto& match : joined) {
      const auto overlaps = [&match](std::size_t begin, std::size_t end) {
        return std::any_of(match.parts.begin(), match.parts.end(),
                           [&](const Match::Part& part) { return part.begin < end && begin < part.end; });
      };
      // Not what a single string has all of, nor what another way of putting them together gave.
      const bool known = std::any_of(matches.begin(), matches.end(),
                                     [&](const Match& other) { return overlaps(other.begin, other.end) && !stricter(match, other); }) ||
                         std::any_of(several.begin(), several.end(), [&](const Match& other) {
                           return std::any_of(other.parts.begin(), other.parts.end(),
                                              [&](const Match::Part& part) { return overlaps(part.begin, part.end); });
                         });
      if (known) continue;
      std::erase_if(matches, [&](const Match& other) {
        return std::any_of(match.parts.begin(), match.parts.end(),
                           [&](const Match::Part& part) { return part.begin <= other.begin && other.end <= part.end; });
      });
      several.push_back(std::move(match));
    }
    std::move(several.begin(), several.end(), std::back_inserter(matches));
    std::sort(matches.begin(), matches.end(),
              [](const Match& a, const Match& b) { return a.begin != b.begin ? a.begin < b.begin : a.end > b.end; });
    return matches;
  }

  ArgusOptions options;
  Documents documents;
};

Argus::Argus(ArgusOptions options) : impl_(std::make_unique<Impl>(options)) {}
Argus::~Argus() = default;
Argus::Argus(Argus&&) noexcept = default;

Result<void> Argus::protect(std::string document_name, std::string_view text) {
  return impl_->documents.protect(std::move(document_name), text);
}

std::vector<Match> Argus::scan(std::string_view text) const { return impl_->scan(text, false); }
std::vector<Match> Argus::scan_json(std::string_view json) const { return impl_->scan_json(json); }
std::vector<Match> Argus::scan_result(std::string_view text) const { return impl_->scan(text, true); }

std::string Argus::redact(std::string_view text, const std::vector<Match>& matches) {
  std::string out;
  std::size_t copied = 0;
  for (const auto& match : matches) {
    if (match.end <= copied || match.begin >= text.size()) continue;
    out.append(text.substr(copied, std::max(match.begin, copied) - copied));
    out += stand_in(match);
    copied = std::min(match.end, text.size());
  }
  out.append(text.substr(copied));
  return out;
}

std::string Argus::redact_json(std::string_view json, const std::vector<Match>& matches) {
  std::vector<JsonString> strings;
  if (!read_json_strings(json, strings)) return redact(json, matches);
  struct Place {
    std::size_t begin, end;
    const Match* match;
  };
  std::vector<Place> places;
  for (const auto& match : matches) {
    if (match.parts.empty()) places.push_back({match.begin, match.end, &match});
    for (const auto& part : match.parts) places.push_back({part.begin, part.end, &match});
  }
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return a.begin != b.begin ? a.begin < b.begin : a.end > b.end; });
  std::string out;
  std::size_t copied = 0, first = 0;
  for (const auto& string : strings) {
    while (first < places.size() && places[first].end <= string.begin) ++first;
    std::size_t at = string.begin;  // of the string, written or replaced so far
    for (std::size_t i = first; i < places.size() && places[i].begin < string.end; ++i) {
      std::size_t begin = std::max(places[i].begin, at), end = std::min(places[i].end, string.end);
      if (end <= begin) continue;
      if (string.number) {
        out.append(json.substr(copied, string.begin - copied));
        out += '"' + stand_in(*places[i].match) + '"';
        copied = at = string.end;
        break;
      }
      // Not within an escape or a character.
      std::size_t unit = at, whole_begin = at, whole_end = string.end;
      while (unit < string.end) {
        std::size_t length = std::max<std::size_t>(utf8_sequence_length(json.substr(unit, 4)), 1);
        if (json[unit] == '\\') length = json[unit + 1] == 'u' ? 6 : 2;
        if (unit <= begin) whole_begin = unit;
        if (unit >= end) {
          whole_end = unit;
          break;
        }
        unit += length;
      }
      out.append(json.substr(copied, whole_begin - copied));
      out += stand_in(*places[i].match);
      copied = at = whole_end;
    }
  }
  out.append(json.substr(copied));
  return out;
}

class Argus::Stream::Impl {
 public:
  Impl(const Argus::Impl& argus, std::size_t hold_back) : argus_(&argus), hold_back_(std::max(hold_back, least_hold_back)) {}

  std::string push(std::string_view piece, bool redacted, std::vector<Match>& found) {
    window_.append(piece);
    const std::size_t step = std::min<std::size_t>(hold_back_ / 4, 256);
    if (window_.size() < std::max(context_ + hold_back_, scanned_) + step) return {};
    return release(window_.size() - hold_back_, redacted, found);
  }
  std::string finish(bool redacted, std::vector<Match>& found) { return release(window_.size(), redacted, found); }

 private:
  // Lets go what stands before `cut` and is settled. The window is what has left, `context_` bytes of it, and what has not.
  std::string release(std::size_t cut, bool redacted, std::vector<Match>& found) {
    auto matches = argus_->scan(window_, false);
    scanned_ = window_.size();
    const bool last = cut == window_.size();
    if (!last) {
      const std::size_t whole = utf8_complete_prefix(std::string_view(window_).substr(0, cut));
      if (whole > context_) cut = whole;
      for (const auto& match : matches) {
        if (match.begin < cut && match.end > cut) cut = match.begin;
      }
      if (window_.size() - context_ > longest_held) cut = std::max(cut, window_.size() - hold_back_);
      if (cut <= context_) return {};
    }
    std::vector<Match> settled;
    for (auto& match : matches) {
      if (match.end <= context_ || match.begin >= cut) continue;
      match.begin = std::max(match.begin, context_);
      match.end = std::min(match.end, cut);
      settled.push_back(std::move(match));
    }
    const std::string_view leaving = std::string_view(window_).substr(context_, cut - context_);
    std::string out;
    for (auto& match : settled) match.begin -= context_, match.end -= context_;
    out = redacted ? redact(leaving, settled) : std::string(leaving);
    for (auto& match : settled) {
      match.begin += left_;
      match.end += left_;
      found.push_back(std::move(match));
    }
    left_ += leaving.size();
    // What has left is kept as context, as much as is held back.
    const std::size_t dropped = cut > hold_back_ ? cut - hold_back_ : 0;
    window_.erase(0, dropped);
    scanned_ -= dropped;
    context_ = cut - dropped;
    return out;
  }

  const Argus::Impl* argus_;
  std::size_t hold_back_;
  std::string window_;
  std::size_t scanned_ = 0;  // bytes of the window when it was last looked at
  std::size_t context_ = 0;  // bytes of the window that have left
  std::size_t left_ = 0;     // bytes that have left in all
};

Argus::Stream::Stream(const Argus& argus, std::size_t hold_back) : impl_(std::make_unique<Impl>(*argus.impl_, hold_back)) {}
Argus::Stream::~Stream() = default;
Argus::Stream::Stream(Stream&&) noexcept = default;
Argus::Stream& Argus::Stream::operator=(Stream&&) noexcept = default;
std::string Argus::Stream::push(std::string_view piece, bool redact, std::vector<Match>& found) {
  return impl_->push(piece, redact, found);
}
std::string Argus::Stream::finish(bool redact, std::vector<Match>& found) { return impl_->finish(redact, found); }

}  // namespace hearth::safety
