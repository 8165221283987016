// Server-sent events, both ways. The decoder takes any split of the bytes and gives the same events.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hearth::net {

struct SseEvent {
  std::string event;  // empty = "message"
  std::string data;   // lines joined by '\n'
  std::string raw;    // the bytes it was read from, its empty line included; only where they are kept
};

class SseDecoder {
 public:
  static constexpr std::size_t usual_limit = 64 * 1024 * 1024;
  // `limit`: the longest event accepted, in bytes. `keep_raw`: fill SseEvent::raw.
  explicit SseDecoder(std::size_t limit = usual_limit, bool keep_raw = false) : limit_(limit), keep_raw_(keep_raw) {}
  // Appends the events that `bytes` complete. Comments are skipped; CR, LF and CRLF all end a line; a BOM at the start is dropped.
  // upstream_failed when an event grows past the limit.
  Result<void> feed(std::string_view bytes, std::vector<SseEvent>& out);
  // True when bytes of an unfinished event are pending: a stream that ends now was cut.
  bool pending() const { return !line_.empty() || has_data_ || !event_.event.empty(); }

 private:
  void end_line(std::string_view line, std::vector<SseEvent>& out);
  std::size_t limit_;
  bool keep_raw_;
  std::string raw_;  // of the event so far, without what this feed adds
  std::string line_;
  SseEvent event_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool at_start_ = true;
};

// Appends one event. `data` must hold no line breaks (JSON text does not).
void append_sse(std::string& out, std::string_view data, std::string_view event = {});
// Appends a comment: keeps proxies and clients awake.
void append_sse_comment(std::string& out, std::string_view text = {});

}  // namespace hearth::net
