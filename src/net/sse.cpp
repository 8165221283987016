#include "net/sse.h"

#include <algorithm>
#include <utility>

namespace hearth::net {

Result<void> SseDecoder::feed(std::string_view bytes, std::vector<SseEvent>& out) {
  std::size_t at = 0;
  std::size_t begun = 0;  // where the event begins, as far as it is in `bytes`
  std::size_t lf = 0;     // the first LF at or after `at`, as far as it is known
  while (at < bytes.size()) {
    if (std::exchange(after_cr_, false) && bytes[at] == '\n') {
      ++at;
      continue;
    }
    if (lf <= at) lf = std::min(bytes.find('\n', at), bytes.size());
    const auto part = bytes.substr(at, std::min(bytes.substr(0, lf).find('\r', at), lf) - at);
    if (std::max(line_.size() + event_.data.size() + event_.event.size() + part.size(), raw_.size()) > limit_) {
      return Error{ErrorCode::upstream_failed, "a server-sent event is longer than " + std::to_string(limit_) + " bytes"};
    }
    at += part.size();
    if (at == bytes.size()) {
      line_.append(part);
      break;
    }
    after_cr_ = bytes[at++] == '\r';
    const bool blank = line_.empty() && part.empty();
    const std::size_t known = out.size();
    if (line_.empty()) {
      end_line(part, out);
    } else {
      line_.append(part);
      end_line(line_, out);
      line_.clear();
    }
    if (keep_raw_ && blank) {
      if (after_cr_ && at < bytes.size() && bytes[at] == '\n') after_cr_ = false, ++at;
      if (out.size() > known) out.back().raw = raw_.append(bytes, begun, at - begun);
      raw_.clear();
      begun = at;
    }
  }
  if (keep_raw_) raw_.append(bytes, begun, bytes.size() - begun);
  return {};
}

void SseDecoder::end_line(std::string_view line, std::vector<SseEvent>& out) {
  if (std::exchange(at_start_, false) && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  if (line.empty()) {
    if (has_data_) out.push_back(std::move(event_));
    event_ = {};
    has_data_ = false;
    return;
  }
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

void append_sse(std::string& out, std::string_view data, std::string_view event) {
  if (!event.empty()) out.append("event: ").append(event).append("\n");
  out.append("data: ").append(data).append("\n\n");
}

void append_sse_comment(std::string& out, std::string_view text) { out.append(":").append(text).append("\n\n"); }

}  // namespace hearth::net
