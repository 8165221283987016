#include "safety/protection.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <list>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "base/utf8.h"
#include "fleet/loop_event.h"
#include "safety/conversation.h"
#include "store/audit_log.h"

namespace hearth::safety {

using net::Task;

// The conversation a call belongs to.
struct Protection::Session {
  Action base;
  std::vector<chat::ToolSpec> tools;
  std::string request_id;
  bool raw = true;  // frames may pass
};

namespace {

constexpr std::size_t longest_excerpt = 400;      // bytes of arguments in the audit log
constexpr std::size_t most_arguments = 16 << 10;  // where all of them are kept
constexpr std::size_t longest_shown = 64 << 10;   // of arguments, to an operator
constexpr std::size_t most_findings = 8;
constexpr std::size_t remembered_results = 1024;

std::string sha256(std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::string out;
  for (const unsigned char byte : digest) {
    out += hex[byte >> 4];
    out += hex[byte & 15];
  }
  return out;
}

// At most `most` bytes, whole characters.
std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return std::string(text.substr(0, most)) + "…";
}

// A call that would say the operator's word itself.
bool reaches_for_approvals(std::string_view arguments) {
  std::string plain;
  for (const char c : arguments) {
    if (c != '\\' && c != '"' && c != '\'') plain += c;
  }
  return plain.find("admin/approvals") != std::string::npos || plain.find("admin/safety") != std::string::npos ||
         plain.find("hearth approvals approve") != std::string::npos;
}

std::string refusal(const std::string& tool, const Finding& finding, std::string_view ending) {
  std::string out = "hearth did not release this call of " + shortened(tool, 100) + ": " + finding.reason;
  out += " (rule " + finding.rule + ", layer " + std::string(name(finding.layer));
  if (!finding.excerpt.empty()) out += ", in `" + finding.excerpt + "`";
  out += ").";
  if (!ending.empty()) out.append(" ").append(ending);
  if (!finding.remedy.empty()) out += " Accepted instead: " + finding.remedy + ".";
  return out;
}

struct Case;

}  // namespace

std::string_view name(Mode mode) {
  switch (mode) {
    case Mode::enforce: return "enforce";
    case Mode::observe: return "observe";
    case Mode::off: return "off";
  }
  return "";
}

class Protection::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(net::asio::io_context& loop, ProtectionOptions given, ProtectionEvents told, const Clock& with)
      : io(loop),
        options(std::move(given)),
        events(std::move(told)),
        approvals(loop, with, options.patience, options.most_waiting),
        pool(2) {
    approvals.on_change = [this](const HeldCall& call, std::string_view what, std::string_view by) {
      if (events.held) events.held(call, what, by);
    };
  }
  ~Impl() { stop(); }
  void stop() {
    if (std::exchange(stopped, true)) return;
    pool.stop();
    pool.join();
  }

  json::object row(std::string_view event, const Session& session) const {
    return {{"event", event},
            {"request", session.request_id},
            {"tenant", session.base.tenant},
            {"model", session.base.model},
            {"mode", name(options.mode)}};
  }
  // False: it could not be written.
  bool write(json::object fields) {
    if (!audit) return true;
    const auto done = audit->append(std::move(fields));
    if (!done.ok() && !std::exchange(complained, true)) spdlog::error("{}: no call is released", done.error().message);
    return done.ok();
  }
  void add_arguments(json::object& fields, const std::string& arguments) const {
    fields["arguments_bytes"] = arguments.size();
    fields["arguments_sha256"] = sha256(arguments);
    if (options.arguments == KeptArguments::full) fields["arguments"] = shortened(arguments, most_arguments);
    if (options.arguments == KeptArguments::masked) fields["arguments"] = masked(arguments, longest_excerpt);
  }
  // An excerpt without what Argus would not let go. What is cut off is masked too: a secret must not stay because half of it is missing.
  std::string masked(const std::string& arguments, std::size_t most) const {
    if (!judge) return {};
    const std::string_view head = std::string_view(arguments).substr(0, most * 8);
    const auto whole = head.size() == arguments.size();
    const auto matches = whole ? judge->argus().scan_json(head) : judge->argus().scan(head);
    return shortened(whole ? Argus::redact_json(head, matches) : Argus::redact(head, matches), most);
  }
  static void add_verdict(json::object& fields, const Verdict& verdict) {
    fields["decision"] = name(verdict.decision);
    if (const auto* finding = verdict.decisive()) {
      fields["layer"] = name(finding->layer);
      fields["rule"] = shortened(finding->rule, 100);
      fields["reason"] = shortened(finding->reason, 500);
      if (!finding->excerpt.empty()) fields["excerpt"] = shortened(finding->excerpt, 200);
    }
    if (verdict.findings.size() < 2) return;
    json::array more;
    for (std::size_t i = 1; i < std::min(verdict.findings.size(), most_findings); ++i) {
      const auto& finding = verdict.findings[i];
      more.push_back({{"decision", name(finding.decision)}, {"layer", name(finding.layer)}, {"rule", shortened(finding.rule, 100)}});
    }
    fields["further"] = std::move(more);
  }

  net::asio::io_context& io;
  const ProtectionOptions options;
  const ProtectionEvents events;
  std::shared_ptr<Judge> judge;
  std::unique_ptr<store::AuditLog> audit;
  Approvals approvals;
  net::asio::thread_pool pool;
  std::filesystem::file_time_type policy_time;
  bool stopped = false, complained = false;

  // Results that were looked at before: conversations bring theirs again with every request.
  std::shared_ptr<const Judge::ResultJudgement> known(const std::string& key) {
    const auto found = places.find(key);
    if (found == places.end()) return nullptr;
    order.splice(order.begin(), order, found->second);
    return found->second->second;
  }
  void keep(const std::string& key, std::shared_ptr<const Judge::ResultJudgement> what) {
    order.emplace_front(key, std::move(what));
    places[key] = order.begin();
    if (order.size() <= remembered_results) return;
    places.erase(order.back().first);
    order.pop_back();
  }
  void forget() {
    order.clear();
    places.clear();
  }

 private:
  using Order = std::list<std::pair<std::string, std::shared_ptr<const Judge::ResultJudgement>>>;
  Order order;
  std::unordered_map<std::string, Order::iterator> places;
};

