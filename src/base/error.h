// The one error vocabulary. Every failure a caller must handle is an `Error` with a code from this closed list; each code says what
// happened, which HTTP status a client sees, and the type name its protocol shows. New codes are added here, with a comment, or not at all.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace hearth {

enum class ErrorCode {
  invalid_request,          // 400: the request is malformed or breaks a rule; the message says which and what would be right
  unsupported,              // 400: well-formed, but this model or build cannot do it
  context_length_exceeded,  // 400: prompt plus wanted tokens do not fit the context; the message names both numbers
  unauthorized,             // 401: no API key, or one that is not known
  forbidden,                // 403: the key is known but may not do this
  not_found,                // 404: no such path
  model_not_found,          // 404: no such model; the message lists those there are
  method_not_allowed,       // 405: the path exists, the method does not
  request_timeout,          // 408: the client did not send its request in time
  payload_too_large,        // 413: the body is over the limit
  headers_too_large,        // 431: the header block is over the limit
  overloaded,               // 429: the queue is full; retry after `Error::retry_after`
  client_gone,              // 499: the client left; nobody reads this answer
  internal,                 // 500: a bug or a broken invariant
  model_invalid,            // 500: a model file cannot be read, is damaged or of another format
  upstream_failed,          // 502: the engine died or answered nonsense
  unavailable,              // 503: starting, stopping or draining; retry after `Error::retry_after`
  upstream_timeout,         // 504: the engine stayed silent for too long
  deadline_exceeded,        // 504: the request's own deadline passed
  config_invalid,           // start-up only: a configuration file, flag or variable is wrong
  io,                       // start-up only: a file, folder or socket cannot be used; the message names it and the reason
};

// The HTTP status of a code, e.g. 400. Start-up codes map to 500.
int http_status(ErrorCode code);
// The code's name as it stands in the list, e.g. "context_length_exceeded". Stable: logs, metrics and clients read it.
std::string_view name(ErrorCode code);
// The inverse of `name`; `otherwise` for text that names no code.
ErrorCode error_code_from_name(std::string_view text, ErrorCode otherwise);

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;                       // for people: what was wrong, what would be right
  std::string param;                         // the request field at fault, e.g. "messages[2].role"; empty when there is none
  std::chrono::milliseconds retry_after{0};  // for overloaded and unavailable
};

}  // namespace hearth
