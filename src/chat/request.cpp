#include "chat/request.h"

namespace hearth::chat {

std::string Message::text() const {
  std::string all;
  for (const auto& part : content) {
    if (part.kind == ContentPart::Kind::text) all += part.text;
  }
  return all;
}

}  // namespace hearth::chat
