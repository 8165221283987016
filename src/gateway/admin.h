// What an operator, `hearth ps` and dashboards do with the models: see them, load and unload them, follow what happens to them.
//
//   GET  /admin/models              every model, and the memory they share
//   POST /admin/models/{id}/load    answers when it is loaded; {"keep_loaded": SECONDS} keeps it that long after its last request, negative for ever
//   POST /admin/models/{id}/unload  answers when its memory is free
//   GET  /admin/approvals                tool calls that wait for a person
//   POST /admin/approvals/{id}/approve   releases one; {"reason": TEXT} is written down with the key's name
//   POST /admin/approvals/{id}/deny      refuses one
//   POST /admin/safety/reload            reads the safety policy again; a mistake in it is a 400, and the old one stays
//   GET  /admin/events              server-sent events, one for each change of a model's state and of a held call's ("approval"); Last-Event-ID continues where a connection broke
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <string_view>

#include "chat/event.h"
#include "fleet/fleet.h"
#include "net/server.h"
#include "safety/protection.h"
#include "wire/provider.h"

namespace hearth::gateway {

class Admin {
 public:
  // `fleet` and `protection` outlive it. `keep_alive`: a silent event feed gets a comment this often.
  Admin(net::asio::io_context& io, fleet::Fleet& fleet, safety::Protection& protection, std::chrono::milliseconds keep_alive);
  ~Admin();
  // False without answering when the path is not under /admin/.
  net::Task<bool> serve(net::Exchange& exchange, const wire::Caller& caller);
  // A held call changed: for the event feeds.
  void tell(const safety::HeldCall& call, std::string_view what, std::string_view by);
  // Ends every event feed: they would outlast a drain.
  void stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // a suspended feed keeps it
};

// "absent", "loading", "ready", "draining", "failed".
std::string_view state_name(chat::ModelState state);

}  // namespace hearth::gateway
