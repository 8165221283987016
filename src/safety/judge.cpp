#include "safety/judge.h"

#include <algorithm>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <list>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "base/mutex.h"
#include "safety/guard.h"
#include "safety/policy.h"
#include "safety/tools.h"
#include "safety/trajectory.h"

namespace hearth::safety {
namespace {

constexpr std::size_t most_history = 64;
constexpr std::size_t most_remembered = 2048;                      // assessments of earlier calls
constexpr std::size_t longest_remembered = std::size_t{32} << 10;  // bytes of one such call
constexpr std::size_t most_written = std::size_t{1} << 20;         // bytes of files whose content is known
constexpr std::size_t longest_document = std::size_t{64} << 20;

Result<std::string> read_file(const std::string& path) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) return Error{ErrorCode::io, path + " is no file that can be read", {}};
  if (std::filesystem::file_size(path, ec) > longest_document) return Error{ErrorCode::io, path + " is larger than 64 MiB", {}};
  std::ifstream file(path, std::ios::binary);
  std::stringstream out;
  out << file.rdbuf();
  if (!file) return Error{ErrorCode::io, path + " cannot be read", {}};
  return out.str();
}

// What an earlier call of a conversation came to.
struct Earlier {
  Step step;
  std::map<std::string, std::string> written;
};

// Conversations come again with every request, and their calls with them.
class Memory {
 public:
  std::shared_ptr<const Earlier> find(const std::string& key) {
    const MutexLock lock(mutex_);
    const auto found = places_.find(key);
    if (found == places_.end()) return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return found->second->second;
  }
  void keep(std::string key, std::shared_ptr<const Earlier> what) {
    const MutexLock lock(mutex_);
    if (places_.contains(key)) return;
    order_.emplace_front(key, std::move(what));
    places_.emplace(std::move(key), order_.begin());
    if (order_.size() <= most_remembered) return;
    places_.erase(order_.back().first);
    order_.pop_back();
  }
  void clear() {
    const MutexLock lock(mutex_);
    places_.clear();
    order_.clear();
  }

 private:
  using Order = std::list<std::pair<std::string, std::shared_ptr<const Earlier>>>;
  Mutex mutex_;
  Order order_ GUARDED_BY(mutex_);  // last used first
  std::unordered_map<std::string, Order::iterator> places_ GUARDED_BY(mutex_);
};

// "TOP SECRET//SI" is more than "SECRET" is more than "CUI".
int rank(std::string_view level) {
  if (level.starts_with("TOP SECRET")) return 4;
  if (level.starts_with("SECRET")) return 3;
  if (level.starts_with("CONFIDENTIAL")) return 2;
  return level.empty() ? 0 : 1;
}

Finding failure(std::string why) {
  return {Decision::deny, Layer::stream, "judge_failed", "the call could not be judged: " + std::move(why), "", ""};
}

}  // namespace

class Judge::Impl {
 public:
  explicit Impl(JudgeOptions given) : options(std::move(given)), argus(options.argus) {}

  Result<std::shared_ptr<const Policy>> load_policy() const {
    const std::string name = options.policy_file;
    if (name.empty()) return std::shared_ptr<const Policy>(std::shared_ptr<void>(), &Policy::shipped());  // lives as long as the program
    auto text = read_file(name);
    if (!text.ok()) return Error{ErrorCode::config_invalid, "safety.policy: " + text.error().message, {}};
    auto policy = Policy::parse(*text, name);
    if (!policy.ok()) return std::move(policy).error();
    return std::make_shared<const Policy>(std::move(*policy));
  }
  std::shared_ptr<const Policy> policy() const {
    const MutexLock lock(mutex);
    return current;
  }
  Surroundings where() const {
    Surroundings out = options.where;
    policy()->complete(out);
    return out;
  }

  std::shared_ptr<const Earlier> earlier(const Action& action, const ToolTable& tools) const {
    std::string key;
    if (action.call.arguments.size() <= longest_remembered) {
      key = action.call.name + '\0' + action.where.working_folder + '\0' + action.call.arguments;
      if (auto known = memory.find(key)) return known;
    }
    auto out = std::make_shared<Earlier>();
    const auto assessment = assess_call(action, tools);
    out->step = step_of(action.call, assessment);
    out->written = written_by(action, tools);
    if (!key.empty()) memory.keep(std::move(key), out);
    return out;
  }

