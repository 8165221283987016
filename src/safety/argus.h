// Layer 5, Argus: what must not leave. Finds classified markings, secrets, personal data and passages of registered documents in arguments, tool results and text,
// however they are wrapped, and says where, so that they can be replaced.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/verdict.h"

namespace hearth::safety {

enum class Spill {
  marking,    // tier 1: classification and CUI banners and portion marks
  secret,     // tier 1: keys, tokens, passwords
  personal,   // tier 2: card and account numbers, SSN, e-mail, phone; validated
  document,   // tier 3: similar to a registered document
  injection,  // tool results only: text that speaks to the model as if it were its user
};
std::string_view name(Spill spill);

struct Match {
  Spill kind = Spill::secret;
  std::string detector;   // stable name: "classification_banner", "aws_access_key", "iban" …
  std::size_t begin = 0;  // bytes into the scanned text, as it came: the whole encoded run where something was decoded
  std::size_t end = 0;    //
  struct Part {
    std::size_t begin = 0, end = 0;
  };
  std::vector<Part> parts;  // JSON: the pieces of it, one in each string, when it lies in several; between them is other text
  std::string level;        // markings: "SECRET", "TOP SECRET//SI", "CUI//SP-PRVCY" …; documents: the name it was registered under
  std::string shown;        // masked, for people: "AKIA…7Q"
  // What was undone to see it, outermost first: "base64", "percent", "html", "escape", "hex", "utf16", "homoglyph", "invisible".
  std::vector<std::string_view> decoded;
  double confidence = 1;  // (0, 1]
};

struct ArgusOptions {
  bool markings = true, secrets = true, personal = true, documents = true;
  double document_similarity = 0.3;  // share of a passage's shingles that must be those of a registered document
};

class Argus {
 public:
  explicit Argus(ArgusOptions options = {});
  ~Argus();
  Argus(Argus&&) noexcept;

  // Registers a protected document: only fingerprints of it are kept. invalid_request when it is too short to be told apart.
  Result<void> protect(std::string document_name, std::string_view text);

  // Every match, in order, without overlaps (the strictest wins and takes in what it overlaps). Linear in the size, with a bound on what is decoded. Thread-safe,
  // but not beside `protect`.
  std::vector<Match> scan(std::string_view text) const;
  // The same over the strings of a JSON document (an argument object), and over all of its strings joined, so that what is split over fields is seen; begin and
  // end are those of the JSON text. Not JSON: scanned as text.
  std::vector<Match> scan_json(std::string_view json) const;
  // Text that a tool returned: also looks for injection.
  std::vector<Match> scan_result(std::string_view text) const;

  // `text` with each match replaced by a stand-in ("[SECRET:aws_access_key]"); in JSON mode the document stays a document and only strings change.
  static std::string redact(std::string_view text, const std::vector<Match>& matches);
  static std::string redact_json(std::string_view json, const std::vector<Match>& matches);

  // A text that arrives in pieces. `hold_back` bytes (64 at least) and at most a quarter more stay behind until what follows is known, so that whatever the
  // pieces, matches and spans are those of `scan` as long as a match, with what announces it, is no longer than `hold_back`; nothing of such a match leaves
  // before it was seen. A longer one, once seen, is held until it ends, up to 64 KiB. Spans count from the start of the stream.
  class Stream {
   public:
    Stream(const Argus& argus, std::size_t hold_back);
    ~Stream();
    Stream(Stream&&) noexcept;
    Stream& operator=(Stream&&) noexcept;
    // What may leave now, redacted if `redact`; matches found are appended.
    std::string push(std::string_view piece, bool redact, std::vector<Match>& found);
    std::string finish(bool redact, std::vector<Match>& found);

   private:
    class Impl;
    std::unique_ptr<Impl> impl_;
  };

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::safety
