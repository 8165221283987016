// Commands as one line of text, for cases and messages: `sudo; bash -c: rm -rf '/a b' >out <<'body'`. An unknown part of a word is `?`.
#pragma once

#include <string>

#include "safety/shell.h"

namespace hearth::safety {

inline std::string show(const Word& word) {
  std::string text;
  for (std::size_t at = 0; at < word.text.size();) {
    if (word.text.compare(at, 3, "\xEF\xBF\xBD") == 0) {
      text += '?';
      at += 3;
    } else {
      text += word.text[at++];
    }
  }
  const bool plain = !text.empty() && text.find_first_of(" \t\n'\"") == std::string::npos;
  return (plain ? text : "'" + text + "'") + (word.exact || text.find('?') != std::string::npos ? "" : "~");
}

inline std::string show(const Command& command) {
  std::string out;
  for (std::size_t i = 0; i < command.wrappers.size(); ++i) out += (i > 0 ? "; " : "") + command.wrappers[i];
  if (!out.empty()) out += ": ";
  std::string rest;
  const auto add = [&](const std::string& text) { rest += (rest.empty() ? "" : " ") + text; };
  for (const Assignment& assignment : command.assignments)
    add(assignment.name + "=" + (assignment.value.text.empty() ? "" : show(assignment.value)));
  for (const Word& word : command.words) add(show(word));
  for (const Redirect& redirect : command.redirects) {
    const std::string descriptor = redirect.descriptor < 0 ? "" : std::to_string(redirect.descriptor);
    switch (redirect.kind) {
      case Redirect::Kind::read: add(descriptor + "<" + show(redirect.target)); break;
      case Redirect::Kind::write: add(descriptor + ">" + show(redirect.target)); break;
      case Redirect::Kind::append: add(descriptor + ">>" + show(redirect.target)); break;
      case Redirect::Kind::here: add(descriptor + "<<" + show(Word{.text = redirect.body, .exact = redirect.body_exact})); break;
    }
  }
  return out + rest;
}

}  // namespace hearth::safety
