#include "chat/request.h"

namespace hearth::chat {

std::string Message::text() const {
  std::string all;
  for (const auto& part : content) {
    if (part.kind == ContentPart::Kind::text) all += part.text;
  }
  return all;
}

bool Request::has_images() const {
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.kind == ContentPart::Kind::image) return true;
    }
  }
  return false;
}

}  // namespace hearth::chat
