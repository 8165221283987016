#include "base/error.h"

#include <array>

namespace hearth {
namespace {

struct CodeInfo {
  ErrorCode code;
  int status;
  std::string_view name;
};

constexpr std::array codes{
    CodeInfo{ErrorCode::invalid_request, 400, "invalid_request"},
    CodeInfo{ErrorCode::unsupported, 400, "unsupported"},
    CodeInfo{ErrorCode::context_length_exceeded, 400, "context_length_exceeded"},
    CodeInfo{ErrorCode::unauthorized, 401, "unauthorized"},
    CodeInfo{ErrorCode::forbidden, 403, "forbidden"},
    CodeInfo{ErrorCode::not_found, 404, "not_found"},
    CodeInfo{ErrorCode::model_not_found, 404, "model_not_found"},
    CodeInfo{ErrorCode::method_not_allowed, 405, "method_not_allowed"},
    CodeInfo{ErrorCode::request_timeout, 408, "request_timeout"},
    CodeInfo{ErrorCode::payload_too_large, 413, "payload_too_large"},
    CodeInfo{ErrorCode::headers_too_large, 431, "headers_too_large"},
    CodeInfo{ErrorCode::overloaded, 429, "overloaded"},
    CodeInfo{ErrorCode::client_gone, 499, "client_gone"},
    CodeInfo{ErrorCode::internal, 500, "internal"},
    CodeInfo{ErrorCode::model_invalid, 500, "model_invalid"},
    CodeInfo{ErrorCode::upstream_failed, 502, "upstream_failed"},
    CodeInfo{ErrorCode::unavailable, 503, "unavailable"},
    CodeInfo{ErrorCode::upstream_timeout, 504, "upstream_timeout"},
    CodeInfo{ErrorCode::deadline_exceeded, 504, "deadline_exceeded"},
    CodeInfo{ErrorCode::config_invalid, 500, "config_invalid"},
    CodeInfo{ErrorCode::io, 500, "io"},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (static_cast<std::size_t>(codes[i].code) != i) return false;
  }
  return codes.size() == static_cast<std::size_t>(ErrorCode::io) + 1;
}
static_assert(in_order(), "the table lists every ErrorCode, in the order of the enum");

}  // namespace

int http_status(ErrorCode code) { return codes[static_cast<std::size_t>(code)].status; }
std::string_view name(ErrorCode code) { return codes[static_cast<std::size_t>(code)].name; }
ErrorCode error_code_from_name(std::string_view text, ErrorCode otherwise) {
  for (const auto& info : codes) {
    if (info.name == text) return info.code;
  }
  return otherwise;
}

}  // namespace hearth
