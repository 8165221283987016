#include "engine/scheduler_core.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <tuple>

#include "engine/parked_files.h"
#include "engine/speculator.h"
#include "engine/text_stream.h"

namespace hearth::engine {
namespace {

constexpr int smallest_chunk_beside_streams = 32;  // prompt tokens per tick that are worth a pass even when the tick target is missed
constexpr int smallest_chunk_alone = 128;
constexpr std::int64_t most_parked_per_tick = std::int64_t{32} << 20;  // bytes: some milliseconds of copying
constexpr double smoothing = 0.1;

double milliseconds(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

}  // namespace

// What a client asked for; its choices run as sequences of their own.
struct SchedulerCore::Request {
  Generation generation;
  std::shared_ptr<std::atomic<bool>> cancelled;
  TimePoint added;
  int unfinished = 0;
  bool started = false;
  bool over = false;  // failed or cancelled: its sequences are swept at the next tick
};

struct SchedulerCore::Sequence {
  std::shared_ptr<Request> request;
  int choice = 0;
  bool background = false;
  std::vector<Token> tokens;  // prompt, then what was sampled
  int computed = 0;           // of those, in the KV memory
  int generated = 0;
  int reserved = 0;  // cells it may grow to
  SeqId seq = -1;
  PrefixCache::Pin pin;
  std::unique_ptr<Sampler> sampler;
  TextStream text;                  // stops at the request's own strings and, after them in the list, the template's
  std::set<Token> shown;            // special tokens the output parser must see
  std::vector<std::uint8_t> saved;  // parked: its KV, unless that is on disk
  ParkedFiles::Entry file;
  TimePoint waiting_since;
  std::uint64_t admission = 0;
  int first_row = -1, rows = 0;  // of the current batch
  std::vector<Token> draft;      // guessed continuation of `tokens`; the last of the rows are its
  bool done = false;

