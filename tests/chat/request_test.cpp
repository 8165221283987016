#include "chat/request.h"

#include <gtest/gtest.h>

namespace hearth::chat {
namespace {

TEST(Message, TextJoinsTheTextPartsAndLeavesImagesOut) {
  Message message;
  EXPECT_EQ(message.text(), "");
  message.content.resize(3);
  message.content[0].text = "one ";
  message.content[1].kind = ContentPart::Kind::image;
  message.content[1].text = "not text";
  message.content[2].text = "two";
  EXPECT_EQ(message.text(), "one two");
}

}  // namespace
}  // namespace hearth::chat
