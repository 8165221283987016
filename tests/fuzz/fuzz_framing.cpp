// Two readers of one header block must agree: whatever the guard passes, Beast must parse completely, and both must see the same fields that
// decide where the message ends.
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "net/framing.h"

namespace http = boost::beast::http;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view block(reinterpret_cast<const char*>(data), size);
  if (!hearth::net::check_request_framing(block)) return 0;
  http::request_parser<http::empty_body> parser;
  parser.header_limit(1 << 30);
  parser.body_limit(boost::none);
  boost::system::error_code ec;
  const auto used = parser.put(boost::asio::buffer(block), ec);
  // Beast is stricter in places that carry no framing (a malformed Connection list): refusing is always safe.
  if (ec && ec != http::error::need_more) return 0;
  if (used != size || !parser.is_header_done()) std::abort();
  const auto& message = parser.get();
  const auto lengths = message.count(http::field::content_length);
  const auto encodings = message.count(http::field::transfer_encoding);
  if (lengths + encodings > 1 || message.count(http::field::host) > 1) std::abort();
  if (parser.chunked() != (encodings == 1) || parser.content_length().has_value() != (lengths == 1)) std::abort();
  return 0;
}
