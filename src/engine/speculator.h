// Decoding one token reads every weight for one row of arithmetic; where memory is the limit, a few more rows cost hardly more. Speculation uses that: a
// cheap source guesses how a sequence goes on, the guess goes through the model in one pass as further rows, and it is kept as far as the
// tokens sampled from the model, one after the other as always, turn out equal to it. What is sent is what would have been sent without.
//
// The Speculator decides how much to guess for whom. It knows what passes of so many rows have been costing and how often each sequence's guesses were
// right, and takes the lengths that promise most tokens a second; where nothing pays it stops, and tries again ever more rarely. It keeps an account of what
// guessing has gained and lost, and stops whenever that is overdrawn: whatever the reason, hardly more than one part in a hundred can be lost.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/decoder.h"

namespace hearth::engine {

struct Speculation {
  enum class Mode {
    off,
    automatic,  // draft when a draft model is given, else mtp when the model has the blocks for it, else lookup; off for recurrent models
    lookup,     // what followed the last tokens when they stood earlier in the prompt or answer
    draft,      // a small model of the same vocabulary
    mtp,        // the model's own blocks for multi-token prediction
  };
  Mode mode = Mode::automatic;
  std::string draft_model;       // GGUF; its vocabulary is the model's
  int max_draft = 32;            // tokens guessed at once, at most
  int lookup_tokens = 3;         // the shortest repetition that counts as one
  float least_confidence = 0.5;  // draft, mtp: a guess ends where its own probability falls below
  bool adaptive = true;          // false: always as long as possible, for tests and measurements
};

// Makes guesses. Belongs to the scheduler's thread.
class DraftSource {
 public:
  struct Want {
    SeqId seq = -1;
    std::span<const Token> tokens;  // the whole sequence; as long as it keeps its id it only grows
    int limit = 0;                  // tokens, at most
    std::vector<Token> draft;       // the answer; may be shorter, or empty
    bool ready = true;  // the answer: false while the source is still reading what the sequence holds, and so has nothing to say yet
    int evidence = 2;   // the answer: how good its grounds are, below evidence_levels; what comes of each level is learned separately
  };
  static constexpr int evidence_levels = 5;

  virtual ~DraftSource() = default;
  virtual void draft(std::span<Want> wants) = 0;
  // The sequence has left its id; the next to get it is another one.
  virtual void drop(SeqId seq) = 0;
  // What one more token of a draft has been costing, all sequences together; empty when drafts cost nothing worth counting.
  virtual std::optional<double> milliseconds_per_token() const = 0;
  // All time spent so far, what it took to know the sequences included.
  virtual double milliseconds() const { return 0; }
};

// What a pass over so many rows costs, learned from passes.
class PassCost {
 public:
  static constexpr int most_rows = 64;
  void measured(int rows, double milliseconds);
  double of(int rows) const;   // 0 while nothing is known
  bool knows(int rows) const;  // from several passes of its own, or because it is past most_rows
  int largest() const;         // rows of the largest pass that was measured
  int furthest() const;        // rows that may be tried next: what lies far from anything measured could cost anything

 private:
  struct Known {
    double milliseconds = 0;  // smoothed
    int passes = 0;
  };
  std::array<Known, most_rows + 1> known_{};
};

class Speculator {
 public:
  // `source` outlives the speculator. `sequences`: ids are 0 … sequences-1.
  Speculator(DraftSource& source, const Speculation& options, int sequences);

  // Fills the drafts of `wants`. `streams` sequences get a token from this pass anyway, which has `rows` rows without drafts; `room` more are free.
  void draft(std::span<DraftSource::Want> wants, int streams, int rows, int room);
  // Of `drafted` tokens the first `accepted` were right. `cut`: the sequence ended there, so the next one was not judged.
  void verified(SeqId seq, int drafted, int accepted, bool cut);
  // What the pass took. Not called for passes that also computed prompts: they say nothing about single rows.
  void measured(int rows, double milliseconds);
  void drop(SeqId seq);

 private:
  using Levels = std::array<double, DraftSource::evidence_levels>;
  struct Habit {
    Levels right{};        // how often a guess on such grounds has been right; 0 = nothing known yet
    int silent = 0;        // passes since the last draft, though one was to be had
    int patience = 0;      // such passes before one is tried again
    int evidence = 0;      // of the draft on its way
    bool probing = false;  // it was only made to learn from
  };
  Habit& habit(SeqId seq) { return habits_[static_cast<std::size_t>(seq)]; }
  double right(const DraftSource::Want& want) const;
  std::vector<int> lengths(std::span<const int> available, std::span<const double> right, int streams, int rows, int room) const;
  void probe(std::span<const DraftSource::Want> wants, std::span<const int> available, int streams, int rows, int room,
             std::vector<int>& chosen);
  void settle();
  void judge(Habit& h, int correct, bool then_wrong);

  DraftSource& source_;
  const Speculation options_;
  PassCost cost_;
  std::vector<Habit> habits_;
  Levels typical_;       // of all sequences: where a new one starts
  int since_plain_ = 0;  // passes with drafts since one without
  struct Pass {
    int streams = 0, rows = 0;  // rows: 0 unless it was measured
    int accepted = 0;
    double draft_milliseconds = 0;
  };
  Pass pass_;       // the last one
  double account_;  // in passes without drafts
};

}  // namespace hearth::engine
