#include "safety/policy_match.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/json.h"

namespace hearth::safety {
namespace {

constexpr std::string_view unknown_part = "\xEF\xBF\xBD";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

Truth best(Truth a, Truth b) { return std::max(a, b); }
Truth as_truth(bool value) { return value ? Truth::yes : Truth::no; }

bool compared(Compare compare, double a, double b) {
  switch (compare) {
    case Compare::less: return a < b;
    case Compare::at_most: return a <= b;
    case Compare::equal: return a == b;
    case Compare::at_least: return a >= b;
    case Compare::more: return a > b;
  }
  return false;
}

using Address = std::array<unsigned char, 16>;  // IPv4 as ::ffff:a.b.c.d

// Also in the ways only resolvers know: 0x7f000001, 2130706433, 0177.1.
std::optional<Address> address_of(std::string_view host) {
  std::string text(host);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  Address out{};
  if (inet_pton(AF_INET6, text.c_str(), out.data()) == 1) return out;
  in_addr four{};
  if (text.empty() || text.find_first_not_of("0123456789abcdefxABCDEFX.") != std::string::npos || inet_aton(text.c_str(), &four) == 0)
    return {};
  out[10] = out[11] = 0xff;
  std::memcpy(out.data() + 12, &four, 4);
  return out;
}
bool in_network(const Address& address, std::string_view network) {
  const auto slash = network.find('/');
  const auto base = address_of(network.substr(0, slash));
  if (!base) return false;
  int width = 0;
  std::from_chars(network.data() + slash + 1, network.data() + network.size(), width);
  if (network.find(':') == std::string_view::npos) width += 96;
  for (int i = 0; i < 16; ++i) {
    const int left = width - 8 * i;
    if (left <= 0) return true;
    const int mask = left >= 8 ? 0xff : (0xff00 >> left) & 0xff;
    if (((address[static_cast<std::size_t>(i)] ^ (*base)[static_cast<std::size_t>(i)]) & mask) != 0) return false;
  }
  return true;
}

bool any_network(const Address& address, std::initializer_list<std::string_view> networks) {
  return std::any_of(networks.begin(), networks.end(), [&](auto network) { return in_network(address, network); });
}
bool is_loopback(std::string_view host) {
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  const auto address = address_of(host);
  return address && any_network(*address, {"127.0.0.0/8", "::1/128", "0.0.0.0/32", "::/128"});
}
bool is_metadata(std::string_view host) {
  if (host == "metadata" || host == "metadata.google.internal" || host == "instance-data" || host.ends_with(".metadata.google.internal"))
    return true;
  const auto address = address_of(host);
  return address &&
         any_network(*address, {"169.254.169.254/32", "169.254.170.2/32", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32"});
}
bool is_private(std::string_view host) {
  if (is_loopback(host)) return true;
  const auto address = address_of(host);
  if (address)
    return any_network(*address,
                       {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"});
  return host.find('.') == std::string_view::npos || host.ends_with(".local") || host.ends_with(".internal") || host.ends_with(".lan") ||
         host.ends_with(".home.arpa");
}

void flatten(const json::value& value, const std::string& name, std::vector<std::pair<std::string, std::string>>& out) {
  if (value.is_object()) {
    for (const auto& member : value.get_object()) {
      const std::string key = plain_name({member.key().data(), member.key().size()});
      flatten(member.value(), name.empty() ? key : fmt::format("{}.{}", name, key), out);
    }
  } else if (value.is_array()) {
    for (const auto& item : value.get_array()) flatten(item, name, out);
  } else if (value.is_string()) {
    out.emplace_back(name, std::string(value.get_string().data(), value.get_string().size()));
  } else {
    std::string text;
    append_json(text, value);
    out.emplace_back(name, std::move(text));
  }
}

bool contains(std::string_view text, std::string_view part) {
  return std::search(text.begin(), text.end(), part.begin(), part.end(), [](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

}  // namespace

bool wildcard(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || lower(pattern[p]) == lower(text[t]))) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool host_matches(std::string_view pattern, std::string_view host, const Surroundings& where) {
  if (pattern == ":private") return is_private(host);
  if (pattern == ":public") return !is_private(host);
  if (pattern == ":loopback") return is_loopback(host);
  if (pattern == ":metadata") return is_metadata(host);
  if (pattern == ":trusted")
    return std::any_of(where.trusted_hosts.begin(), where.trusted_hosts.end(), [host](const auto& one) { return wildcard(one, host); });
  if (pattern.find('/') != std::string_view::npos) {
    const auto address = address_of(host);
    return address && in_network(*address, pattern);
  }
  if (const auto address = address_of(host)) {
    if (const auto other = address_of(pattern)) return *address == *other;
  }
  return wildcard(pattern, host);
}

std::string host_of(const Observation& observation) {
  switch (observation.effect) {
    case Effect::fetch:
    case Effect::send:
    case Effect::exfiltration:
    case Effect::remote_code:
    case Effect::supply_chain:
    case Effect::install:
    case Effect::query:
    case Effect::change:
    case Effect::credential_access: break;
    default: return {};
  }
  std::string_view text = observation.target;
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) {
    text = text.substr(scheme + 3);
  } else if (text.empty() || text[0] == '/' || text[0] == '.' || text[0] == '~') {
    return {};
  }
  text = text.substr(0, text.find_first_of("/?#"));
  if (const auto at = text.rfind('@'); at != std::string_view::npos) text = text.substr(at + 1);
  if (text.starts_with('[')) {
    text = text.substr(1, text.find(']') == std::string_view::npos ? text.size() : text.find(']') - 1);
  } else if (const auto colon = text.find(':'); colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    text = text.substr(0, colon);
  }
  while (text.ends_with('.')) text.remove_suffix(1);
  return lowered(text);
}

void Evaluation::look_at(const Observation* observation) {
  observation_ = observation;
  host_.reset();
  place_.reset();
  command_.reset();
}

// What is not known of the subject may be what the pattern wants.
Truth Evaluation::text(const std::vector<std::string>& patterns, std::string_view subject) const {
  Truth out = Truth::no;
  for (const auto& pattern : patterns) {
    if (wildcard(pattern, subject)) return Truth::yes;
  }
  if (subject.find(unknown_part) != std::string_view::npos || subject.find("…") != std::string_view::npos) {
    for (const auto& pattern : patterns) {
      // Up to the unknown part they must agree.
      const auto known = std::min(subject.find(unknown_part), subject.find("…"));
      const auto fixed = pattern.find_first_of("*?");
      const auto n = std::min(known, fixed == std::string::npos ? pattern.size() : fixed);
      if (wildcard(std::string_view(pattern).substr(0, n), subject.substr(0, n))) out = Truth::maybe;
    }
  }
  return out;
}

Truth Evaluation::path(const Condition& condition) {
  const std::string_view target = observation_->target;
  if (target.empty()) return Truth::no;
  const auto& where = in_.action->where;
  const bool rooted = target[0] == '/' || target.starts_with("./") || target == ".";
  if (!rooted) return Truth::no;
  if (target.starts_with("/?")) return Truth::maybe;  // somewhere outside of an unknown folder
  const bool open = !observation_->certain || has_glob(target);
  Truth out = Truth::no;
  for (const auto& pattern : condition.texts) {
    std::string whole = pattern;
    if (pattern == "~" || pattern.starts_with("~/")) {
      whole = where.home + pattern.substr(1);
    } else if (pattern[0] != '/' && !pattern.starts_with("**")) {
      const std::string inside = pattern.starts_with("./") ? pattern.substr(2) : pattern;
      whole = (where.working_folder.empty() ? std::string(".") : where.working_folder) + "/" + inside;
    }
    if (glob_match(whole, target)) return Truth::yes;
    // "/srv/data/**" also means the folder itself.
    if (whole.ends_with("/**") && glob_match(std::string_view(whole).substr(0, whole.size() - 3), target)) return Truth::yes;
    if (open && globs_intersect(whole, target)) out = Truth::maybe;
  }
  return out;
}

Truth Evaluation::spill(const Condition& condition) const {
  if (in_.spills == nullptr) return Truth::no;
  for (const auto& match : *in_.spills) {
    if ((condition.bits >> static_cast<unsigned>(match.kind) & 1) == 0 || match.confidence < condition.number) continue;
    if (!condition.texts.empty() &&
        std::none_of(condition.texts.begin(), condition.texts.end(), [&](const auto& one) { return wildcard(one, match.detector); }))
      continue;
    if (!condition.texts2.empty() && !compared(condition.compare, static_cast<double>(rank_of(match.level, doc_.levels)),
                                               static_cast<double>(rank_of(condition.texts2[0], doc_.levels))))
      continue;
    return Truth::yes;
  }
  return Truth::no;
}

Truth Evaluation::argument(const Condition& condition) {
  if (!arguments_) {
    arguments_.emplace();
    if (const auto parsed = parse_json(in_.action->call.arguments); parsed.ok()) flatten(*parsed, "", *arguments_);
  }
  for (const auto& [name, value] : *arguments_) {
    const auto own = std::string_view(name).substr(name.rfind('.') + 1);  // of a nested one
    const auto named = [&](const auto& one) { return wildcard(one, name) || wildcard(one, own); };
    if (std::none_of(condition.texts2.begin(), condition.texts2.end(), named)) continue;
    switch (condition.match) {
      case Condition::Text::glob:
        if (std::any_of(condition.texts.begin(), condition.texts.end(), [&](const auto& one) { return wildcard(one, value); }))
          return Truth::yes;
        break;
      case Condition::Text::contains:
        if (std::any_of(condition.texts.begin(), condition.texts.end(), [&](const auto& one) { return contains(value, one); }))
          return Truth::yes;
        break;
      case Condition::Text::pattern:
        if (std::any_of(condition.patterns.begin(), condition.patterns.end(),
                        [&](auto index) { return RE2::PartialMatch(value, *doc_.patterns[index]); }))
          return Truth::yes;
        break;
    }
  }
  return Truth::no;
}

Truth Evaluation::holds(const Condition& condition) {
  using Kind = Condition::Kind;
  const Action& action = *in_.action;
  switch (condition.kind) {
    case Kind::all: {
      Truth out = Truth::yes;
      for (const auto& part : condition.parts) {
        out = std::min(out, holds(part));
        if (out == Truth::no) break;
      }
      return out;
    }
    case Kind::any: {
      Truth out = Truth::no;
      for (const auto& part : condition.parts) {
        out = best(out, holds(part));
        if (out == Truth::yes) break;
      }
      return out;
    }
    case Kind::negation: return static_cast<Truth>(2 - static_cast<int>(holds(condition.parts[0])));
    case Kind::named: return holds(doc_.definitions[condition.index].condition);
    case Kind::always: return Truth::yes;
    case Kind::tool: {
      if (in_.direction != Direction::argument) return Truth::no;
      const std::string whole = plain_name(action.call.name), own = plain_name(own_name(action.call.name));
      return as_truth(std::any_of(condition.texts.begin(), condition.texts.end(),
                                  [&](const auto& one) { return wildcard(one, whole) || wildcard(one, own); }));
    }
    case Kind::effect: return as_truth(observation_ != nullptr && (condition.bits >> static_cast<unsigned>(observation_->effect) & 1) != 0);
    case Kind::certain: return as_truth(observation_ != nullptr && observation_->certain);
    case Kind::path: return observation_ == nullptr ? Truth::no : path(condition);
    case Kind::place: {
      if (observation_ == nullptr || observation_->target.empty()) return Truth::no;
      const char first = observation_->target[0];
      if (first != '/' && first != '.') return Truth::no;
      if (!place_) place_ = place_of(observation_->target, action.where);
      return as_truth((condition.bits >> static_cast<unsigned>(*place_) & 1) != 0);
    }
    case Kind::program:
      return observation_ == nullptr || observation_->program.empty() ? Truth::no : text(condition.texts, observation_->program);
    case Kind::command: {
      if (observation_ == nullptr) return Truth::no;
      if (!command_) {
        command_.emplace();
        for (const char c : observation_->excerpt) {
          const bool space = c == ' ' || c == '\t' || c == '\n';
          if (!space) {
            *command_ += c;
          } else if (!command_->empty() && command_->back() != ' ') {
            *command_ += ' ';
          }
        }
        while (command_->ends_with(' ')) command_->pop_back();
        if (observation_->excerpt.size() >= 196 && !command_->ends_with("…")) *command_ += "…";  // may have been cut
      }
      const Truth out = text(condition.texts, *command_);
      return out == Truth::yes && command_->ends_with("…") ? Truth::maybe : out;
    }
    case Kind::argument: return in_.direction == Direction::argument ? argument(condition) : Truth::no;
    case Kind::host: {
      if (observation_ == nullptr) return Truth::no;
      if (!host_) host_ = host_of(*observation_);
      if (host_->empty()) return Truth::no;
      if (host_->find(unknown_part) != std::string::npos || host_->find_first_of("*$?") != std::string::npos) return Truth::maybe;
      return as_truth(std::any_of(condition.texts.begin(), condition.texts.end(),
                                  [&](const auto& one) { return host_matches(one, *host_, action.where); }));
    }
    case Kind::tenant:
      return as_truth(
          std::any_of(condition.texts.begin(), condition.texts.end(), [&](const auto& one) { return wildcard(one, action.tenant); }));
    case Kind::model:
      return as_truth(
          std::any_of(condition.texts.begin(), condition.texts.end(), [&](const auto& one) { return wildcard(one, action.model); }));
    case Kind::remote: return as_truth(action.remote_model);
    case Kind::classification:
      return as_truth(compared(condition.compare, static_cast<double>(rank_of(action.classification, doc_.levels)),
                               static_cast<double>(rank_of(condition.texts[0], doc_.levels))));
    case Kind::spill: return spill(condition);
    case Kind::direction: return as_truth((condition.bits >> static_cast<unsigned>(in_.direction) & 1) != 0);
    case Kind::time: {
      const int now = in_.minute_of_day;
      return as_truth(condition.from < condition.to ? now >= condition.from && now < condition.to
                                                    : now >= condition.from || now < condition.to);
    }
    case Kind::day: return as_truth((condition.bits >> in_.day_of_week & 1) != 0);
    case Kind::trajectory: return as_truth(compared(condition.compare, in_.trajectory_score, condition.number));
    case Kind::guard: return as_truth(compared(condition.compare, in_.guard_probability, condition.number));
    case Kind::tainted: return as_truth(action.tainted);
  }
  return Truth::no;
}

Reach reach_of(const Condition& condition, const Document& document) {
  using Kind = Condition::Kind;
  constexpr std::uint32_t everything = all_effects | without_observation;
  switch (condition.kind) {
    case Kind::all:
    case Kind::any: {
      const bool all = condition.kind == Kind::all;
      Reach out{.effects = all ? everything : 0, .needs_spill = !all};
      for (const auto& part : condition.parts) {
        const Reach one = reach_of(part, document);
        out.effects = all ? out.effects & one.effects : out.effects | one.effects;
        out.observes = out.observes || one.observes;
        out.needs_spill = all ? out.needs_spill || one.needs_spill : out.needs_spill && one.needs_spill;
        out.asks_uncertain = out.asks_uncertain || one.asks_uncertain;
        out.flows = out.flows || one.flows;
      }
      return out;
    }
    case Kind::negation: {
      const auto& part = condition.parts[0];
      const Reach inner = reach_of(part, document);
      Reach out{.effects = everything, .observes = inner.observes};
      if (part.kind == Kind::effect) out.effects = everything & ~inner.effects;
      out.asks_uncertain = part.kind == Kind::certain;
      out.flows = inner.flows;
      return out;
    }
    case Kind::named: return reach_of(document.definitions[condition.index].condition, document);
    case Kind::effect: return {.effects = condition.bits, .observes = true};
    case Kind::certain:
    case Kind::path:
    case Kind::place:
    case Kind::program:
    case Kind::command: return {.effects = all_effects, .observes = true};
    case Kind::host: {
      std::uint32_t bits = 0;
      for (const auto effect : {Effect::fetch, Effect::send, Effect::exfiltration, Effect::remote_code, Effect::supply_chain,
                                Effect::install, Effect::query, Effect::change, Effect::credential_access})
        bits |= 1U << static_cast<unsigned>(effect);
      return {.effects = bits, .observes = true};
    }
    case Kind::spill: return {.effects = everything, .needs_spill = true, .flows = true};
    // Results and text have no observations.
    case Kind::direction: return {.effects = (condition.bits & 1) != 0 ? everything : without_observation, .flows = true};
    default: return {.effects = everything};
  }
}

}  // namespace hearth::safety
