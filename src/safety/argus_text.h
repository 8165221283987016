// Undoes the wrappings in which text can hide from a reader: percent signs, backslash escapes, HTML entities, UTF-16, look-alike and invisible characters,
// hexadecimal and base64, in any nesting up to a bound. Each text derived knows where its bytes came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::safety::argus {

// Characters from `first` on, `count` of them, that look like ASCII `plain`, `plain + step` …
struct FoldRun {
  std::uint32_t first;
  std::uint16_t count;
  std::uint8_t plain;
  std::uint8_t step;
};
extern const FoldRun fold_runs[];
extern const std::size_t fold_run_count;

enum class Wrapping : std::uint8_t { percent, escape, html, homoglyph, invisible, utf16, base64, hex, tags, structure };
// `structure` is what stands between the strings of a document; it hides nothing.
std::string_view name(Wrapping wrapping);

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// A text and where it came from. The root is the text as given; every other view is its parent with some places undone.
struct View {
  std::string_view text;
  const View* parent = nullptr;

  // A place that was undone; between pieces, bytes correspond one to one.
  struct Piece {
    std::uint32_t out_begin, out_end;  // in this text; empty where something was removed
    std::uint32_t in_begin, in_end;    // in the parent's
    Wrapping wrapping;
  };
  std::vector<Piece> pieces;  // in order
  std::string storage;        // what `text` views, but for the root
  int depth = 0;

  // Whether what was undone lies in [begin, end) of this text.
  bool touches(std::size_t begin, std::size_t end) const;
  Span in_parent(Span span) const;
  // Span of the text of `ancestor`; the wrappings undone in between are put before those in `wrappings`, outermost first.
  Span in_ancestor(Span span, const View& ancestor, std::vector<Wrapping>& wrappings) const;
};

// The work is bounded: what was undone once is looked at in its neighbourhood only, in at most `max_views` texts, and wrappings deeper than `max_depth` stay.
inline constexpr int max_views = 24;
inline constexpr int max_depth = 10;  // five of base64 or hexadecimal with one of another kind around each
// Adds what can be unwrapped from the last view, and from what that gives.
void unwrap(std::deque<View>& views);

// What a character looks like in ASCII; 0 for none, `removed` for characters that cannot be seen.
inline constexpr char removed = 1;
char fold(char32_t character);

// Reads one well-formed character at `at` and its length; length 0 for ill-formed bytes.
char32_t decode_utf8(std::string_view text, std::size_t at, std::size_t& length);
void append_utf8(std::string& out, char32_t character);

// Base64 of either alphabet, hexadecimal: as many whole bytes as there are. Other characters are skipped.
std::string base64_bytes(std::string_view run);

}  // namespace hearth::safety::argus
