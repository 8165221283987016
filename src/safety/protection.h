// Safety as the gateway uses it: looks at what a request brings, stands around its answer, asks the judge off the loop and a person where the judge wants one, and writes down
// what was decided. Whatever fails here, nothing is released that was not judged.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "chat/request.h"
#include "safety/approvals.h"
#include "safety/hold.h"
#include "safety/judge.h"
#include "safety/text_scan.h"
#include "wire/provider.h"

namespace hearth::safety {

enum class Mode {
  enforce,  // verdicts count
  observe,  // verdicts are recorded, and everything is released
  off,      // nobody looks
};
std::string_view name(Mode mode);

// What of a call's arguments the audit log keeps, beside their hash.
enum class KeptArguments { none, masked, full };

struct ProtectionOptions {
  Mode mode = Mode::enforce;
  JudgeOptions judge;
  std::string folder;                            // where the audit log is
  bool ask = true;                               // calls that need approval wait for a person; false: they are refused
  std::chrono::milliseconds patience{120'000};   // nobody's word within it is a no
  std::chrono::milliseconds judge_limit{2'000};  // a judge that takes longer has failed
  HoldLimits limits;
  KeptArguments arguments = KeptArguments::masked;
  TextCheck text = TextCheck::off;            // the model's own words; in mode observe at most audit
  std::size_t text_hold_back = 256;           // bytes of them that wait for what follows; a quarter more at most
  std::vector<std::string> approvers;         // API keys, by name, that may approve; empty: any
  std::size_t most_waiting = 256;             // calls that wait for a person at once
  std::function<Judgement(Action)> evaluate;  // tests: in place of the judge
};

// One call's end, for metrics.
struct Ruled {
  Decision decision = Decision::allow;
  std::optional<Layer> layer;  // that decided
  std::string_view outcome;    // "released", "refused", "approved", "timed_out", "withdrawn"
  std::chrono::nanoseconds judged{0};
};

struct ProtectionEvents {
  std::function<void(const Ruled& ruled)> ruled;
  std::function<void(const HeldCall& call, std::string_view what, std::string_view by)> held;  // as Approvals::on_change
};

// On the loop, but for the judge.
class Protection {
 public:
  // config_invalid or io: policy, learned models or audit log cannot be used. In mode off nothing is opened.
  static Result<std::unique_ptr<Protection>> make(net::asio::io_context& io, ProtectionOptions options, ProtectionEvents events,
                                                  const Clock& clock = Clock::system());
  ~Protection();

  // What is known of a request; its answer's calls are judged by it.
  struct Session;
  // Looks at what tools returned. forbidden when the policy refuses that it goes to this model. May put stand-ins into the request, and then drops the caller's origin.
  net::Task<Result<std::shared_ptr<const Session>>> look(chat::Request& request, wire::Caller& caller, std::string model, bool remote);
  // The answer, calls held and text looked through where that is set. Null session or mode off: as it is.
  std::unique_ptr<wire::EventStream> guard(std::unique_ptr<wire::EventStream> stream, std::shared_ptr<const Session> session);

  std::vector<HeldCall> waiting() const;
  // forbidden when `tenant` may not.
  Result<void> decide(std::string_view id, bool approved, const std::string& tenant, std::string note);
  // Reads the policy again; the old one stays on a mistake. Either is written down.
  Result<void> reload(std::string_view by);
  // Whether the policy's file has changed since it was read.
  bool policy_changed();
  Mode mode() const;
  // Waits for the judge's threads; nothing is judged afterwards. Before the loop ends.
  void stop();

  class Impl;

 private:
  explicit Protection(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace hearth::safety