  // The steps before the call, and what they wrote.
  std::vector<Step> look_back(Action& action, const ToolTable& tools) const {
    std::vector<Step> steps;
    Action before = action;
    const auto history = std::exchange(before.history, {});
    std::size_t written = 0;
    for (std::size_t i = history.size() - std::min(history.size(), most_history); i < history.size(); ++i) {
      before.call = history[i];
      const auto known = earlier(before, tools);
      steps.push_back(known->step);
      for (const auto& [path, content] : known->written) {
        if (written + content.size() > most_written) continue;
        written += content.size();
        before.written_files[path] = content;
      }
    }
    action.written_files = std::move(before.written_files);
    return steps;
  }

  Judgement judge(Action action) const {
    Judgement out;
    const auto rules = policy();
    const auto steps_before = look_back(action, rules->tools());
    out.assessment = assess_call(action, rules->tools());
    const auto spills = argus.scan_json(action.call.arguments);

    std::vector<Step> steps = steps_before;
    steps.push_back(step_of(action.call, out.assessment));
    Course course;
    {
      const std::shared_lock lock(learning);
      if (trajectory) course = trajectory->judge(steps);
      if (guard) out.guard_probability = guard->probability(action, out.assessment);
    }
    out.trajectory_score = course.score;

    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    rules->judge({.action = &action,
                  .assessment = &out.assessment,
                  .spills = &spills,
                  .trajectory_score = course.score,
                  .guard_probability = out.guard_probability,
                  .minute_of_day = local.tm_hour * 60 + local.tm_min,
                  .day_of_week = local.tm_wday == 0 ? 7 : local.tm_wday},
                 out.verdict);
    // What the text holds in pieces and puts together to send it away.
    if (!out.assessment.folded.empty() &&
        (out.assessment.has(Effect::send) || out.assessment.has(Effect::exfiltration) || out.assessment.has(Effect::fetch))) {
      for (const Match& match : argus.scan(out.assessment.folded)) {
        if (match.kind != Spill::secret && match.kind != Spill::marking) continue;
        out.verdict.add({Decision::require, Layer::argus, match.detector, "the command puts together what must not leave, out of pieces",
                         match.shown, "leave it out"});
      }
    }
    if (out.assessment.problem.empty() && out.assessment.observations.empty())
      out.verdict.add({Decision::deny, Layer::gate, "unread", "nothing is known of what the call would do", "", ""});
    if (!course.shape.empty()) {
      const auto decision = rules->trajectory_decision(course.score);
      out.verdict.add({decision, Layer::trajectory, course.shape, course.reason, "", "a person's word, or another way"});
    }
    out.verdict.add(
        {rules->guard_decision(out.guard_probability), Layer::guard, "likeness",
         "calls like this one were refused before (probability " + std::to_string(static_cast<int>(out.guard_probability * 100)) + " %)",
         "", ""});
    if (out.verdict.redact && out.verdict.decision <= Decision::audit && !spills.empty())
      out.verdict.replaced_arguments = Argus::redact_json(action.call.arguments, spills);
    return out;
  }

  Result<std::optional<Guard>> load_guard() const {
    if (!options.guard) return std::optional<Guard>();
    const std::string kept = options.state_folder + guard_file;
    std::error_code ec;
    auto loaded = !options.state_folder.empty() && std::filesystem::exists(kept, ec) ? Guard::load(kept) : Guard::shipped();
    if (!loaded.ok()) return std::move(loaded).error();
    return std::optional<Guard>(std::move(*loaded));
  }
  Result<std::optional<Trajectory>> load_trajectory() const {
    if (!options.trajectory) return std::optional<Trajectory>();
    const std::string kept = options.state_folder + trajectory_file;
    std::error_code ec;
    auto loaded = !options.state_folder.empty() && std::filesystem::exists(kept, ec) ? Trajectory::load(kept) : Trajectory::shipped();
    if (!loaded.ok()) return std::move(loaded).error();
    return std::optional<Trajectory>(std::move(*loaded));
  }

  static constexpr const char* guard_file = "/guard.model";
  static constexpr const char* trajectory_file = "/trajectory.model";

