#include "net/sse.h"

#include <utility>

namespace hearth::net {

Result<void> SseDecoder::feed(std::string_view bytes, std::vector<SseEvent>& out) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const auto end = bytes.find_first_of("\r\n");
    const auto part = bytes.substr(0, end);
    if (line_.size() + event_.data.size() + event_.event.size() + part.size() > limit_) {
      return Error{ErrorCode::upstream_failed, "a server-sent event is longer than " + std::to_string(limit_) + " bytes"};
    }
    line_.append(part);
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(out);
  }
  return {};
}

void SseDecoder::end_line(std::vector<SseEvent>& out) {
  std::string_view line = line_;
  if (std::exchange(at_start_, false) && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  if (line.empty()) {
    if (has_data_) out.push_back(std::move(event_));
    event_ = {};
    has_data_ = false;
  } else {
    // A comment is a line whose field name is empty: no branch of its own is needed.
    const auto colon = line.find(':');
    const auto field = line.substr(0, colon);
    auto value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "data") {
      if (has_data_) event_.data += '\n';
      event_.data += value;
      has_data_ = true;
    } else if (field == "event") {
      event_.event = value;
    }
  }
  line_.clear();
}

void append_sse(std::string& out, std::string_view data, std::string_view event) {
  if (!event.empty()) out.append("event: ").append(event).append("\n");
  out.append("data: ").append(data).append("\n\n");
}

void append_sse_comment(std::string& out, std::string_view text) { out.append(":").append(text).append("\n\n"); }

}  // namespace hearth::net
