// Layer 5 on any bytes: spans lie in the text and do not overlap, what was redacted is not found again in the same place, a JSON document stays one, and a stream
// passes every byte on.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "safety/argus.h"

using hearth::safety::Argus;
using hearth::safety::Match;

namespace {

const Argus& argus() {
  static const Argus shared;
  return shared;
}

void check(std::string_view text, const std::vector<Match>& matches, bool may_overlap) {
  std::size_t end = 0;
  for (const auto& match : matches) {
    if (match.begin >= match.end || match.end > text.size()) std::abort();
    if (!may_overlap && match.begin < end) std::abort();
    if (!(match.confidence > 0 && match.confidence <= 1)) std::abort();
    for (const auto& part : match.parts) {
      if (part.begin >= part.end || part.end > text.size()) std::abort();
    }
    end = match.end;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(text, argus().scan(text), false);
  check(text, argus().scan_result(text), false);
  const auto in_json = argus().scan_json(text);
  check(text, in_json, true);
  if (hearth::parse_json(text).ok()) {
    // Keys that were replaced may now be equal, which Boost's parser allows and ours does not.
    boost::system::error_code error;
    boost::json::parse(Argus::redact_json(text, in_json), error);
    if (error) std::abort();
  }
  for (const std::size_t step : {1, 7}) {
    if (step == 1 && size > 512) continue;
    Argus::Stream stream(argus(), 64);
    std::vector<Match> found;
    std::string out;
    for (std::size_t at = 0; at < size; at += step) out += stream.push(text.substr(at, step), false, found);
    out += stream.finish(false, found);
    if (out != text) std::abort();
    for (const auto& match : found) {
      if (match.begin >= match.end || match.end > size) std::abort();
    }
  }
  return 0;
}
