// Two keys of a conversation, for two purposes that must not be confused.
//
// session_id tells conversations apart. It covers the whole of every message, in order: whatever two requests have in common at the beginning, one
// differing byte anywhere makes another id, so that nothing kept under it (a cached answer, a stored conversation) can reach the wrong one.
//
// prefix_key brings the turns of one conversation together. It covers only what stays the same from turn to turn (tools, system messages, the first
// user message), so that each turn finds the engine that has the turns before it in its prefix cache. Conversations that begin alike share it, and
// should: their prefix is the same. It decides where a request goes, never what it may see.
#pragma once

#include <cstdint>
#include <string>

#include "chat/request.h"

namespace hearth::fleet {

// SHA-256 as 64 hex digits over role and content of every message (texts, images, reasoning, tool calls and results), or every raw prompt. Each part is
// preceded by its kind and length: no two different conversations become the same bytes.
std::string session_id(const chat::Request& request);

// For placement alone: a good hash, not a secret and not an identity.
std::uint64_t prefix_key(const chat::Request& request);

}  // namespace hearth::fleet