namespace {

using Clocked = std::chrono::steady_clock;

// One call on its way through judge and person. Everything but the judge's own work is on the loop.
struct Case : std::enable_shared_from_this<Case> {
  Case(std::shared_ptr<Protection::Impl> with, std::shared_ptr<const Protection::Session> of, Action what,
       std::function<void(Ruling)> tell);

  void begin();
  void judged(Judgement judgement);
  void withdraw();

 private:
  void hold();
  void told(const HeldCall& held, const Approvals::Word& word);
  void release(std::string_view outcome);
  void refuse(std::string_view outcome, const Finding& finding, std::string_view ending);
  bool write(std::string_view outcome, std::string_view by = {}, std::string_view note = {});
  void count(std::string_view outcome) const;
  static Finding decisive(const Verdict& verdict);

  const std::shared_ptr<Protection::Impl> all;
  const std::shared_ptr<const Protection::Session> session;
  const Action action;
  std::function<void(Ruling)> ruled;
  net::asio::steady_timer limit;
  std::unique_ptr<Approvals::Ticket> ticket;
  Verdict verdict;
  const Clocked::time_point begun = Clocked::now();
  std::chrono::nanoseconds took{0};
  std::string held_id;
  bool judging = true, done = false;
};

Case::Case(std::shared_ptr<Protection::Impl> with, std::shared_ptr<const Protection::Session> of, Action what,
           std::function<void(Ruling)> tell)
    : all(std::move(with)), session(std::move(of)), action(std::move(what)), ruled(std::move(tell)), limit(all->io) {}

void Case::begin() {
  limit.expires_after(all->options.judge_limit);
  limit.async_wait([self = shared_from_this()](const boost::system::error_code& stopped) {
    if (stopped || !self->judging) return;
    Judgement slow;
    slow.verdict.add({Decision::deny, Layer::stream, "too_slow",
                      "the call could not be judged within " + std::to_string(self->all->options.judge_limit.count()) + " ms", "",
                      "a smaller call"});
    self->judged(std::move(slow));
  });
  // The judge's thread knows nothing of this case but where to bring the judgement.
  net::asio::post(all->pool,
                  [judge = all->judge, evaluate = all->options.evaluate, copy = action, weak = weak_from_this(), &io = all->io]() mutable {
                    auto judgement = std::make_shared<Judgement>();
                    try {
                      *judgement = evaluate ? evaluate(std::move(copy)) : judge->judge(std::move(copy));
                    } catch (...) {
                      judgement->verdict = {};
                      judgement->verdict.add({Decision::deny, Layer::stream, "judge_failed", "the call could not be judged", "", ""});
                    }
                    net::asio::post(io, [weak = std::move(weak), judgement] {
                      if (const auto self = weak.lock()) self->judged(std::move(*judgement));
                    });
                  });
}

Finding Case::decisive(const Verdict& verdict) {
  const auto* finding = verdict.decisive();
  return finding != nullptr ? *finding : Finding{verdict.decision, Layer::policy, "none", "the policy decides so", "", ""};
}

void Case::judged(Judgement judgement) {
  if (!std::exchange(judging, false) || done) return;
  limit.cancel();
  took = Clocked::now() - begun;
  verdict = std::move(judgement.verdict);
  if (reaches_for_approvals(action.call.arguments))
    verdict.add({Decision::deny, Layer::stream, "own_approval", "a call may not approve calls", "", "ask the person to approve"});
  if (all->options.mode == Mode::observe) {
    release("released");
    return;
  }
  switch (verdict.decision) {
    case Decision::allow:
    case Decision::audit: release("released"); break;
    case Decision::require:
      if (all->options.ask) hold();
      else refuse("refused", decisive(verdict), "It needs a person's approval, and this server is set to refuse such calls.");
      break;
    case Decision::deny: refuse("refused", decisive(verdict), ""); break;
  }
}

void Case::hold() {
  const auto finding = decisive(verdict);
  HeldCall held{.tenant = action.tenant,
                .model = action.model,
                .request_id = session->request_id,
                .tool = shortened(action.call.name, 200),
                .arguments = shortened(action.call.arguments, longest_shown),
                .rule = finding.rule,
                .reason = finding.reason,
                .excerpt = finding.excerpt,
                .layer = std::string(name(finding.layer))};
  auto added = all->approvals.add(std::move(held),
                                  [self = shared_from_this()](const HeldCall& call, Approvals::Word word) { self->told(call, word); });
  if (!added.ok()) {
    refuse("refused", finding, added.error().message + ".");
    return;
  }
  ticket = std::move(*added);
  for (const auto& one : all->approvals.list()) held_id = one.id;  // the newest
  if (!write("held")) refuse("refused", {Decision::deny, Layer::stream, "audit_failed", "the audit log cannot be written", "", ""}, "");
  else
    spdlog::warn("a call of {} waits for approval: {}. hearth approvals approve {}", shortened(action.call.name, 100), finding.rule,
                 held_id);
}

void Case::told(const HeldCall&, const Approvals::Word& word) {
  if (done) return;
  const bool approved = word.outcome == Approvals::Outcome::approved;
  if (word.outcome != Approvals::Outcome::timed_out && all->judge) {
    // What a person says is a lesson; it takes files and time, and so the judge's threads.
    net::asio::post(all->pool, [judge = all->judge, copy = action, refused = !approved] { judge->learn(copy, refused); });
  }
  const bool written = write(name(word.outcome), word.by, word.note);
  if (approved && written) {
    done = true;
    count("approved");
    ruled({.release = true});
    return;
  }
  const std::string seconds = std::to_string(all->options.patience.count() / 1000);
  done = true;
  count(name(word.outcome));
  Ruling ruling;
  ruling.text =
      refusal(action.call.name, decisive(verdict),
              word.outcome == Approvals::Outcome::timed_out ? "It needs a person's approval, and nobody gave it within " + seconds + " s."
              : approved                                    ? "It was approved, but the audit log cannot be written."
                         : "A person refused it" + (word.note.empty() ? "." : ": " + shortened(word.note, 500) + "."));
  ruled(std::move(ruling));
}

void Case::release(std::string_view outcome) {
  if (!write(outcome) && all->options.mode == Mode::enforce) {
    verdict.add({Decision::deny, Layer::stream, "audit_failed", "the audit log cannot be written", "", ""});
    refuse("refused", decisive(verdict), "");
    return;
  }
  done = true;
  count(outcome);
  ruled({.release = true, .arguments = all->options.mode == Mode::enforce ? verdict.replaced_arguments : std::string()});
}

void Case::refuse(std::string_view outcome, const Finding& finding, std::string_view ending) {
  done = true;
  ticket.reset();
  write(outcome);
  count(outcome);
  ruled({.text = refusal(action.call.name, finding, ending)});
}

void Case::withdraw() {
  judging = false;
  limit.cancel();
  if (std::exchange(done, true)) return;
  ticket.reset();
  write("withdrawn");
  count("withdrawn");
}

bool Case::write(std::string_view outcome, std::string_view by, std::string_view note) {
  json::object fields = all->row("call", *session);
  fields["tool"] = shortened(action.call.name, 200);
  all->add_verdict(fields, verdict);
  fields["outcome"] = outcome;
  if (!held_id.empty()) fields["held"] = held_id;
  if (!by.empty()) fields["by"] = by;
  if (!note.empty()) fields["note"] = shortened(note, 500);
  all->add_arguments(fields, action.call.arguments);
  fields["judged_us"] = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
  return all->write(std::move(fields));
}

void Case::count(std::string_view outcome) const {
  if (!all->events.ruled) return;
  const auto* finding = verdict.decisive();
  all->events.ruled({verdict.decision, finding == nullptr ? std::nullopt : std::optional(finding->layer), outcome, took});
}

class Judging final : public Arbiter {
 public:
  Judging(std::shared_ptr<Protection::Impl> all, std::shared_ptr<const Protection::Session> session)
      : all_(std::move(all)), session_(std::move(session)), history_(session_->base.history) {}

