// A running hearth as the command line talks to it: where it is, the key it wants, and one answer to one question.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "app/url.h"
#include "base/json.h"
#include "base/result.h"
#include "net/http.h"

namespace hearth::app {

inline constexpr std::string_view default_url = "http://127.0.0.1:8085";

struct Remote {
  Url url;
  std::string api_key;
  std::string shown;  // the address as the user gave it

  net::HttpRequest request(std::string method, std::string target) const;
  // The answer's document, or the error it holds; unavailable with what to type when nobody listens there.
  Result<json::value> ask(net::HttpRequest request, std::chrono::milliseconds patience) const;
};

// By flag, else HEARTH_URL, else the default; the key from `api_key_file`, else HEARTH_API_KEY.
Result<Remote> find_remote(const std::string& url, const std::string& api_key_file);
bool names_remote(const std::string& url);  // by flag or variable

// What an error document says, in any of the protocols' shapes.
Error error_of(std::string_view body, int status);

// `name` as one segment of a path.
std::string path_segment(std::string_view name);

}  // namespace hearth::app
