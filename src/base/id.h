// Identifiers that clients and logs can join on.
#pragma once

#include <string>
#include <string_view>

namespace hearth {

// `prefix` followed by 24 random characters of [0-9a-z], e.g. "chatcmpl-…". From the system's random source; thread-safe.
std::string random_id(std::string_view prefix);

}  // namespace hearth