  std::unique_ptr<Question> ask(const chat::ToolCall& call, std::function<void(Ruling)> ruled) override {
    Action action = session_->base;
    action.history = history_;
    action.call = call_of(call, session_->tools);
    history_.push_back(action.call);  // of those behind it, whatever becomes of it
    auto one = std::make_shared<Case>(all_, session_, std::move(action), std::move(ruled));
    one->begin();
    return std::make_unique<Asked>(std::move(one));
  }

  std::string refuse(const chat::ToolCall& call, std::string_view rule, std::string_view why, bool) override {
    const Finding finding{Decision::deny, Layer::stream, std::string(rule), std::string(why), "", ""};
    json::object fields = all_->row("call", *session_);
    fields["tool"] = shortened(call.name, 200);
    Verdict verdict;
    verdict.add(finding);
    Protection::Impl::add_verdict(fields, verdict);
    fields["outcome"] = "refused";
    all_->add_arguments(fields, call.arguments);
    all_->write(std::move(fields));
    if (all_->events.ruled) all_->events.ruled({Decision::deny, Layer::stream, "refused", {}});
    return refusal(call.name, finding, "");
  }

 private:
  struct Asked final : Question {
    explicit Asked(std::shared_ptr<Case> of) : one(std::move(of)) {}
    ~Asked() override { one->withdraw(); }
    const std::shared_ptr<Case> one;
  };
  const std::shared_ptr<Protection::Impl> all_;
  const std::shared_ptr<const Protection::Session> session_;
  std::vector<Call> history_;
};

class TextJudging final : public TextArbiter {
 public:
  TextJudging(std::shared_ptr<Protection::Impl> all, std::shared_ptr<const Protection::Session> session, TextCheck check)
      : all_(std::move(all)), session_(std::move(session)), check_(check) {}

