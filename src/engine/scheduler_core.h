// The scheduling itself, one tick at a time and without a thread, so that tests can step it. See scheduler.h for what it promises.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/fair_queue.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"

namespace hearth::engine {

class SchedulerCore {
 public:
  SchedulerCore(Decoder& decoder, SchedulerOptions options, const Clock& clock, Speculator* speculator = nullptr);
  ~SchedulerCore();
  SchedulerCore(const SchedulerCore&) = delete;
  SchedulerCore& operator=(const SchedulerCore&) = delete;

  // Whether the generation can ever run: non-empty prompt, context limits, counts. Any thread.
  Result<void> check(const Generation& generation) const;
  // Queues a checked generation.
  void add(Generation generation, std::shared_ptr<std::atomic<bool>> cancelled);
  // One round: drop what was cancelled or is late, admit, decode one batch, deliver. False when there was nothing to decode.
  bool tick();
  // Nothing waits, runs or is parked.
  bool idle() const;
  void fail_all(const Error& error);
  SchedulerStats stats() const;
  // When a refused client should try again, from how long requests have been taking.
  std::chrono::milliseconds retry_after() const;

 private:
  struct Request;
  struct Sequence;
  using SequencePtr = std::unique_ptr<Sequence>;
  using Queue = FairQueue<SequencePtr>;

  void drop_lost();
  bool lost(const Sequence& sequence);
  void admit();
  bool admit_from(Queue& queue, std::deque<SequencePtr>& parked, bool interactive);
  void promote_patient();
  bool fits(const Sequence& sequence) const;
  bool is_read(const Sequence& sequence) const;
  int free_cells() const;
  int used_cells() const;
  void make_unused(int cells);
  bool make_room(const Sequence& sequence);
  bool start(SequencePtr& sequence);
  void park(Sequence& sequence);
  Sequence* youngest_running(bool background_only);
  void reserve_growth();
  bool choose_adapter();
  int further_rows(const Sequence& sequence, int share, int room) const;
  void build_batch();
  void add_drafts(int streams, int rows, int room);
  void add_rows(Sequence& sequence);
  bool decode_batch();
  void fail_request(Request& request, const Error& error);
  void deliver(Sequence& sequence);
  Result<void> sample(Sequence& sequence, SequenceDelta& delta);
  void take_token(Sequence& sequence, const SampledToken& sampled, int row, SequenceDelta& delta);
  void forget_draft(Sequence& sequence);
  void leave(Sequence& sequence);
  void deliver_prompt_scores(Sequence& sequence);
  void announce(const Sequence& sequence);
  void prompt_done(Sequence& sequence);
  void retire(Sequence& sequence);  // gives its KV to the cache and its sequence id back
  void remove_finished();
  void park_idle_prefixes();
  int prefill_budget(int decode_rows, bool beside_streams) const;

  Decoder& decoder_;
  Speculator* const speculator_;
  const SchedulerOptions options_;
  const Clock& clock_;
  SequencePool pool_;
  PrefixCache cache_;
  const int total_cells_;
  const int max_request_tokens_;
  const bool can_share_;

  Queue interactive_, background_;
  std::deque<SequencePtr> parked_interactive_, parked_background_;  // oldest first
  std::vector<SequencePtr> running_;                                // oldest first
  std::vector<BatchToken> batch_;
  // Ids only: an adapter that is merely attached, or was, is not in use.
  std::deque<std::uint64_t> turns_;  // adapters with work, in the order of their turns; the first runs
  std::uint64_t attached_ = 0;       // what the decoder computes with
  TimePoint attached_since_;
  std::uint64_t admissions_ = 0;
  std::int64_t parked_bytes_ = 0;
  double ms_per_row_ = 0;         // running mean cost of a batch row
  double ms_per_request_ = 1000;  // running mean time in the scheduler
  SchedulerStats stats_;
};

}  // namespace hearth::engine
