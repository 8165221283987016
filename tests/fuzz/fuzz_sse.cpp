// Any split of the bytes gives the same events; what was decoded survives encoding and decoding again.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "net/sse.h"

using hearth::net::SseDecoder;
using hearth::net::SseEvent;

namespace {

std::vector<SseEvent> decode(std::string_view text, std::size_t step, bool& pending) {
  SseDecoder decoder;
  std::vector<SseEvent> events;
  for (std::size_t at = 0; at < text.size(); at += step) {
    if (!decoder.feed(text.substr(at, step), events)) std::abort();
  }
  pending = decoder.pending();
  return events;
}

bool same(const std::vector<SseEvent>& a, const std::vector<SseEvent>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.event == y.event && x.data == y.data; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  bool pending = false;
  const auto whole = decode(text, std::max<std::size_t>(size, 1), pending);
  for (const std::size_t step : {1, 2, 3, 7}) {
    bool pending_too = false;
    if (!same(whole, decode(text, step, pending_too)) || pending != pending_too) std::abort();
  }
  std::string encoded;
  std::vector<SseEvent> plain;
  for (const auto& event : whole) {
    if (event.data.find('\n') != std::string::npos) continue;  // append_sse takes single lines
    hearth::net::append_sse(encoded, event.data, event.event);
    plain.push_back(event);
  }
  if (!same(plain, decode(encoded, std::max<std::size_t>(encoded.size(), 1), pending))) std::abort();
  return 0;
}