  const JudgeOptions options;
  Argus argus;
  mutable Mutex mutex;
  std::shared_ptr<const Policy> current GUARDED_BY(mutex);
  mutable Memory memory;
  mutable std::shared_mutex learning;  // judging shares it, learning has it alone
  std::optional<Guard> guard;
  std::optional<Trajectory> trajectory;
};

Judge::Judge(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Judge::~Judge() = default;

Result<std::unique_ptr<Judge>> Judge::make(JudgeOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  auto policy = impl->load_policy();
  if (!policy.ok()) return std::move(policy).error();
  {
    const MutexLock lock(impl->mutex);
    impl->current = std::move(*policy);
  }
  for (const auto& path : impl->options.protected_documents) {
    const auto text = read_file(path);
    if (!text.ok()) return Error{ErrorCode::config_invalid, "safety.protected_documents: " + text.error().message, {}};
    const auto done = impl->argus.protect(std::filesystem::path(path).filename().string(), *text);
    if (!done.ok()) return Error{ErrorCode::config_invalid, "safety.protected_documents: " + path + ": " + done.error().message, {}};
  }
  auto guard = impl->load_guard();
  if (!guard.ok()) return std::move(guard).error();
  impl->guard = std::move(*guard);
  auto trajectory = impl->load_trajectory();
  if (!trajectory.ok()) return std::move(trajectory).error();
  impl->trajectory = std::move(*trajectory);
  return std::unique_ptr<Judge>(new Judge(std::move(impl)));
}

Judgement Judge::judge(Action action) const {
  std::string why;
  try {
    return impl_->judge(std::move(action));
  } catch (const std::exception& thrown) { why = thrown.what(); } catch (...) {
    why = "an exception of no kind";
  }
  Judgement out;
  out.verdict.add(failure(std::move(why)));
  return out;
}

Judge::ResultJudgement Judge::judge_result(std::string_view text, const Action& context) const {
  ResultJudgement out;
  try {
    out.matches = impl_->argus.scan_result(text);
    for (const auto& match : out.matches) {
      out.tainted = out.tainted || match.kind == Spill::injection;
      if (match.kind == Spill::marking && rank(match.level) > rank(out.classification)) out.classification = match.level;
    }
    if (!out.matches.empty())
      impl_->policy()->judge({.action = &context, .spills = &out.matches, .direction = Direction::result}, out.verdict);
  } catch (const std::exception& thrown) {
    out.verdict.add(failure(thrown.what()));
    out.tainted = true;
  }
  return out;
}

Verdict Judge::judge_text(const std::vector<Match>& matches, const Action& context) const {
  Verdict out;
  try {
    impl_->policy()->judge({.action = &context, .spills = &matches, .direction = Direction::text}, out);
  } catch (const std::exception& thrown) { out.add(failure(thrown.what())); }
  return out;
}

void Judge::learn(const Action& action, bool refused) {
  try {
    const auto rules = impl_->policy();
    Action seen = action;
    auto steps = impl_->look_back(seen, rules->tools());
    const auto assessment = assess_call(seen, rules->tools());
    steps.push_back(step_of(seen.call, assessment));
    const std::unique_lock lock(impl_->learning);
    const bool keep = !impl_->options.state_folder.empty();
    Result<void> kept;
    if (impl_->guard) impl_->guard->learn(seen, assessment, refused);
    if (impl_->guard && keep) kept = impl_->guard->save(impl_->options.state_folder + Impl::guard_file);
    if (impl_->trajectory) impl_->trajectory->learn(steps, refused);
    if (impl_->trajectory && keep && kept.ok()) kept = impl_->trajectory->save(impl_->options.state_folder + Impl::trajectory_file);
    if (!kept.ok() && keep) spdlog::warn("what was learned from an operator cannot be kept: {}", kept.error().message);
  } catch (const std::exception& thrown) { spdlog::warn("nothing was learned from an operator's word: {}", thrown.what()); }
}

Result<void> Judge::reload() {
  auto policy = impl_->load_policy();
  if (!policy.ok()) return std::move(policy).error();
  const MutexLock lock(impl_->mutex);
  impl_->current = std::move(*policy);
  impl_->memory.clear();
  return {};
}

Surroundings Judge::where() const { return impl_->where(); }
const Argus& Judge::argus() const { return impl_->argus; }

}  // namespace hearth::safety
