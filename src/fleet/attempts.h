// One request's way to an engine. As long as nothing of an answer has been seen, a failure that is the engine's own need not be the client's: the request is
// kept and tried again where that may help.
#pragma once

#include <memory>

#include "wire/provider.h"

namespace hearth::fleet {

class Attempts {
 public:
  virtual ~Attempts() = default;
  virtual net::Task<Result<std::unique_ptr<wire::EventStream>>> open() = 0;
  // Whether open() may do better after this failure of the last one's stream, or of open() itself. May wait for the engine to come back.
  virtual net::Task<bool> again(Error failure) = 0;
  // The answer has begun: nothing will be tried again, and the request may be forgotten. What a running stream needs stays.
  virtual void settle() = 0;
};

// Opens until it works or nothing helps. `retries` counts.
inline net::Task<Result<std::unique_ptr<wire::EventStream>>> open(Attempts& attempts, int& retries) {
  while (true) {
    auto stream = co_await attempts.open();
    if (stream.ok()) co_return stream;
    const bool more = co_await attempts.again(stream.error());
    if (!more) co_return std::move(stream).error();
    ++retries;
  }
}

}  // namespace hearth::fleet
