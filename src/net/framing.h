// The framing guard. Request smuggling lives where two HTTP readers disagree on where a message ends; Beast alone accepts several such forms.
// This check runs on the raw header block before the parser sees it and refuses everything that is not plainly one message.
#pragma once

#include <string_view>

#include "base/result.h"

namespace hearth::net {

// `block` is a request's header block up to and including the empty line. invalid_request with the reason for: a bare CR or LF, control
// characters, a space before the colon, an empty or non-token field name, folded lines, HTTP versions other than 1.0 and 1.1, a missing or
// repeated Host on 1.1, Transfer-Encoding other than exactly one "chunked", on HTTP/1.0, or beside Content-Length, and Content-Length that is
// repeated, signed, listed or not a number below 2^63.
Result<void> check_request_framing(std::string_view block);

// RFC 9110's tchar: what methods and field names are made of.
bool is_token_char(char c);

}  // namespace hearth::net
