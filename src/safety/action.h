// A tool call on its way to a client, with what is known about where it would run and who asks. Everything the layers may look at is in here: a verdict
// is a function of an Action and of what was learned before, never of how its bytes arrived.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace hearth::safety {

// The place where the client's tools act, as far as the operator and the conversation tell. Paths are absolute and without a slash at the end.
struct Surroundings {
  std::string working_folder;               // empty: not known; then "." is a writable root of its own, whatever its name
  std::string home = "/home/user";          // what ~ and $HOME mean
  std::string user = "user";                //
  std::vector<std::string> writable_roots;  // beside the working folder: /tmp by default
  // Globs over canonical paths that nothing may write or delete, beyond those built in (system folders, credentials, start-up files).
  std::vector<std::string> protected_paths;
  std::vector<std::string> trusted_hosts;  // "example.org" or "*.example.org": fetching code from them and sending to them is ordinary
  // Symbolic links are followed on this machine's file system: only when the client's tools run here.
  bool follow_links = false;
};

struct Call {
  std::string name;
  std::string arguments;    // JSON text, exactly as it would be released
  std::string parameters;   // JSON Schema text of the tool as the client offered it; empty when it offered none of this name
  std::string description;  // of the tool, by the client
};

struct Action {
  Call call;
  Surroundings where;
  std::string tenant;
  std::string model;
  bool remote_model = false;   // the answer comes from another machine
  std::string classification;  // of the conversation: "" = none known, else a level as policies name it, e.g. "SECRET"
  std::vector<Call> history;   // earlier calls of the conversation, oldest first, at most 64
  std::map<std::string, std::string> written_files;  // canonical path → content that earlier calls wrote there, as far as it is known
  bool tainted = false;                              // a tool result of this conversation carried what looks like instructions to the model
};

}  // namespace hearth::safety
