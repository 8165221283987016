#include "safety/approvals.h"

#include <algorithm>
#include <utility>

#include "base/id.h"

namespace hearth::safety {
namespace {

std::int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string_view name(Approvals::Outcome outcome) {
  switch (outcome) {
    case Approvals::Outcome::approved: return "approved";
    case Approvals::Outcome::refused: return "refused";
    case Approvals::Outcome::timed_out: return "timed_out";
  }
  return "";
}

Approvals::Approvals(net::asio::io_context& io, const Clock& clock, std::chrono::milliseconds patience, std::size_t most)
    : timer_(io), clock_(clock), patience_(patience), most_(most) {}
Approvals::~Approvals() = default;

Approvals::Ticket::~Ticket() { all_.remove(id_); }

Result<std::unique_ptr<Approvals::Ticket>> Approvals::add(HeldCall call, std::function<void(const HeldCall&, Word)> told) {
  if (waiting_.size() >= most_) return Error{ErrorCode::overloaded, std::to_string(most_) + " calls wait for approval already", {}};
  call.id = random_id("hold_");
  call.since = unix_now();
  call.until = call.since + std::chrono::duration_cast<std::chrono::seconds>(patience_).count();
  waiting_.push_back({std::move(call), clock_.now() + patience_, std::move(told)});
  const auto& added = waiting_.back().call;
  auto ticket = std::unique_ptr<Ticket>(new Ticket(*this, added.id));
  if (on_change) on_change(added, "held", {});
  arm();
  return ticket;
}

Result<void> Approvals::decide(std::string_view id, bool approved, std::string by, std::string note) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& one) { return one.call.id == id; });
  if (found == waiting_.end())
    return invalid("no call waits under \"" + std::string(id.substr(0, 100)) +
                       "\": it was decided, timed out, or its client left; see `hearth approvals`",
                   "id");
  end(found, {approved ? Outcome::approved : Outcome::refused, std::move(by), std::move(note)});
  return {};
}

std::vector<HeldCall> Approvals::list() const {
  std::vector<HeldCall> out;
  for (const auto& one : waiting_) out.push_back(one.call);
  return out;
}

void Approvals::expire() {
  while (!waiting_.empty() && waiting_.front().deadline <= clock_.now()) end(waiting_.begin(), {});
}

void Approvals::remove(const std::string& id) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& one) { return one.call.id == id; });
  if (found == waiting_.end()) return;
  const Waiting one = std::move(*found);
  waiting_.erase(found);
  if (on_change) on_change(one.call, "withdrawn", {});
}

void Approvals::end(std::list<Waiting>::iterator one, Word word) {
  const Waiting ended = std::move(*one);
  waiting_.erase(one);
  if (on_change) on_change(ended.call, name(word.outcome), word.by);
  ended.told(ended.call, std::move(word));
}

void Approvals::arm() {
  if (waiting_.empty()) return;
  timer_.expires_at(waiting_.front().deadline);
  timer_.async_wait([this](const boost::system::error_code& stopped) {
    if (stopped) return;
    expire();
    arm();
  });
}

}  // namespace hearth::safety
