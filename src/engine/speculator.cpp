#include "engine/speculator.h"

#include <algorithm>
#include <utility>

namespace hearth::engine {
namespace {

constexpr double cost_smoothing = 0.2;
constexpr int enough_passes = 3, plain_every = 100;  // without drafts: for what drafts are held against, and so that it stays true
constexpr double unseen_row = 0.03;                  // of a one-row pass: what a further row is taken to cost until it was measured
constexpr double right_smoothing = 0.1;
constexpr double typical_smoothing = 0.05;
constexpr double least_gain = 1.03;  // in tokens a second; less is noise
constexpr double others_wait = 1.1;  // how much longer a pass may become for streams that gain nothing by it
constexpr int first_patience = 32, most_patience = 1024;
constexpr int probe_length = 2;
constexpr double almost_sure = 0.85;
// The account, in passes without drafts: what it begins with, where it ends up however good or bad times were, and what each pass adds.
constexpr double account_begin = 8, account_most = 20, account_least = -8, account_interest = 0.01;

}  // namespace

void PassCost::measured(int rows, double milliseconds) {
  if (rows < 1 || rows > most_rows || milliseconds <= 0) return;
  Known& known = known_[static_cast<std::size_t>(rows)];
  ++known.passes;
  known.milliseconds += (milliseconds - known.milliseconds) * std::max(cost_smoothing, 1.0 / known.passes);
}

bool PassCost::knows(int rows) const { return rows > most_rows || known_[static_cast<std::size_t>(rows)].passes >= enough_passes; }

int PassCost::largest() const {
  int rows = most_rows;
  while (rows > 0 && known_[static_cast<std::size_t>(rows)].passes == 0) --rows;
  return rows;
}

int PassCost::furthest() const { return 2 * largest() + 2; }

// Between measured row counts a straight line; past the largest the line goes on.
double PassCost::of(int rows) const {
  int first = 0, below = 0, above = 0;
  for (int r = 1; r <= most_rows && above == 0; ++r) {
    if (known_[static_cast<std::size_t>(r)].passes == 0) continue;
    if (first == 0) first = r;
    (r <= rows ? below : above) = r;
  }
  if (first == 0) return 0;
  const auto known = [&](int r) { return known_[static_cast<std::size_t>(r)].milliseconds; };
  if (below == 0) return known(first);
  if (above != 0) return known(below) + (known(above) - known(below)) * (rows - below) / (above - below);
  double slope = known(first) * unseen_row;
  if (below != first) slope = std::max(slope, (known(below) - known(first)) / (below - first));
  return known(below) + slope * (rows - below);
}

Speculator::Speculator(DraftSource& source, const Speculation& options, int sequences)
    : source_(source),
      options_(options),
      habits_(static_cast<std::size_t>(sequences), Habit{.patience = first_patience}),
      typical_{0.4, 0.5, 0.6, 0.75, 0.85},
      account_(account_begin) {}

void Speculator::drop(SeqId seq) {
  habit(seq) = {.patience = first_patience};
  source_.drop(seq);
}

void Speculator::measured(int rows, double milliseconds) {
  cost_.measured(rows, milliseconds);
  pass_.rows = rows;
}

void Speculator::settle() {
  const Pass pass = std::exchange(pass_, {});
  const double plain = cost_.of(pass.streams);
  if (pass.streams == 0 || pass.rows == 0 || plain <= 0) return;
  const double gained = static_cast<double>(pass.accepted) / pass.streams;
  const double spent = (std::max(cost_.of(pass.rows) - plain, 0.0) + pass.draft_milliseconds) / plain;
  const double change = account_interest + gained - spent;
  account_ = std::clamp(account_ + change, account_least, account_most);
}

double Speculator::right(const DraftSource::Want& want) const {
  const auto level = static_cast<std::size_t>(want.evidence);
  const double own = habits_[static_cast<std::size_t>(want.seq)].right[level];
  return own > 0 ? own : typical_[level];
}

// Rows go where they are most likely right, one after the other; of all totals on the way the one with most tokens a second is taken.
std::vector<int> Speculator::lengths(std::span<const int> available, std::span<const double> right, int streams, int rows, int room) const {
  const std::size_t count = available.size();
  std::vector<int> now(count), best(count);
  if (!options_.adaptive) {
    for (std::size_t i = 0; i < count; ++i) {
      now[i] = std::min(available[i], room);
      room -= now[i];
    }
    return now;
  }
  constexpr double unknown = 1e-6;
  const double plain = std::max(cost_.of(rows), unknown);
  const double draft_cost = source_.milliseconds_per_token().value_or(0);
  std::vector<double> next(right.begin(), right.end());  // chance that all guesses so far and one more are right
  std::vector<double> expected(count, 1.0);              // tokens from this pass
  double tokens = streams, best_rate = streams / plain * least_gain;
  int longest = 0;
  for (int extra = 1; extra <= room; ++extra) {
    std::size_t at = count;
    for (std::size_t i = 0; i < count; ++i) {
      if (now[i] < available[i] && (at == count || next[i] > next[at])) at = i;
    }
    if (at == count) break;
    ++now[at];
    tokens += next[at];
    expected[at] += next[at];
    next[at] *= right[at];
    longest = std::max(longest, now[at]);
    const double cost = std::max(cost_.of(rows + extra), unknown) + draft_cost * longest;
    const double slower = cost / plain;
    // Nobody pays for somebody else's tokens: each stream gains, or waits hardly longer.
    bool fair = slower <= others_wait;
    if (!fair && static_cast<int>(count) == streams) {
      fair = std::all_of(expected.begin(), expected.end(), [&](double e) { return slower <= std::max(e, others_wait); });
    }
    if (fair && tokens / cost > best_rate) {
      best_rate = tokens / cost;
      best = now;
    }
  }
  return best;
}

// Where nothing is drafted nothing is learned: now and then, for one sequence at a time, a short draft is made all the same.
void Speculator::probe(std::span<const DraftSource::Want> wants, std::span<const int> available, int streams, int rows, int room,
                       std::vector<int>& chosen) {
  for (int n : chosen) room -= n;
  if (room <= 0) return;
  // Where not even perfect guesses would pay there is only the cost to learn anew.
  const std::vector<double> perfect(wants.size(), 1.0);
  const std::vector<int> hoped = lengths(available, perfect, streams, rows, room);
  for (std::size_t i = 0; i < wants.size(); ++i) {
    Habit& h = habit(wants[i].seq);
    if (chosen[i] > 0 || available[i] == 0) continue;
    ++h.silent;
    if (h.silent < (hoped[i] > 0 ? h.patience : most_patience)) continue;
    chosen[i] = std::min({available[i], probe_length, room});
    h.probing = true;
    return;
  }
}

void Speculator::draft(std::span<DraftSource::Want> wants, int streams, int rows, int room) {
  settle();
  pass_.streams = streams;
  if (wants.empty() || room <= 0) return;
  if (options_.adaptive) {
    if (account_ <= 0) return;
    // Passes with prompts in them are not measured.
    if ((rows == streams && !cost_.knows(rows)) || ++since_plain_ > plain_every) {
      since_plain_ = 0;
      return;
    }
  }
  const int near = options_.adaptive ? std::clamp(cost_.furthest() - rows, 0, room) : room;
  const bool costs = source_.milliseconds_per_token().has_value();
  for (auto& want : wants) want.limit = std::min({want.limit, options_.max_draft, room});
  if (!costs) source_.draft(wants);
  std::vector<int> available;
  std::vector<double> chance;
  for (const auto& want : wants) {
    available.push_back(std::min(costs ? want.limit : static_cast<int>(want.draft.size()), near));
    chance.push_back(right(want));
  }
  std::vector<int> chosen = lengths(available, chance, streams, rows, near);
  if (options_.adaptive) probe(wants, available, streams, rows, near, chosen);
  // Two rows may cost much more than one and thirty hardly more than ten. With a long repetition at hand, and nobody else there to wait, finding that out
  // is nearly free, and needed once.
  const int far = static_cast<int>(wants[0].draft.size());
  if (options_.adaptive && !costs && rows == 1 && chosen[0] == 0 && chance[0] >= almost_sure && far >= 2 * cost_.largest()) chosen[0] = far;
  if (costs) {
    std::vector<DraftSource::Want> asked;
    std::vector<std::size_t> whose;
    for (std::size_t i = 0; i < wants.size(); ++i) {
      if (chosen[i] == 0) continue;
      wants[i].limit = chosen[i];
      asked.push_back(wants[i]);
      whose.push_back(i);
    }
    const double before = source_.milliseconds();
    if (!asked.empty()) source_.draft(asked);
    // Getting to know a sequence pays over time; for a probe it is lost.
    const bool probing = std::any_of(asked.begin(), asked.end(), [this](const auto& want) { return habit(want.seq).probing; });
    std::size_t longest = 1;
    for (const auto& want : asked) longest = std::max(longest, want.draft.size());
    pass_.draft_milliseconds =
        probing ? source_.milliseconds() - before : source_.milliseconds_per_token().value_or(0) * static_cast<double>(longest);
    for (std::size_t i = 0; i < asked.size(); ++i) wants[whose[i]] = std::move(asked[i]);
  }
  if (std::all_of(chosen.begin(), chosen.end(), [](int n) { return n == 0; })) since_plain_ = 0;
  for (std::size_t i = 0; i < wants.size(); ++i) {
    auto& draft = wants[i].draft;
    if (static_cast<int>(draft.size()) > chosen[i]) draft.resize(static_cast<std::size_t>(chosen[i]));
    if (chosen[i] == 0) continue;
    Habit& h = habit(wants[i].seq);
    if (!wants[i].ready) {
      h.probing = false;  // and the next pass will probe again
      continue;
    }
    h.silent = 0;
    h.evidence = wants[i].evidence;
    if (draft.empty()) judge(h, 0, true);  // nothing to say is nothing right
  }
}

void Speculator::verified(SeqId seq, int drafted, int accepted, bool cut) {
  if (drafted <= 0) return;
  pass_.accepted += accepted;
  judge(habit(seq), accepted, accepted < drafted && !cut);
}

void Speculator::judge(Habit& h, int correct, bool then_wrong) {
  const auto level = static_cast<std::size_t>(h.evidence);
  const auto learn = [&](double outcome) {
    double& own = h.right[level];
    if (own == 0) own = typical_[level];
    own = std::max(own + (outcome - own) * right_smoothing, 1e-3);
    typical_[level] = std::max(typical_[level] + (outcome - typical_[level]) * typical_smoothing, 1e-3);
  };
  for (int i = 0; i < correct; ++i) learn(1);
  if (then_wrong) learn(0);
  if (!std::exchange(h.probing, false)) return;
  h.patience = then_wrong ? std::min(h.patience * 2, most_patience) : first_patience;
}

}  // namespace hearth::engine