  std::optional<Stop> found(std::span<const Match> matches, int choice, bool reasoning) override {
    const std::vector<Match> several(matches.begin(), matches.end());
    Verdict verdict = all_->judge->judge_text(several, session_->base);
    std::optional<Stop> stop;
    if (check_ == TextCheck::deny && verdict.decision >= Decision::require) {  // a person cannot be asked about half a sentence
      stop.emplace();
      for (std::size_t i = 0; i < several.size(); ++i) {
        Verdict one = all_->judge->judge_text({several[i]}, session_->base);
        if (one.decision < Decision::require) continue;
        stop->match = i;
        verdict = std::move(one);
        break;
      }
    }
    json::object fields = row(choice, reasoning);
    Protection::Impl::add_verdict(fields, verdict);
    fields["outcome"] = stop ? "refused" : check_ == TextCheck::redact ? "redacted" : "released";
    json::array seen;
    for (std::size_t i = 0; i < std::min(several.size(), most_findings); ++i) {
      const Match& match = several[i];
      json::object one{
          {"kind", name(match.kind)}, {"detector", match.detector}, {"begin", match.begin}, {"bytes", match.end - match.begin}};
      if (!match.shown.empty()) one["shown"] = shortened(match.shown, 100);
      if (!match.level.empty()) one["level"] = shortened(match.level, 100);
      seen.push_back(std::move(one));
    }
    fields["matches"] = std::move(seen);
    fields["match_count"] = several.size();
    const bool written = all_->write(std::move(fields));
    if (!stop && !written) stop.emplace();
    if (!stop) return {};
    const Match& match = several[stop->match];
    stop->text = "hearth did not release the rest of this answer: ";
    if (!written) stop->text += "the audit log cannot be written";
    else if (const auto* finding = verdict.decisive())
      stop->text += finding->reason + " (rule " + finding->rule + ", layer " + std::string(name(finding->layer)) + ")";
    else stop->text += "the policy refuses it";
    stop->text += ". Found by " + match.detector + (match.shown.empty() ? "." : ": `" + shortened(match.shown, 100) + "`.");
    return stop;
  }
  std::string failed(int choice, bool reasoning) override {
    json::object fields = row(choice, reasoning);
    Verdict verdict;
    verdict.add({Decision::deny, Layer::stream, "scan_failed", "the text could not be looked through", "", ""});
    Protection::Impl::add_verdict(fields, verdict);
    fields["outcome"] = check_ == TextCheck::audit ? "released" : "refused";
    all_->write(std::move(fields));
    return "hearth did not release the rest of this answer: it could not be looked through (rule scan_failed, layer stream).";
  }

