// What was decided, so that nobody can change it afterwards without being noticed: an append-only file of JSON lines, each with the hash of the one before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace hearth::store {

// One row: {"n": number from 1, "time": ISO 8601 UTC, "prev": hash of the row before, …fields, "hash": SHA-256 over the row without it}, hashes in hex.
class AuditLog {
 public:
  // The longest row, in bytes of its line.
  static constexpr std::size_t longest_row = std::size_t{64} << 10;

  // Opens or creates `folder`/audit.jsonl for one writer, and continues its chain. A last line that a crash cut short is moved to audit.cut and said so in the
  // next row. io when it cannot be written or another process writes it; config_invalid when what is there does not verify at its end.
  static Result<std::unique_ptr<AuditLog>> open(const std::string& folder);
  // Writes what is still on its way.
  ~AuditLog();

  // Appends a row and gives its number; it is on its way to the disk when this returns and there within a second. A row that cannot be written is an error of every
  // later append, and so is a disk that does not keep up. Thread-safe; `fields` has none of the row's own names.
  Result<std::uint64_t> append(json::object fields);
  // Waits until what was appended is on the disk, or cannot be.
  Result<void> flush();

  // Where the log of a folder is.
  static std::string path_in(const std::string& folder);

  struct Report {
    std::uint64_t rows = 0;
    std::string head;       // hash of the last row: kept elsewhere, it proves that nothing was cut off
    std::uint64_t bad = 0;  // number of the first row that does not fit; 0 = none
    std::string problem;
  };
  // Reads a whole log and checks every row. io when it cannot be read.
  static Result<Report> verify(const std::string& path);
  // The rows of a log, oldest first, from number `from` on; stops when `row` returns false. An unfinished last line is no row yet.
  static Result<void> read(const std::string& path, std::uint64_t from, const std::function<bool(const json::object& row)>& row);

 private:
  class Impl;
  explicit AuditLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth::store
