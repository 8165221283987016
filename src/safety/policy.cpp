#include "safety/policy.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "safety/policy_match.h"
#include "safety/policy_syntax.h"

// The shipped file is part of the program, as read-only data.
asm(".section .rodata.hearth_policy,\"a\",@progbits\n"
    ".global hearth_policy_begin\n"
    "hearth_policy_begin:\n"
    ".incbin \"" HEARTH_POLICY
    "\"\n"
    ".global hearth_policy_end\n"
    "hearth_policy_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" {
extern const char hearth_policy_begin[];
extern const char hearth_policy_end[];
}

namespace hearth::safety {
namespace {

constexpr std::size_t longest_excerpt = 200;

// Only policies whose rules speak of spills need it, for their examples.
const Argus& example_argus() {
  static const Argus argus;
  return argus;
}

void shorten(std::string& text) {
  if (text.size() > longest_excerpt) text.resize(utf8_complete_prefix(std::string_view(text).substr(0, longest_excerpt)));
}

// Text of a JSON document between two bytes as a reader sees it: escapes undone where that is simple.
std::string unescaped(std::string_view text) {
  const auto parsed = parse_json("\"" + std::string(text) + "\"");
  return parsed.ok() && parsed->is_string() ? std::string(parsed->get_string().data(), parsed->get_string().size()) : std::string(text);
}

}  // namespace

class Policy::Impl {
 public:
  Document doc;
  ToolTable table;
  std::vector<RuleInfo> infos;
  std::vector<Reach> reaches;
  std::array<std::vector<std::uint32_t>, effect_count + 1> by_effect;  // rules that may hold for an observation of it; last: without any
  std::vector<std::uint32_t> once;                                     // rules about the call as a whole

  explicit Impl(Document document) : doc(std::move(document)) {
    for (const auto& tool : doc.tools) table.add(tool);
    for (std::uint32_t i = 0; i < doc.rules.size(); ++i) {
      const auto& rule = doc.rules[i];
      infos.push_back({.name = rule.name, .decision = rule.decision, .reason = rule.reason, .line = rule.at.line, .shipped = rule.shipped});
      reaches.push_back(reach_of(rule.when, doc));
      const Reach& reach = reaches.back();
      if (!reach.observes) {
        once.push_back(i);
        if (rule.lifts == 0) continue;  // an ALLOW that lifts is asked for each observation
      }
      for (std::size_t e = 0; e <= effect_count; ++e) {
        if ((reach.effects >> e & 1) != 0) by_effect[e].push_back(i);
      }
    }
  }

  struct Held {
    std::uint32_t rule;
    const Observation* observation;
    Truth truth;
  };
  struct Evaluated {
    std::vector<Held> held;             // each rule once, with what it holds for first and surest
    std::vector<std::uint32_t> lifted;  // for each observation: effects whose gate an ALLOW rule stands instead of
  };

  Evaluated evaluate(const PolicyInput& input) const {
    Evaluated out;
    static const std::vector<Observation> none;
    const auto& observations = input.assessment != nullptr ? input.assessment->observations : none;
    out.lifted.assign(observations.size(), 0);
    std::vector<std::int32_t> index(doc.rules.size(), -1);  // into held
    Evaluation evaluation(doc, input);
    const bool spilled = input.spills != nullptr && !input.spills->empty();
    const auto ask = [&](std::uint32_t i, const Observation* observation, std::size_t which) {
      const auto& rule = doc.rules[i];
      const auto& reach = reaches[i];
      if ((reach.needs_spill && !spilled) || (!reach.flows && input.direction != Direction::argument)) return;
      const bool lifts = rule.lifts != 0 && observation != nullptr;
      if (index[i] >= 0 && out.held[static_cast<std::size_t>(index[i])].truth == Truth::yes && !lifts) return;
      const Truth truth = evaluation.holds(rule.when);
      if (truth == Truth::no || (truth == Truth::maybe && rule.decision == Decision::allow)) return;
      if (lifts && (observation->certain || reach.asks_uncertain)) out.lifted[which] |= rule.lifts;
      if (index[i] < 0) {
        index[i] = static_cast<std::int32_t>(out.held.size());
        out.held.push_back({i, reach.observes ? observation : nullptr, truth});
      } else if (out.held[static_cast<std::size_t>(index[i])].truth < truth) {
        out.held[static_cast<std::size_t>(index[i])] = {i, reach.observes ? observation : nullptr, truth};
      }
    };
    evaluation.look_at(observations.empty() ? nullptr : &observations.front());
    for (const auto i : once) ask(i, nullptr, 0);
    for (std::size_t o = 0; o < observations.size(); ++o) {
      evaluation.look_at(&observations[o]);
      for (const auto i : by_effect[static_cast<std::size_t>(observations[o].effect)]) ask(i, &observations[o], o);
    }
    if (observations.empty()) {
      evaluation.look_at(nullptr);
      for (const auto i : by_effect[effect_count]) ask(i, nullptr, 0);
    }
    return out;
  }

  // Nothing that argus found stands in an explanation in clear.
  static std::string masked(std::string text, const PolicyInput& input) {
    shorten(text);
    if (input.spills == nullptr || input.action == nullptr) return text;
    const std::string_view arguments = input.action->call.arguments;
    for (const auto& match : *input.spills) {
      if (match.kind == Spill::injection) continue;
      std::vector<Match::Part> parts = match.parts;
      if (parts.empty()) parts.push_back({match.begin, match.end});
      for (const auto& part : parts) {
        if (input.direction != Direction::argument || part.begin >= part.end || part.end > arguments.size()) continue;
        const auto raw = arguments.substr(part.begin, part.end - part.begin);
        for (const std::string& secret : {std::string(raw), unescaped(raw)}) {
          if (secret.size() < 4) continue;
          for (std::size_t at = 0; (at = text.find(secret, at)) != std::string::npos;) {
            text.replace(at, secret.size(), match.shown);
            at += match.shown.size();
          }
          // The excerpt may have been cut within the secret.
          for (std::size_t n = std::min(secret.size(), text.size()); n >= 4; --n) {
            if (std::string_view(text).ends_with(std::string_view(secret).substr(0, n))) {
              text.replace(text.size() - n, n, match.shown);
              break;
            }
          }
        }
      }
    }
    return text;
  }

  void judge(const PolicyInput& input, Verdict& verdict) const {
    if (input.assessment != nullptr) {
      const auto& assessment = *input.assessment;
      if (!assessment.problem.empty())
        verdict.add({.decision = Decision::deny,
                     .layer = Layer::gate,
                     .rule = "unreadable",
                     .reason = masked(assessment.problem, input),
                     .remedy = "send the call again, well-formed"});
      if (assessment.problem.empty() && assessment.observations.empty())
        verdict.add({.decision = Decision::deny,
                     .layer = Layer::gate,
                     .rule = "unreadable",
                     .reason = "nothing can be told of what this call does"});
    }
    const Evaluated result = evaluate(input);
    if (input.assessment != nullptr) {
      std::array<Decision, effect_count> said{};
      for (std::size_t o = 0; o < result.lifted.size(); ++o) {
        const auto& observation = input.assessment->observations[o];
        const auto effect = static_cast<std::size_t>(observation.effect);
        const auto& gate = doc.gates[effect];
        const Decision decision = observation.certain ? gate.certain : gate.uncertain;
        if (decision <= said[effect] || (result.lifted[o] >> effect & 1) != 0) continue;
        said[effect] = decision;
        verdict.add({.decision = decision,
                     .layer = Layer::gate,
                     .rule = std::string(name(observation.effect)),
                     .reason = masked(observation.reason, input),
                     .excerpt = masked(observation.excerpt, input)});
      }
    }
    for (const auto& held : result.held) {
      const auto& rule = doc.rules[held.rule];
      verdict.redact = verdict.redact || rule.redact;
      if (rule.decision == Decision::allow) continue;
      std::string excerpt;
      if (held.observation != nullptr) {
        excerpt = masked(held.observation->excerpt, input);
      } else if (reaches[held.rule].needs_spill) {
        for (const auto& match : *input.spills)
          excerpt += (excerpt.empty() ? "" : ", ") + fmt::format("{}: {}", match.detector, match.shown);
        shorten(excerpt);
      }
      verdict.add({.decision = rule.decision,
                   .layer = Layer::policy,
                   .rule = rule.name,
                   .reason = rule.reason,
                   .excerpt = std::move(excerpt),
                   .remedy = rule.remedy});
    }
  }

  // -- Examples

  struct Outcome {
    Verdict verdict;
    Assessment assessment;
    std::vector<std::string> rules;  // that hold
  };
  Outcome run(const Example& example, const Policy& policy) const {
    Action action;
    action.where = example_surroundings();
    if (!example.folder.empty()) action.where.working_folder = example.folder;
    policy.complete(action.where);
    action.tenant = example.tenant;
    action.model = example.model;
    action.remote_model = example.remote;
    action.classification = example.classification;
    action.tainted = example.tainted;
    Outcome out;
    PolicyInput input{.action = &action,
                      .trajectory_score = example.trajectory,
                      .guard_probability = example.guard,
                      .minute_of_day = example.minute,
                      .day_of_week = example.day};
    const bool scans = std::any_of(reaches.begin(), reaches.end(), [](const Reach& reach) { return reach.flows; });
    std::vector<Match> spills;
    if (example.kind == Example::Kind::command || example.kind == Example::Kind::call) {
      action.call.name = example.kind == Example::Kind::call ? example.tool : "bash";
      action.call.description = example.description;
      if (example.kind == Example::Kind::call) {
        action.call.arguments = example.content;
      } else {
        action.call.arguments = "{\"command\":";
        append_json_string(action.call.arguments, example.content);
        action.call.arguments += "}";
      }
      out.assessment = assess_call(action, table);
      input.assessment = &out.assessment;
      if (scans) spills = example_argus().scan_json(action.call.arguments);
    } else {
      input.direction = example.kind == Example::Kind::result ? Direction::result : Direction::text;
      spills = example.kind == Example::Kind::result ? example_argus().scan_result(example.content) : example_argus().scan(example.content);
    }
    input.spills = &spills;
    judge(input, out.verdict);
    for (const auto& held : evaluate(input).held) out.rules.push_back(doc.rules[held.rule].name);
    return out;
  }
  static std::string seen(const Outcome& outcome) {
    if (!outcome.assessment.problem.empty()) return outcome.assessment.problem;
    std::string out;
    for (const auto& observation : outcome.assessment.observations) {
      if (out.size() > 300) {
        out += ", …";
        break;
      }
      out += fmt::format("{}{}{}{}", out.empty() ? "" : ", ", name(observation.effect),
                         observation.target.empty() ? "" : " " + observation.target, observation.certain ? "" : " (perhaps)");
    }
    return out.empty() ? "nothing" : out;
  }
  // Why the example of `rule` is wrong; empty when it is right.
  std::string check(const Rule& rule, const Example& example, const Policy& policy) const {
    const Outcome outcome = run(example, policy);
    const bool holds = std::find(outcome.rules.begin(), outcome.rules.end(), rule.name) != outcome.rules.end();
    if (example.matches && !holds)
      return fmt::format("the rule \"{}\" does not hold for {}; what is seen there: {}", rule.name, example.shown, seen(outcome));
    if (!example.matches && holds)
      return fmt::format("the rule \"{}\" holds for {}; what is seen there: {}", rule.name, example.shown, seen(outcome));
    if (example.matches && rule.decision == Decision::allow && outcome.verdict.decision > Decision::audit) {
      const auto& finding = *outcome.verdict.decisive();
      return fmt::format("the rule \"{}\" promises to let {} pass, but {} \"{}\" says {}: {}", rule.name, example.shown,
                         name(finding.layer), finding.rule, name(finding.decision), finding.reason);
    }
    return {};
  }

  // What can be seen only of the whole document.
  void check_document() const {
    for (const auto& one : doc.definitions) {
      if (!one.used && !one.shipped) throw PolicyMistake{one.at, fmt::format("\"{}\" is defined and never used", one.name)};
    }
    std::map<std::string, const Rule*> conditions;
    for (std::size_t i = 0; i < doc.rules.size(); ++i) {
      const auto& rule = doc.rules[i];
      const auto& reach = reaches[i];
      if (reach.effects == 0)
        throw PolicyMistake{
            rule.when_at,
            fmt::format("the rule \"{}\" can never hold: nothing that a call does has all of these effects at once", rule.name)};
      if ((reach.effects & all_effects) == 0 && reach.observes)
        throw PolicyMistake{
            rule.when_at,
            fmt::format("the rule \"{}\" can never hold: results and text do nothing, so they have no effect, path, program or host",
                        rule.name)};
      if (rule.lifts != 0 && (reach.effects & rule.lifts) == 0)
        throw PolicyMistake{
            rule.at,
            fmt::format("the rule \"{}\" lifts nothing: its condition never holds for the effects it stands instead of", rule.name)};
      for (std::size_t e = 0; e < effect_count; ++e) {
        if ((rule.lifts >> e & 1) != 0 && doc.gates[e].certain == Decision::allow && doc.gates[e].uncertain == Decision::allow)
          throw PolicyMistake{rule.at, fmt::format("the rule \"{}\" stands instead of the gate of {}, which lets everything pass anyway",
                                                   rule.name, name(static_cast<Effect>(e)))};
      }
      const auto [other, fresh] = conditions.emplace(rule.condition_text, &rule);
      if (!fresh && other->second->decision >= rule.decision && rule.decision != Decision::allow && rule.shipped == other->second->shipped)
        throw PolicyMistake{rule.at, fmt::format("the rule \"{}\" is never needed: \"{}\" in line {} says {} under the same condition",
                                                 rule.name, other->second->name, other->second->at.line, name(other->second->decision))};
    }
  }
};

Policy::Policy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Policy::Policy(Policy&&) noexcept = default;
Policy& Policy::operator=(Policy&&) noexcept = default;
Policy::~Policy() = default;

std::string_view Policy::shipped_text() { return {hearth_policy_begin, static_cast<std::size_t>(hearth_policy_end - hearth_policy_begin)}; }

const Policy& Policy::shipped() {
  // Its examples are proven by the tests, so they are not run again at each start.
  static const Policy policy = [] {
    auto document = read_policy(shipped_text(), "policy.hearth");
    if (!document.ok()) std::abort();  // only a bug in hearth can cause it, and without rules nothing may run
    return Policy(std::make_unique<Impl>(std::move(*document)));
  }();
  return policy;
}

Result<Policy> Policy::parse(std::string_view text, std::string_view name, bool check_examples) {
  auto document = read_policy(text, name);
  if (!document.ok()) return document.error();
  Policy policy(std::make_unique<Impl>(std::move(*document)));
  try {
    policy.impl_->check_document();
  } catch (const PolicyMistake& wrong) { return mistake(name, wrong.at, wrong.message); }
  if (!check_examples) return policy;
  const bool own = text.data() == shipped_text().data();
  for (const auto& rule : policy.impl_->doc.rules) {
    // Shipped rules keep their examples' promises only as long as nobody changes the gates under them.
    if (rule.shipped && !own) continue;
    for (const auto& example : rule.examples) {
      if (const auto wrong = policy.impl_->check(rule, example, policy); !wrong.empty()) return mistake(name, example.at, wrong);
    }
  }
  return policy;
}

void Policy::judge(const PolicyInput& input, Verdict& verdict) const { impl_->judge(input, verdict); }

namespace {
Decision by_threshold(const std::vector<Threshold>& list, double value) {
  Decision out = Decision::allow;
  for (const auto& one : list) {
    if (!(value < one.from)) out = one.decision;  // not a number counts as the worst
  }
  return out;
}
}  // namespace
Decision Policy::guard_decision(double probability) const { return by_threshold(impl_->doc.guard, probability); }
Decision Policy::trajectory_decision(double score) const { return by_threshold(impl_->doc.trajectory, score); }

const ToolTable& Policy::tools() const { return impl_->table; }

void Policy::complete(Surroundings& where) const {
  const auto canonical = [&where](const std::string& path) { return path.starts_with("**") ? path : canonical_path(path, where); };
  for (const auto& path : impl_->doc.writable) where.writable_roots.push_back(canonical(path));
  for (const auto& path : impl_->doc.protect) where.protected_paths.push_back(canonical(path));
  where.trusted_hosts.insert(where.trusted_hosts.end(), impl_->doc.trusted.begin(), impl_->doc.trusted.end());
}

const std::vector<Policy::RuleInfo>& Policy::rules() const { return impl_->infos; }

Decision Policy::gate(Effect effect, bool certain) const {
  const auto& gate = impl_->doc.gates[static_cast<std::size_t>(effect)];
  return certain ? gate.certain : gate.uncertain;
}

std::vector<Policy::Holding> Policy::holding(const PolicyInput& input) const {
  auto held = impl_->evaluate(input).held;
  std::sort(held.begin(), held.end(), [](const auto& a, const auto& b) { return a.rule < b.rule; });
  std::vector<Holding> out;
  for (const auto& one : held)
    out.push_back({.rule = &impl_->infos[one.rule], .observation = one.observation, .surely = one.truth == Truth::yes});
  return out;
}

std::vector<Policy::CaseResult> Policy::run_examples() const {
  std::vector<CaseResult> out;
  for (const auto& rule : impl_->doc.rules) {
    for (const auto& example : rule.examples) {
      auto wrong = impl_->check(rule, example, *this);
      out.push_back({.line = example.at.line,
                     .passed = wrong.empty(),
                     .text = fmt::format("{}: {} {}", rule.name, example.matches ? "match" : "not_match", example.shown),
                     .problem = std::move(wrong)});
    }
  }
  return out;
}

Result<std::vector<Policy::CaseResult>> Policy::run_cases(std::string_view text, std::string_view name) const {
  const auto cases = read_cases(text, name, impl_->doc);
  if (!cases.ok()) return cases.error();
  std::vector<CaseResult> out;
  for (const auto& one : *cases) {
    const auto outcome = impl_->run(one.example, *this);
    const Decision decision = outcome.verdict.decision;
    const bool passed = one.kind == Expectation::Kind::blocked    ? decision >= Decision::require
                        : one.kind == Expectation::Kind::released ? decision <= Decision::audit
                                                                  : decision == one.decision;
    const std::string wanted = one.kind == Expectation::Kind::blocked    ? "blocked"
                               : one.kind == Expectation::Kind::released ? "released"
                                                                         : std::string(hearth::safety::name(one.decision));
    std::string problem;
    if (!passed) {
      problem = fmt::format("is {}", hearth::safety::name(decision));
      if (const auto* finding = outcome.verdict.decisive())
        problem += fmt::format(" by {} \"{}\": {}", hearth::safety::name(finding->layer), finding->rule, finding->reason);
      problem += fmt::format("; what is seen there: {}", Impl::seen(outcome));
    }
    out.push_back({.line = one.example.at.line,
                   .passed = passed,
                   .text = fmt::format("expect {} {}", wanted, one.example.shown),
                   .problem = std::move(problem)});
  }
  return out;
}

Surroundings example_surroundings() {
  Surroundings where;
  where.working_folder = "/home/user/project";
  where.writable_roots = {"/tmp"};
  return where;
}

}  // namespace hearth::safety