  explicit Sequence(std::shared_ptr<Request> owner, int index)
      : request(std::move(owner)), choice(index), tokens(request->generation.prompt), text(stops(request->generation)) {}
  static std::vector<std::string> stops(const Generation& generation) {
    std::vector<std::string> all = generation.stop;
    all.insert(all.end(), generation.template_stop.begin(), generation.template_stop.end());
    return all;
  }
  const Generation& generation() const { return request->generation; }
  // The image that `token` is a placeholder of; null for text.
  const ImageRows* image(Token token) const {
    if (!is_placeholder(token)) return nullptr;
    const auto& images = generation().images;
    const auto at =
        std::find_if(images.begin(), images.end(), [&](const ImagePtr& i) { return token <= i->first && token > i->first - i->count; });
    return at == images.end() ? nullptr : at->get();
  }
  int prompt_size() const { return static_cast<int>(generation().prompt.size()); }
  int size() const { return static_cast<int>(tokens.size()); }
  int remaining() const { return size() - computed; }
  bool streaming() const { return generated > 0 && remaining() == 1; }
  int promised() const { return std::max(reserved, size()); }  // cells it has or may still take
  int own_cells() const { return computed - pin.tokens; }
  std::uint64_t adapter() const { return id_of(generation().adapter); }
  bool reader_behind(std::size_t limit) const { return generation().sink->backlog() > limit; }
};

SchedulerCore::SchedulerCore(Decoder& decoder, SchedulerOptions options, const Clock& clock, Speculator* speculator)
    : decoder_(decoder),
      speculator_(decoder.can_share_prefix() ? speculator : nullptr),  // wrong guesses must be removable
      options_(options),
      clock_(clock),
      pool_(decoder.max_sequences()),
      cache_(decoder, pool_, options.prefix_cache_bytes, options.files),
      total_cells_(decoder.context_cells()),
      max_request_tokens_(std::min(decoder.max_request_tokens(), decoder.context_cells())),
      can_share_(decoder.can_share_prefix()),
      interactive_(options.quantum),
      background_(options.quantum) {}

SchedulerCore::~SchedulerCore() { fail_all(Error{ErrorCode::unavailable, "the engine is stopping"}); }

Result<void> SchedulerCore::check(const Generation& generation) const {
  const int prompt = static_cast<int>(generation.prompt.size());
  const std::string context = "this model's context holds " + std::to_string(max_request_tokens_) + " tokens";
  if (prompt == 0) return invalid("the prompt is empty; send at least one token of text", "prompt");
  if (is_placeholder(generation.prompt.back()))
    return invalid("the prompt ends with an image; say after it what is to be done with it", "prompt");
  const int most =
      std::min(options_.batch_tokens, decoder_.max_batch()) - options_.max_running;  // those who stream have their rows in each pass
  for (const ImagePtr& image : generation.images) {
    if (image->whole && image->count > most) {
      return Error{ErrorCode::unsupported,
                   "this model has to see an image in one pass, and passes have room for " + std::to_string(most) +
                       " rows of images, but this one has " + std::to_string(image->count) + "; send it smaller",
                   "messages"};
    }
  }
  if (prompt >= max_request_tokens_) {
    return Error{ErrorCode::context_length_exceeded, context + ", but the prompt alone has " + std::to_string(prompt) +
                                                         "; shorten it or serve the model with a larger context"};
  }
  if (generation.max_tokens && *generation.max_tokens > max_request_tokens_ - prompt) {
    return Error{ErrorCode::context_length_exceeded,
                 context + ", but the prompt has " + std::to_string(prompt) + " and max_tokens asks for " +
                     std::to_string(*generation.max_tokens) + " more; lower max_tokens to " + std::to_string(max_request_tokens_ - prompt) +
                     " or shorten the prompt",
                 "max_tokens"};
  }
  return {};
}

void SchedulerCore::add(Generation generation, std::shared_ptr<std::atomic<bool>> cancelled) {
  auto request = std::make_shared<Request>();
  request->unfinished = generation.choices;
  request->generation = std::move(generation);
  request->cancelled = std::move(cancelled);
  request->added = clock_.now();
  auto first = std::make_unique<Sequence>(request, 0);
  first->background = request->generation.priority == chat::Priority::background;
  first->waiting_since = request->added;
  const int wanted = request->generation.max_tokens.value_or(options_.open_ended_reserve) * request->generation.choices;
  const int cost = first->prompt_size() + wanted;
  auto& queue = first->background ? background_ : interactive_;
  queue.push(request->generation.tenant, std::move(first), cost);
}

bool SchedulerCore::idle() const {
  return interactive_.empty() && background_.empty() && running_.empty() && parked_interactive_.empty() && parked_background_.empty();
}

bool SchedulerCore::tick() {
  ++stats_.ticks;
  drop_lost();
  admit();
  cache_.drop_unloaded();
  park_idle_prefixes();
  reserve_growth();
  const bool switched = choose_adapter();
  build_batch();
  if (batch_.empty()) return false;
  const TimePoint begin = clock_.now();
  if (decode_batch()) {
    const double ms = milliseconds(clock_.now() - begin) / static_cast<double>(batch_.size());
    // Small batches are dominated by reading the weights once, the first after a switch by that: both would make prefill look dearer than it is.
    if (batch_.size() >= smallest_chunk_beside_streams && !switched) ms_per_row_ += (ms - ms_per_row_) * (ms_per_row_ == 0 ? 1 : smoothing);
    // Speculation adds rows with output: only batches of these say what they cost.
    if (speculator_ != nullptr && !switched &&
        std::all_of(batch_.begin(), batch_.end(), [](const BatchToken& row) { return row.output; })) {
      speculator_->measured(static_cast<int>(batch_.size()), milliseconds(clock_.now() - begin));
    }
  }
  for (auto& sequence : running_) {
    if (sequence->rows > 0 && !sequence->request->over) deliver(*sequence);
  }
  remove_finished();
  return true;
}

bool SchedulerCore::lost(const Sequence& sequence) {
  Request& request = *sequence.request;
  if (request.over) return true;
  if (request.cancelled->load(std::memory_order_relaxed)) {
    request.over = true;
    ++stats_.cancelled;
  } else if (request.generation.deadline && clock_.now() >= *request.generation.deadline) {
    fail_request(request, Error{ErrorCode::deadline_exceeded, "the request's time limit passed before the answer was complete"});
  }
  return request.over;
}

void SchedulerCore::drop_lost() {
  const auto gone = [this](const SequencePtr& sequence) { return lost(*sequence); };
  interactive_.remove_if(gone);
  background_.remove_if(gone);
  for (auto* parked : {&parked_interactive_, &parked_background_}) {
    std::erase_if(*parked, [&](const SequencePtr& sequence) {
      if (!gone(sequence)) return false;
      parked_bytes_ -= static_cast<std::int64_t>(sequence->saved.size());
      return true;
    });
  }
  for (auto& sequence : running_) {
    if (lost(*sequence)) sequence->done = true;
  }
  remove_finished();
}

// Cells not in use and not promised. Unpinned cached cells count as free: they are evicted when needed.
int SchedulerCore::free_cells() const {
  int free = total_cells_ - cache_.pinned_cells();
  for (const auto& sequence : running_) free -= sequence->promised() - sequence->pin.tokens;
  return free;
}

int SchedulerCore::used_cells() const {
  int used = cache_.cells();
  for (const auto& sequence : running_) used += sequence->own_cells();
  return used;
}

// Evicts cached prefixes until `cells` KV cells hold nothing.
void SchedulerCore::make_unused(int cells) {
  const int unused = total_cells_ - used_cells();
  if (unused < cells) cache_.evict(cells - unused);
}

bool SchedulerCore::fits(const Sequence& sequence) const {
  int need = sequence.promised();
  if (sequence.saved.empty() && !sequence.file && can_share_ && !sequence.generation().echo_logprobs) {
    need -= cache_.pinned_match(sequence.generation().adapter, std::span(sequence.tokens).first(sequence.tokens.size() - 1));
  }
  return need <= free_cells();
}

SchedulerCore::Sequence* SchedulerCore::youngest_running(bool background_only) {
  Sequence* youngest = nullptr;
  for (const auto& sequence : running_) {
    if (background_only && !sequence->background) continue;
    const auto rank = [](const Sequence& s) { return std::pair(s.background, s.admission); };
    if (youngest == nullptr || rank(*sequence) > rank(*youngest)) youngest = sequence.get();
  }
  return youngest;
}

// Parks background work until the interactive `sequence` has cells and a place. False if that is not enough; then nobody was parked in vain.
bool SchedulerCore::make_room(const Sequence& sequence) {
  int could_free = 0;
  int could_leave = 0;
  for (const auto& other : running_) {
    if (!other->background) continue;
    could_free += other->promised();
    ++could_leave;
  }
  const int need = sequence.promised();
  if (static_cast<int>(running_.size()) - could_leave >= options_.max_running || need > free_cells() + could_free) return false;
  while (static_cast<int>(running_.size()) >= options_.max_running || !fits(sequence)) {
    Sequence* const victim = youngest_running(true);
    if (victim == nullptr) return false;
    park(*victim);
  }
  return true;
}

// A background request that has waited long enough is served like an interactive one from here on.
void SchedulerCore::promote_patient() {
  const auto patient = [&](const Sequence& s) { return clock_.now() - s.waiting_since >= options_.background_patience; };
  while (!parked_background_.empty() && patient(*parked_background_.front())) {
    parked_background_.front()->background = false;
    parked_interactive_.push_back(std::move(parked_background_.front()));
    parked_background_.pop_front();
  }
  while (auto* front = background_.front()) {
    if (!patient(**front)) break;
    SequencePtr sequence = background_.take_front();
    sequence->background = false;
    const int cost = sequence->size() + sequence->generation().max_tokens.value_or(options_.open_ended_reserve);
    const std::string& tenant = sequence->generation().tenant;
    interactive_.push(tenant, std::move(sequence), cost);
  }
}

void SchedulerCore::admit() {
  promote_patient();
  if (admit_from(interactive_, parked_interactive_, true)) admit_from(background_, parked_background_, false);
}

// Starts what can start, in order. False when something of this class has to wait: then nothing of a lower class may pass it.
bool SchedulerCore::admit_from(Queue& queue, std::deque<SequencePtr>& parked, bool interactive) {
  for (;;) {
    const bool from_parked = !parked.empty();
    SequencePtr* next = from_parked ? &parked.front() : queue.front();
    if (next == nullptr) return true;
    Sequence& sequence = **next;
    if (sequence.reserved == 0) {
      const int wanted = sequence.generation().max_tokens.value_or(options_.open_ended_reserve);
      sequence.reserved = std::min(sequence.prompt_size() + wanted, max_request_tokens_);
    }
    const bool room = static_cast<int>(running_.size()) < options_.max_running && fits(sequence);
    if (!room && !(interactive && make_room(sequence))) return false;
    if (!running_.empty() && !is_read(sequence)) return false;  // those who run need not wait for the disk
    if (pool_.available() == 0 && !cache_.evict_sequence()) return false;
    SequencePtr taken;
    if (from_parked) {
      taken = std::move(parked.front());
      parked.pop_front();
    } else {
      taken = queue.take_front();
    }
    if (!start(taken)) continue;
    running_.push_back(std::move(taken));
  }
}

// Whether it could start without waiting for what lies on disk. If not, that is being read.
bool SchedulerCore::is_read(const Sequence& sequence) const {
  if (options_.files == nullptr || !sequence.saved.empty()) return true;
  if (sequence.file) {
    const std::array wanted{&sequence.file};
    return options_.files->read_ahead(wanted);
  }
  if (!can_share_ || sequence.generation().echo_logprobs) return true;
  return cache_.read_ahead(sequence.generation().adapter, std::span(sequence.tokens).first(sequence.tokens.size() - 1));
}

// Gives the sequence its id and whatever KV it can start from. False when its request failed on the way.
bool SchedulerCore::start(SequencePtr& sequence) {
  Sequence& s = *sequence;
  if (!s.sampler) {
    const auto& samplers = s.generation().samplers;
    const auto& spec = samplers[std::min(static_cast<std::size_t>(s.choice), samplers.size() - 1)];
    auto made = decoder_.make_sampler(spec);
    if (!made) {
      fail_request(*s.request, made.error());
      return false;
    }
    s.sampler = std::move(made).value();
    s.shown.insert(spec.constraints.preserved_tokens.begin(), spec.constraints.preserved_tokens.end());
  }
  s.seq = pool_.take();
  s.admission = ++admissions_;
  if (s.file) {
    if (auto bytes = options_.files->take(std::move(s.file))) {
      s.saved = std::move(bytes).value();
      parked_bytes_ += static_cast<std::int64_t>(s.saved.size());
    } else {
      s.computed = 0;  // computed again
    }
  }
  if (!s.saved.empty()) {
    make_unused(s.computed);
    const auto restored = decoder_.restore(s.seq, s.saved);
    parked_bytes_ -= static_cast<std::int64_t>(s.saved.size());
    s.saved = {};
    if (restored) {
      ++stats_.resumes;
      return true;
    }
    decoder_.remove(s.seq, 0, -1);
    s.computed = 0;
  }
  if (can_share_ && !s.generation().echo_logprobs) {
    s.pin = cache_.acquire(s.generation().adapter, std::span(s.tokens).first(s.tokens.size() - 1), s.seq, total_cells_ - used_cells());
    s.computed = s.pin.tokens;
  }
  return true;
}

// Takes a running sequence off the decoder. Its KV waits in host memory; past the limit for that it is dropped and computed again on return.
void SchedulerCore::park(Sequence& s) {
  const auto at = std::find_if(running_.begin(), running_.end(), [&](const auto& other) { return other.get() == &s; });
  SequencePtr sequence = std::move(*at);
  running_.erase(at);
  const std::int64_t size = s.computed * decoder_.bytes_per_cell();
  const bool in_memory = parked_bytes_ + size <= options_.park_bytes,
             on_disk = options_.files != nullptr && options_.files->could_hold(size);
  if (s.computed > 0 && (in_memory || on_disk)) {
    if (auto state = decoder_.save(s.seq)) {
      std::vector<std::uint8_t> bytes = std::move(state).value();
      const auto held = static_cast<std::int64_t>(bytes.size());
      if (in_memory) {
        s.saved = std::move(bytes);
        parked_bytes_ += held;
      } else if (auto entry = options_.files->put(bytes)) {
        s.file = std::move(*entry);
      }
      if (in_memory || s.file) stats_.preempted_bytes += held;
    }
  }
  if (s.saved.empty() && !s.file) {
    retire(s);
    s.computed = 0;
  } else {
    leave(s);
    decoder_.remove(s.seq, 0, -1);
    pool_.give_back(s.seq);
    cache_.release(s.pin);
  }
  s.seq = -1;
  s.pin = {};
  s.waiting_since = clock_.now();
  s.reserved = std::min(std::max(s.reserved, s.size() + 1), max_request_tokens_);
  ++stats_.parks;
  (s.background ? parked_background_ : parked_interactive_).push_back(std::move(sequence));
}

// Open-ended sequences that have used up their cells reserve more; where there are none, the youngest is parked, the asker itself if it is that.
void SchedulerCore::reserve_growth() {
  std::vector<Sequence*> full;
  for (const auto& s : running_) {
    if (s->size() > s->reserved) full.push_back(s.get());
  }
  for (Sequence* s : full) {
    const int wanted = std::min(s->size() + options_.open_ended_reserve, max_request_tokens_);
    // Alone there is always room: cached cells give way, and one request never exceeds the context.
    while (s->seq >= 0 && running_.size() > 1 && free_cells() < wanted - s->size()) park(*youngest_running(false));
    s->reserved = wanted;
  }
}

int SchedulerCore::prefill_budget(int decode_rows, bool beside_streams) const {
  const int rows = std::min(options_.batch_tokens, decoder_.max_batch()) - decode_rows;
  if (ms_per_row_ <= 0) return rows;
  // Larger chunks compute a prompt faster; smaller ones bound how long whoever streams, or arrives meanwhile, has to wait.
  const auto target = static_cast<double>((beside_streams ? options_.tick_target : options_.tick_target_alone).count());
  const int in_time = static_cast<int>(target / ms_per_row_) - decode_rows;
  return std::min(rows, std::max(in_time, beside_streams ? smallest_chunk_beside_streams : smallest_chunk_alone));
}

// Puts the sequence's next `rows` tokens into the batch, as neighbours, its draft last.
void SchedulerCore::add_rows(Sequence& sequence) {
  sequence.first_row = static_cast<int>(batch_.size());
  const bool all = sequence.generation().echo_logprobs;
  for (int pos = sequence.computed; pos < sequence.computed + sequence.rows; ++pos) {
    const bool guessed = pos >= sequence.size();
    const Token token =
        guessed ? sequence.draft[static_cast<std::size_t>(pos - sequence.size())] : sequence.tokens[static_cast<std::size_t>(pos)];
    const ImageRows* image = sequence.image(token);
    batch_.push_back({token, pos, sequence.seq, image == nullptr && (all || pos + 1 >= sequence.size()), image});
  }
}

// Guesses how those that stream now go on, `room` rows at most.
void SchedulerCore::add_drafts(int streams, int rows, int room) {
  if (speculator_ == nullptr || room <= 0) return;
  std::vector<Sequence*> guessing;
  std::vector<DraftSource::Want> wants;
  for (auto& s : running_) {
    if (s->rows != 1 || !s->streaming() || !s->generation().speculate) continue;
    // Within the cells it was promised, and never past its end: its last token comes from a row of its own.
    int limit = std::min(s->promised() - s->size(), max_request_tokens_ - s->size() - 1);
    if (s->generation().max_tokens) limit = std::min(limit, *s->generation().max_tokens - s->generated - 1);
    if (limit <= 0) continue;
    guessing.push_back(s.get());
    wants.push_back({.seq = s->seq, .tokens = s->tokens, .limit = limit});
  }
  speculator_->draft(wants, streams, rows, room);
  for (std::size_t i = 0; i < guessing.size(); ++i) {
    guessing[i]->draft = std::move(wants[i].draft);
    guessing[i]->rows += static_cast<int>(guessing[i]->draft.size());
  }
}

// The decoder computes with one adapter at a time and takes long to change it. So those that have work take turns, round robin: each runs for its
// slice, or until it has nothing left to do, and with n of them none waits longer than n - 1 slices and their last ticks. True when it changed.
bool SchedulerCore::choose_adapter() {
  const auto has_work = [&](std::uint64_t id) {
    return std::any_of(running_.begin(), running_.end(),
                       [&](const SequencePtr& s) { return s->adapter() == id && !s->reader_behind(options_.sink_backlog); });
  };
  std::erase_if(turns_, [&](std::uint64_t id) { return !has_work(id); });
  for (const auto& s : running_) {
    if (std::find(turns_.begin(), turns_.end(), s->adapter()) == turns_.end() && has_work(s->adapter())) turns_.push_back(s->adapter());
  }
  if (turns_.empty()) return false;
  if (turns_.size() > 1 && turns_.front() == attached_ && clock_.now() - attached_since_ >= options_.adapter_slice) {
    turns_.push_back(turns_.front());
    turns_.pop_front();
  }
  if (turns_.front() == attached_) return false;
  attached_ = turns_.front();
  attached_since_ = clock_.now();
  const auto user = std::find_if(running_.begin(), running_.end(), [this](const SequencePtr& s) { return s->adapter() == attached_; });
  decoder_.use_adapter((*user)->generation().adapter.get());
  ++stats_.adapter_switches;
  return true;
}

// How many further rows the sequence may have in this batch: at most `share`, or all of an image that must be computed at once if `room` suffices. Text and
// images, and one image and the next, are never together.
int SchedulerCore::further_rows(const Sequence& s, int share, int room) const {
  const int most = std::min(share, s.remaining() - s.rows);
  if (most <= 0 || s.generation().images.empty()) return std::max(most, 0);
  const auto begin = static_cast<std::size_t>(s.computed) + static_cast<std::size_t>(s.rows);
  const Token token = s.tokens[begin];
  if (s.rows > 0 && !inside_image(s.tokens, begin) && (is_placeholder(token) || is_placeholder(s.tokens[begin - 1]))) return 0;
  if (const ImageRows* image = s.image(token)) {
    const int rest = image->count - (image->first - token);
    if (image->whole) return rest <= room ? rest : 0;
    return std::min(most, rest);
  }
  int count = 1;
  while (count < most && !is_placeholder(s.tokens[begin + static_cast<std::size_t>(count)])) ++count;
  return count;
}

void SchedulerCore::build_batch() {
  batch_.clear();
  const int limit = std::min(options_.batch_tokens, decoder_.max_batch());
  bool streams = false;  // of any adapter: those of the others wait for this tick too
  int rows = 0;
  std::vector<Sequence*> starting;
  for (auto& sequence : running_) {
    sequence->rows = 0;
    if (sequence->reader_behind(options_.sink_backlog)) continue;
    streams = streams || sequence->streaming();
    if (sequence->adapter() != attached_) continue;
    if (!sequence->streaming()) {
      starting.push_back(sequence.get());
    } else if (rows < limit) {
      sequence->rows = 1;
      ++rows;
    }
  }
  const int decoding = rows;
  int room = limit - rows;
  if (!starting.empty()) {
    int budget = prefill_budget(decoding, streams);
    // Half of the budget goes to whoever needs least to start streaming, the other half to who came first, so that a long prompt advances in
    // every tick. Few prompts at a time: attention passes over the cells of all that have begun.
    const auto spend = [&](int share, auto rank) {
      std::sort(starting.begin(), starting.end(), [&](const Sequence* a, const Sequence* b) { return rank(*a) < rank(*b); });
      for (Sequence* s : starting) {
        const int count = further_rows(*s, share, limit - rows);
        s->rows += count;
        rows += count;
        share -= count;
        budget -= count;
      }
    };
    // An image that needs much room at once would wait for ever if others always took some first.
    Sequence* const first = *std::min_element(starting.begin(), starting.end(), [](const Sequence* a, const Sequence* b) {
      return std::pair(a->background, a->admission) < std::pair(b->background, b->admission);
    });
    if (const ImageRows* image = first->image(first->tokens[static_cast<std::size_t>(first->computed)]); image != nullptr && image->whole) {
      first->rows = further_rows(*first, 1, limit - rows);
      rows += first->rows;
      budget -= first->rows;
    }
    spend(budget / 2, [](const Sequence& s) { return std::tuple(s.background, s.remaining(), s.admission); });
    spend(budget, [](const Sequence& s) { return std::tuple(s.background, s.admission); });
    room = budget;  // guesses get what the prompts leave
  }
  add_drafts(decoding, rows, room);
  for (auto& sequence : running_) {
    if (sequence->rows > 0) add_rows(*sequence);
  }
  make_unused(static_cast<int>(batch_.size()));
}

// Runs the batch. If it fails, each sequence is tried alone, so that only those at fault fail. True when the whole batch ran at once.
bool SchedulerCore::decode_batch() {
  if (decoder_.decode(batch_)) {
    for (auto& sequence : running_) sequence->computed += sequence->rows - static_cast<int>(sequence->draft.size());
    return true;
  }
  const std::vector<BatchToken> whole = std::move(batch_);
  for (auto& sequence : running_) {
    if (sequence->rows == 0) continue;
    batch_.assign(whole.begin() + sequence->first_row, whole.begin() + sequence->first_row + sequence->rows);
    auto alone = decoder_.decode(batch_);
    if (!alone && !sequence->draft.empty()) {  // a guess must not be what an answer fails by
      sequence->draft.clear();
      sequence->rows = 1;
      batch_.resize(1);
      alone = decoder_.decode(batch_);
    }
    if (!alone) {
      fail_request(*sequence->request, alone.error());
      continue;
    }
    sequence->computed += sequence->rows - static_cast<int>(sequence->draft.size());
    sequence->first_row = 0;
    deliver(*sequence);  // before the next decode replaces the logits
    sequence->rows = 0;
  }
  batch_ = whole;
  return false;
}

void SchedulerCore::fail_request(Request& request, const Error& error) {
  if (request.over) return;
  request.over = true;
  ++stats_.failed;
  request.generation.sink->on_failed(error);
}

void SchedulerCore::fail_all(const Error& error) {
  for (auto* queue : {&interactive_, &background_}) {
    queue->remove_if([&](const SequencePtr& s) {
      fail_request(*s->request, error);
      return true;
    });
  }
  for (auto* parked : {&parked_interactive_, &parked_background_}) {
    for (auto& s : *parked) fail_request(*s->request, error);
    parked->clear();
  }
  parked_bytes_ = 0;
  for (auto& s : running_) {
    fail_request(*s->request, error);
    s->done = true;
  }
  remove_finished();
}

void SchedulerCore::deliver_prompt_scores(Sequence& s) {
  SequenceDelta delta;
  delta.choice = s.choice;
  const int first = s.computed - s.rows;
  for (int i = 0; i < s.rows; ++i) {
    const int next = first + i + 1;  // the row at `first + i` predicts this token
    if (next >= s.prompt_size()) break;
    delta.tokens.push_back(
        s.sampler->info(s.first_row + i, s.tokens[static_cast<std::size_t>(next)], std::max(0, s.generation().top_logprobs)));
  }
  if (!delta.tokens.empty()) s.generation().sink->on_delta(std::move(delta));
}

void SchedulerCore::announce(const Sequence& s) {
  Request& request = *s.request;
  if (request.started) return;
  request.started = true;
  stats_.cached_tokens += s.pin.tokens;
  request.generation.sink->on_started(s.prompt_size(), s.pin.tokens);
}

// The first choice's prompt is in the KV memory: others may share it from now on, its own siblings first of all.
void SchedulerCore::prompt_done(Sequence& s) {
  Request& request = *s.request;
  stats_.prompt_tokens += s.prompt_size();
  if (can_share_) s.pin = cache_.insert(s.generation().adapter, s.generation().prompt, s.seq, s.pin);
  if (s.choice != 0) return;
  for (int c = request.generation.choices - 1; c > 0; --c) {
    auto sibling = std::make_unique<Sequence>(s.request, c);
    sibling->background = s.background;
    sibling->waiting_since = request.added;
    (s.background ? background_ : interactive_).push_front(request.generation.tenant, std::move(sibling), 0);
  }
}

// The sequence's rows have been computed: choose its next token if its end was among them, and send what that makes visible.
void SchedulerCore::deliver(Sequence& s) {
  const bool scores = s.generation().echo_logprobs && s.generated == 0;
  if (scores || s.remaining() == 0) announce(s);
  if (scores) deliver_prompt_scores(s);
  if (s.remaining() > 0) return;
  if (s.generated == 0) prompt_done(s);
  SequenceDelta delta;
  delta.choice = s.choice;
  if (s.generation().max_tokens && *s.generation().max_tokens == 0) {  // only the prompt was wanted
    delta.finished = chat::FinishReason::length;
  } else if (auto sampled = sample(s, delta); !sampled) {
    fail_request(*s.request, sampled.error());
    return;
  }
  if (delta.finished) {
    s.done = true;
    Request& request = *s.request;
    if (--request.unfinished == 0) {
      ++stats_.finished;
      ms_per_request_ += (milliseconds(clock_.now() - request.added) - ms_per_request_) * smoothing;
    }
  }
  s.generation().sink->on_delta(std::move(delta));
}

// Chooses the token after the last one and, as long as it turns out to be what was guessed, the one after that.
Result<void> SchedulerCore::sample(Sequence& s, SequenceDelta& delta) {
  delta.drafted = static_cast<int>(s.draft.size());
  for (int row = s.first_row + s.rows - 1 - delta.drafted;; ++row) {
    auto sampled = s.sampler->sample(row);
    if (!sampled) return std::move(sampled).error();
    const bool guessed = delta.accepted < delta.drafted && sampled->token == s.draft[static_cast<std::size_t>(delta.accepted)];
    if (guessed) ++delta.accepted;
    take_token(s, *sampled, row, delta);
    if (delta.finished || !guessed) break;
    ++s.computed;  // the guess was its row
  }
  if (delta.drafted > 0) {
    stats_.drafted_tokens += delta.drafted;
    stats_.accepted_tokens += delta.accepted;
    speculator_->verified(s.seq, delta.drafted, delta.accepted, delta.finished.has_value());
    forget_draft(s);
  }
  return {};
}

void SchedulerCore::take_token(Sequence& s, const SampledToken& sampled, int row, SequenceDelta& delta) {
  const Generation& generation = s.generation();
  const auto append = [&delta](TextStream::Released released) {
    delta.text += released.text;
    std::move(released.tokens.begin(), released.tokens.end(), std::back_inserter(delta.tokens));
    return released.stopped;
  };
  ++s.generated;
  ++stats_.generated_tokens;
  ++delta.token_count;
  if (sampled.end) {
    append(s.text.finish());
    delta.finished = chat::FinishReason::stop;
    return;
  }
  const Token token = sampled.token;
  s.tokens.push_back(token);
  std::optional<chat::TokenInfo> info;
  if (generation.top_logprobs >= 0) {
    info = s.sampler->info(row, token, generation.top_logprobs);
    info->choice = s.choice;
  }
  if (const auto stop = append(s.text.push(decoder_.piece(token, s.shown.contains(token)), info ? &*info : nullptr))) {
    delta.finished = chat::FinishReason::stop;
    if (*stop < generation.stop.size()) delta.stop_sequence = generation.stop[*stop];
  } else if ((generation.max_tokens && s.generated >= *generation.max_tokens) || s.size() >= max_request_tokens_) {
    append(s.text.finish());
    delta.finished = chat::FinishReason::length;
  }
}

// What was guessed and not taken leaves the KV memory.
void SchedulerCore::forget_draft(Sequence& s) {
  if (s.draft.empty()) return;
  decoder_.remove(s.seq, s.computed, -1);
  s.draft.clear();
}

// The sequence is about to give its id back.
void SchedulerCore::leave(Sequence& s) {
  forget_draft(s);
  if (speculator_ != nullptr) speculator_->drop(s.seq);
}

void SchedulerCore::retire(Sequence& s) {
  if (s.seq < 0) return;
  leave(s);
  // Half an image is of no use to anybody.
  const int end = s.computed;
  while (inside_image(s.tokens, static_cast<std::size_t>(s.computed))) --s.computed;
  if (s.computed < end) decoder_.remove(s.seq, s.computed, -1);
  if (can_share_ && s.computed > 0) {
    cache_.insert_and_release(s.generation().adapter, std::span(s.tokens).first(static_cast<std::size_t>(s.computed)), s.seq, s.pin);
  } else {
    decoder_.remove(s.seq, 0, -1);
    pool_.give_back(s.seq);
    cache_.release(s.pin);
  }
  s.seq = -1;
  s.pin = {};
}

void SchedulerCore::remove_finished() {
  for (auto& s : running_) {
    if (s->done || s->request->over) retire(*s);
  }
  std::erase_if(running_, [](const SequencePtr& s) { return s->done || s->request->over; });
  cache_.trim();
}

// Attention passes over every cell in use, so idle prefixes slow down whoever runs: they go to host memory, a bounded copy per tick.
void SchedulerCore::park_idle_prefixes() {
  if (!cache_.parks() || running_.empty() || cache_.unpinned_cells() == 0) return;
  const std::int64_t per_tick = std::max<std::int64_t>(1, most_parked_per_tick / std::max<std::int64_t>(1, decoder_.bytes_per_cell()));
  cache_.evict(static_cast<int>(std::min<std::int64_t>(cache_.unpinned_cells(), per_tick)));
}

SchedulerStats SchedulerCore::stats() const {
  SchedulerStats s = stats_;
  s.waiting = static_cast<int>(interactive_.size() + background_.size());
  s.running = static_cast<int>(running_.size());
  s.parked = static_cast<int>(parked_interactive_.size() + parked_background_.size());
  s.cells_total = total_cells_;
  s.cells_cached = cache_.unpinned_cells();
  s.prefix_parked_bytes = cache_.parked_bytes();
  const auto kv = decoder_.kv_cost();
  s.kv_bytes = kv.bytes;
  s.kv_encoding_us = kv.encoding.count();
  s.kv_attention_us = kv.attention.count();
  s.parked_bytes = parked_bytes_;
  if (options_.files != nullptr) {
    s.disk_bytes = options_.files->bytes();
    s.disk_lost = options_.files->lost();
  }
  s.cells_used = used_cells();
  return s;
}

std::chrono::milliseconds SchedulerCore::retry_after() const {
  const double rounds = static_cast<double>(interactive_.size() + background_.size()) / options_.max_running;
  const double ms = ms_per_request_ * std::max(1.0, rounds);
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::clamp(ms, 1000.0, 60'000.0)));
}

}  // namespace hearth::engine
