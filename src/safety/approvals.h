// Calls that wait for a person's word. An operator sees them with `hearth approvals` or over the admin API, and says yes or no; nobody saying anything in time is a no.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/task.h"
#include "safety/verdict.h"

namespace hearth::safety {

// What an operator is shown of a call. The arguments are those that will be released.
struct HeldCall {
  std::string id;  // "hold_…", unguessable
  std::string tenant, model, request_id;
  std::string tool, arguments;
  std::string rule, reason, excerpt;  // of the finding that decided
  std::string layer;
  std::int64_t since = 0, until = 0;  // Unix seconds
};

// On the loop.
class Approvals {
 public:
  enum class Outcome { approved, refused, timed_out };
  struct Word {
    Outcome outcome = Outcome::timed_out;
    std::string by;    // the tenant who said it
    std::string note;  // their reason; may be empty
  };

  // `most`: so many may wait at once.
  Approvals(net::asio::io_context& io, const Clock& clock, std::chrono::milliseconds patience, std::size_t most);
  ~Approvals();

  // Destroying it takes the call off the list; nobody is called then.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    friend class Approvals;
    Ticket(Approvals& all, std::string id) : all_(all), id_(std::move(id)) {}
    Approvals& all_;
    const std::string id_;
  };
  // Puts a call on the list under a new id. `told` is called once, later. overloaded when too many wait.
  Result<std::unique_ptr<Ticket>> add(HeldCall call, std::function<void(const HeldCall&, Word)> told);

  // invalid_request when no call of this id waits (any more).
  Result<void> decide(std::string_view id, bool approved, std::string by, std::string note);
  std::vector<HeldCall> list() const;

  // Ends what has waited long enough; the timer does it too.
  void expire();
  // Called with each call that begins to wait, and again with its outcome ("held", "approved", "refused", "timed_out", "withdrawn").
  std::function<void(const HeldCall&, std::string_view what, std::string_view by)> on_change;

 private:
  struct Waiting {
    HeldCall call;
    TimePoint deadline;
    std::function<void(const HeldCall&, Word)> told;
  };
  void remove(const std::string& id);
  void end(std::list<Waiting>::iterator one, Word word);
  void arm();

  net::asio::steady_timer timer_;
  const Clock& clock_;
  const std::chrono::milliseconds patience_;
  const std::size_t most_;
  std::list<Waiting> waiting_;  // oldest first
};

std::string_view name(Approvals::Outcome outcome);

}  // namespace hearth::safety