 private:
  json::object row(int choice, bool reasoning) const {
    json::object fields = all_->row("text", *session_);
    fields["check"] = name(check_);
    fields["choice"] = choice;
    fields["part"] = reasoning ? "reasoning" : "text";
    return fields;
  }
  const std::shared_ptr<Protection::Impl> all_;
  const std::shared_ptr<const Protection::Session> session_;
  const TextCheck check_;
};

}  // namespace

// ---- Protection ---------------------------------------------------------------------------------------------------------------------

Protection::Protection(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Protection::~Protection() { stop(); }

Result<std::unique_ptr<Protection>> Protection::make(net::asio::io_context& io, ProtectionOptions options, ProtectionEvents events,
                                                     const Clock& clock) {
  auto impl = std::make_shared<Impl>(io, std::move(options), std::move(events), clock);
  const auto& set = impl->options;
  if (set.mode != Mode::off) {
    auto judge = Judge::make(set.judge);
    if (!judge.ok()) return std::move(judge).error();
    impl->judge = std::move(*judge);
    if (!set.folder.empty()) {
      auto audit = store::AuditLog::open(set.folder);
      if (!audit.ok()) return std::move(audit).error();
      impl->audit = std::move(*audit);
    }
    std::error_code ignored;
    if (!set.judge.policy_file.empty()) impl->policy_time = std::filesystem::last_write_time(set.judge.policy_file, ignored);
  }
  return std::unique_ptr<Protection>(new Protection(std::move(impl)));
}

Task<Result<std::shared_ptr<const Protection::Session>>> Protection::look(chat::Request& request, wire::Caller& caller, std::string model,
                                                                          bool remote) {
  using Out = std::shared_ptr<const Session>;
  const auto impl = impl_;
  if (impl->options.mode == Mode::off) co_return Out();
  auto session = std::make_shared<Session>();
  session->base = action_of(request, impl->judge->where());
  session->base.tenant = caller.tenant;
  session->base.model = std::move(model);
  session->base.remote_model = remote;
  session->tools = request.tools;
  session->request_id = caller.request_id;
  session->raw = request.choices == 1;

  for (auto& message : request.messages) {
    if (message.role != chat::Role::tool) continue;
    const std::string text = message.text();
    if (text.empty()) continue;
    const std::string key = sha256(text) + (remote ? "r" : "l");
    auto judgement = impl->known(key);
    if (!judgement) {
      fleet::LoopEvent ready(impl->io);
      struct Answer {
        std::shared_ptr<const Judge::ResultJudgement> judgement;
        fleet::LoopEvent* ready;
      };
      const auto answer = std::make_shared<Answer>(Answer{nullptr, &ready});
      struct Leaving {
        std::shared_ptr<Answer> answer;
        ~Leaving() { answer->ready = nullptr; }
      };
      const Leaving leaving{answer};
      net::asio::post(impl->pool, [judge = impl->judge, text, context = session->base, answer, &io = impl->io] {
        auto made = std::make_shared<const Judge::ResultJudgement>(judge->judge_result(text, context));
        net::asio::post(io, [answer, made = std::move(made)] {
          answer->judgement = made;
          if (answer->ready != nullptr) answer->ready->notify();
        });
      });
      const auto deadline = Clock::system().now() + 10 * impl->options.judge_limit;
      while (!answer->judgement && Clock::system().now() < deadline) co_await ready.wait_until(deadline);
      if (!answer->judgement)
        co_return Error{ErrorCode::forbidden, "a tool's result could not be looked at in time, and so does not go to the model",
                        "messages"};
      judgement = answer->judgement;
      impl->keep(key, judgement);
      if (judgement->verdict.decision != Decision::allow) {
        json::object fields = impl->row("result", *session);
        Impl::add_verdict(fields, judgement->verdict);
        const bool stops = judgement->verdict.decision >= Decision::require && impl->options.mode == Mode::enforce;
        fields["outcome"] = stops ? "refused" : "released";
        fields["result_sha256"] = sha256(text);
        fields["result_bytes"] = text.size();
        if (!impl->write(std::move(fields)) && impl->options.mode == Mode::enforce)
          co_return Error{ErrorCode::forbidden, "the audit log cannot be written, and so nothing is done that would have to be recorded",
                          ""};
      }
    }
    session->base.tainted = session->base.tainted || judgement->tainted;
    if (session->base.classification.empty()) session->base.classification = judgement->classification;
    if (impl->options.mode != Mode::enforce) continue;
    if (judgement->verdict.decision >= Decision::require) {
      const auto* finding = judgement->verdict.decisive();
      co_return Error{ErrorCode::forbidden,
                      "what a tool returned does not go to this model: " +
                          (finding == nullptr ? std::string("the policy refuses it") : finding->reason + " (rule " + finding->rule + ")"),
                      "messages"};
    }
    if (judgement->verdict.redact) {
      auto matches = judgement->matches;
      std::erase_if(matches, [](const Match& match) { return match.kind == Spill::injection; });
      if (matches.empty()) continue;
      message.content.assign(1, chat::ContentPart{.text = Argus::redact(text, matches)});
      caller.origin = nullptr;
    }
  }
  co_return Out(std::move(session));
}

std::unique_ptr<wire::EventStream> Protection::guard(std::unique_ptr<wire::EventStream> stream, std::shared_ptr<const Session> session) {
  if (!session || impl_->options.mode == Mode::off) return stream;
  const bool raw = session->raw;
  auto check = impl_->options.text;
  if (impl_->options.mode == Mode::observe && check != TextCheck::off) check = TextCheck::audit;
  // Nearer to the model than the buffer: calls behind text that ends an answer never reach it.
  if (check != TextCheck::off)
    stream = scan_text(std::move(stream), impl_->judge->argus(), check, impl_->options.text_hold_back,
                       std::make_unique<TextJudging>(impl_, session, check));
  return hold_calls(impl_->io, std::move(stream), std::make_unique<Judging>(impl_, std::move(session)), impl_->options.limits, raw,
                    std::string(name(impl_->options.mode)));
}

std::vector<HeldCall> Protection::waiting() const { return impl_->approvals.list(); }

Result<void> Protection::decide(std::string_view id, bool approved, const std::string& tenant, std::string note) {
  const auto& may = impl_->options.approvers;
  if (!may.empty() && std::find(may.begin(), may.end(), tenant) == may.end())
    return Error{
        ErrorCode::forbidden, "the key \"" + tenant + "\" may not decide about held calls; safety.approvers names those that may", {}};
  return impl_->approvals.decide(id, approved, tenant, std::move(note));
}

Result<void> Protection::reload(std::string_view by) {
  if (!impl_->judge) return {};
  std::error_code ignored;
  const auto& file = impl_->options.judge.policy_file;
  if (!file.empty()) impl_->policy_time = std::filesystem::last_write_time(file, ignored);
  const auto done = impl_->judge->reload();
  if (done.ok()) impl_->forget();
  json::object fields{{"event", "policy"}, {"outcome", done.ok() ? "loaded" : "kept"}, {"by", by}};
  if (!done.ok()) fields["problem"] = shortened(done.error().message, 1000);
  impl_->write(std::move(fields));
  if (done.ok()) spdlog::info("the safety policy was read again");
  else spdlog::error("the safety policy stays as it was: {}", done.error().message);
  return done;
}

bool Protection::policy_changed() {
  const auto& file = impl_->options.judge.policy_file;
  if (!impl_->judge || file.empty()) return false;
  std::error_code ec;
  const auto time = std::filesystem::last_write_time(file, ec);
  return !ec && time != impl_->policy_time;
}

Mode Protection::mode() const { return impl_->options.mode; }
void Protection::stop() { impl_->stop(); }

}  // namespace hearth::safety
