#include "fleet/backoff.h"

#include <algorithm>

namespace hearth::fleet {

std::chrono::milliseconds Backoff::on_exit() {
  const bool was_healthy = ready_since_ && clock_.now() - *ready_since_ >= options_.healthy_after;
  if (was_healthy) next_ = options_.first;
  failed_starts_ = ready_since_ ? 0 : failed_starts_ + 1;
  ready_since_.reset();
  const auto wait = next_;
  next_ = std::min(next_ * 2, options_.most);
  return wait;
}

}  // namespace hearth::fleet
