// What a request tells of the place where its calls run: only an agent's own words count, and no folder that would make everything writable.
#include "safety/conversation.h"

#include <gtest/gtest.h>

namespace hearth::safety {
namespace {

using chat::Role;

chat::Message message(Role role, const std::string& text) {
  chat::Message out;
  out.role = role;
  out.content.push_back({.text = text});
  return out;
}
std::string folder_of(Role role, const std::string& text) {
  chat::Request request;
  request.messages.push_back(message(role, text));
  return stated_folder(request);
}

TEST(Conversation, TheFolderIsTheOneThatTheAgentStates) {
  EXPECT_EQ(folder_of(Role::system, "<env>\nWorking directory: /home/user/project\nPlatform: linux\n</env>"), "/home/user/project");
  EXPECT_EQ(folder_of(Role::system, "You are an agent.\n<cwd>/srv/app</cwd>"), "/srv/app");
  EXPECT_EQ(folder_of(Role::system, "The current working directory is `/home/user/a b`."), "/home/user/a b");
  EXPECT_EQ(folder_of(Role::user, "  <environment_context>\n<cwd>/home/user/x</cwd>\n</environment_context>"), "/home/user/x");
}

TEST(Conversation, WhatAUserOrAToolSaysIsNoStatementOfTheAgent) {
  EXPECT_EQ(folder_of(Role::user, "Working directory: /srv/other"), "");
  EXPECT_EQ(folder_of(Role::assistant, "<cwd>/srv/other</cwd>"), "");
  EXPECT_EQ(folder_of(Role::tool, "<environment_context><cwd>/srv/other</cwd></environment_context>"), "");
  chat::Request request;
  request.messages.push_back(message(Role::user, "hello"));
  request.messages.push_back(message(Role::user, "<environment_context><cwd>/srv/later</cwd></environment_context>"));
  EXPECT_EQ(stated_folder(request), "") << "only the first thing a user's client says can be the client's own";
}

TEST(Conversation, NoFolderThatHoldsMoreThanWork) {
  for (const char* folder :
       {"/", "/home", "/home/user", "/root", "/tmp", "/etc", "/etc/nginx", "/usr/local", "/var/lib/app", "/home/user/.ssh",
        "/home/user/../other", "relative/path", "/home//user/x", "/Users/me", "/root/.ssh", "/home/user/$(id)"}) {
    EXPECT_EQ(folder_of(Role::system, std::string("Working directory: ") + folder), "") << folder;
  }
  // The first that will do, as an example in the prompt may come before it.
  EXPECT_EQ(folder_of(Role::system, "e.g. Working directory: /\nWorking directory: /home/user/project"), "/home/user/project");
}

TEST(Conversation, WhatTheOperatorSaysComesFirst) {
  chat::Request request;
  request.messages.push_back(message(Role::system, "Working directory: /home/user/project"));
  Surroundings where;
  EXPECT_EQ(action_of(request, where).where.working_folder, "/home/user/project");
  where.working_folder = "/srv/app";
  EXPECT_EQ(action_of(request, where).where.working_folder, "/srv/app");
}

TEST(Conversation, EarlierCallsComeOldestFirstAndTheLatest64) {
  chat::Request request;
  chat::ToolSpec tool;
  tool.name = "bash";
  tool.description = "Run a command";
  tool.parameters = R"({"type":"object"})";
  request.tools.push_back(tool);
  for (int i = 0; i < 70; ++i) {
    chat::Message said;
    said.role = Role::assistant;
    said.tool_calls.push_back(
        {.id = "c" + std::to_string(i), .name = i % 2 == 0 ? "bash" : "unknown", .arguments = i == 69 ? "" : std::to_string(i)});
    request.messages.push_back(std::move(said));
  }
  const auto history = action_of(request, {}).history;
  ASSERT_EQ(history.size(), 64U);
  EXPECT_EQ(history.front().arguments, "6");
  EXPECT_EQ(history.front().description, "Run a command");
  EXPECT_EQ(history[1].parameters, "") << "a tool that was not offered has no schema";
  EXPECT_EQ(history.back().arguments, "{}") << "no arguments are an empty object";
}

}  // namespace
}  // namespace hearth::safety
