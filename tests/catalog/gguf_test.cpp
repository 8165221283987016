#include "catalog/gguf.h"

#include <ggml.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "catalog/default_model.h"
#include "catalog/gguf_writer.h"

namespace hearth::catalog {
namespace {

using test::GgufWriter;
using test::small_model;

std::string fault(std::string_view bytes) {
  const auto gguf = parse_gguf(bytes, "m.gguf");
  if (gguf.ok()) return "(accepted)";
  EXPECT_EQ(gguf.error().code, ErrorCode::model_invalid);
  EXPECT_TRUE(gguf.error().message.starts_with("m.gguf ")) << gguf.error().message;
  return gguf.error().message;
}

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hearth-catalog-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, std::string_view bytes) const {
    const auto file = path_ / name;
    std::ofstream(file, std::ios::binary) << bytes;
    return file.string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(TensorTypes, AreThoseOfGgml) {
  for (std::uint32_t id = 0; id < 100; ++id) {
    const auto* type = find_tensor_type(id);
    // ggml keeps removed types as entries of size 0.
    if (id >= GGML_TYPE_COUNT || ggml_type_size(static_cast<ggml_type>(id)) == 0) {
      EXPECT_EQ(type, nullptr) << id;
      continue;
    }
    ASSERT_NE(type, nullptr) << ggml_type_name(static_cast<ggml_type>(id));
    EXPECT_EQ(type->elements, static_cast<std::uint32_t>(ggml_blck_size(static_cast<ggml_type>(id)))) << type->name;
    EXPECT_EQ(type->bytes, ggml_type_size(static_cast<ggml_type>(id))) << type->name;
  }
}

TEST(Gguf, ReadsTheDefaultModel) {
  const auto gguf = parse_gguf(default_model(), "nano");
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  EXPECT_EQ(gguf->version, 3u);
  EXPECT_EQ(gguf->tensors.size(), 38u);
  EXPECT_EQ(gguf->metadata.size(), 25u);
  EXPECT_EQ(gguf->text("general.architecture"), "llama");
  EXPECT_EQ(gguf->integer("llama.block_count", -1), 4);
  EXPECT_EQ(gguf->file_bytes, 7'017'536u);
  EXPECT_EQ(gguf->tensors[0].name, "token_embd.weight");
  EXPECT_EQ(gguf->tensors[0].shape, (std::vector<std::uint64_t>{256, 2048}));
}

TEST(Gguf, FileAndMemoryAgree) {
  const auto from_file = read_gguf(HEARTH_SOURCE_DIR "/assets/hearth-nano-0-f16.gguf");
  ASSERT_TRUE(from_file.ok()) << from_file.error().message;
  const auto from_memory = parse_gguf(default_model(), "nano");
  ASSERT_TRUE(from_memory.ok());
  EXPECT_EQ(from_file->data_offset, from_memory->data_offset);
  ASSERT_EQ(from_file->tensors.size(), from_memory->tensors.size());
  for (std::size_t i = 0; i < from_file->tensors.size(); ++i) EXPECT_EQ(from_file->tensors[i].offset, from_memory->tensors[i].offset);
}

TEST(Gguf, EveryTruncationIsSeen) {
  const std::string_view whole = default_model();
  // Every byte of the first 2 KB, then ever larger steps to the end.
  for (std::size_t size = 0; size < whole.size(); size += size < 2048 ? 1 : 997 + size / 64) {
    const std::string message = fault(whole.substr(0, size));
    ASSERT_TRUE(message.find("truncated") != std::string::npos || message.find("is empty") != std::string::npos) << size << ": " << message;
  }
  EXPECT_NE(fault(whole.substr(0, 5'000'000)).find("7017536 bytes expected, 5000000 are there (71.3 %)"), std::string::npos);
  EXPECT_NE(fault(whole.substr(0, whole.size() - 1)).find("truncated"), std::string::npos);
}

TEST(Gguf, EveryByteOfTheHeaderMayBeWrongWithoutHarm) {
  const std::string head(default_model().substr(0, 70'000));
  int refused = 0;
  for (std::size_t at = 0; at < 62'000; at += at < 2'000 ? 1 : 211) {
    std::string damaged = head;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    refused += parse_gguf(damaged, "m").ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 500);
}

TEST(Gguf, NamesTheVersion) {
  auto w = small_model();
  w.version = 2;
  EXPECT_EQ(fault(w.write()), "(accepted)");
  w.version = 1;
  EXPECT_NE(fault(w.write()).find("GGUF version 1; versions 2 and 3 are supported"), std::string::npos);
  w.version = 4;
  EXPECT_NE(fault(w.write()).find("GGUF version 4; versions 2 and 3 are supported. Use a newer hearth"), std::string::npos);
  w.version = 0x03000000;
  EXPECT_NE(fault(w.write()).find("big-endian"), std::string::npos);
}

TEST(Gguf, NamesOtherFormats) {
  const std::pair<std::string, std::string> cases[] = {
      {std::string("\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", 27), "safetensors"},
      {"PK\x03\x04rest of it", "PyTorch"},
      {"\x80\x02}q\x01.", "pickle"},
      {"lmggxxxxxxxxxxxx", "old GGML format"},
      {"tjggxxxxxxxxxxxx", "old GGML format"},
      {"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"},
      {"\n  <html lang=\"en\">", "HTML page"},
      {"\x1f\x8b\x08xxxx", "gunzip"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"},
      {std::string(64, '\0'), "zero bytes"},
      {"hello, world", "begins with \"hell"},
      {"\x1b[2Jboo", "begins with \"?[2J"},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_NE(fault(bytes).find(expected), std::string::npos) << fault(bytes);
}

TEST(Gguf, RefusesWhatLlamaCppWouldRefuse) {
  const std::pair<std::function<void(GgufWriter&)>, std::string> cases[] = {
      {[](auto& w) { w.text("general.name", "again"); }, "metadata \"general.name\" appears twice"},
      {[](auto& w) { w.tensors[1].name = w.tensors[0].name; }, "tensor \"token_embd.weight\" appears twice"},
      {[](auto& w) { w.tensors[1].offset -= 32; }, "overlaps the one before it"},
      {[](auto& w) { w.tensors[1].offset += 32; }, "llama.cpp refuses files with gaps"},
      {[](auto& w) { w.tensors[1].offset += 1; }, "not a multiple of the alignment 32"},
      {[](auto& w) { w.tensors[1].type = 4; }, "tensor type 4, which this version of llama.cpp does not know"},
      {[](auto& w) { w.tensors[1].type = 4000; }, "tensor type 4000"},
      {[](auto& w) { w.tensors[0].shape[0] = 255; }, "rows of 255 elements, Q4_K stores blocks of 256"},
      {[](auto& w) { w.tensors[0].shape[0] = 0; }, "impossible dimension of 0"},
      {[](auto& w) { w.tensors[0].shape[1] = std::uint64_t{1} << 60; }, "impossible dimension"},
      {[](auto& w) { w.tensors[0].shape = {256, 10, 10, 10, 1}; }, "has 5 dimensions"},
      {[](auto& w) { w.tensors[0].shape = {}; }, "has 0 dimensions"},
      {[](auto& w) { w.tensors[0].name = std::string(64, 'x'); }, "a name of 64 bytes, at most 63"},
      {[](auto& w) { w.number("general.alignment", 24); }, "must be a 32-bit power of two"},
      {[](auto& w) { w.number("general.alignment", 0); }, "must be a 32-bit power of two"},
      {[](auto& w) { w.text("general.alignment", "32"); }, "must be a 32-bit power of two"},
      {[](auto& w) { w.raw("odd", 13, "xxxx"); }, "value type 13, known are 0 to 12"},
      {[](auto& w) { w.raw("nested", 9, std::string("\x09\0\0\0\x01\0\0\0\0\0\0\0", 12)); }, "array of value type 9"},
      {[](auto& w) { w.raw("long", 8, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8)); }, "impossible length"},
      {[](auto& w) { w.raw("long", 8, std::string("\0\0\0\x20\0\0\0\0", 8)); }, "truncated"},
      {[](auto& w) { w.raw("many", 9, std::string("\x04\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12)); },
       "claims 18446744073709551615 elements"},
      {[](auto& w) { w.missing_data = 1; }, "truncated"},
  };
  for (const auto& [damage, expected] : cases) {
    auto w = small_model();
    damage(w);
    EXPECT_NE(fault(w.write()).find(expected), std::string::npos) << "expected: " << expected << "\n     got: " << fault(w.write());
  }
}

TEST(Gguf, HonoursAnotherAlignment) {
  auto w = small_model();
  w.alignment = 64;
  w.number("general.alignment", 64);
  w.tensors.clear();
  w.tensor("a", {8}, 0, 32);
  w.tensor("b", {8}, 0, 32);
  const auto gguf = parse_gguf(w.write(), "m");
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  EXPECT_EQ(gguf->tensors[1].offset, 64u);
  EXPECT_EQ(gguf->data_offset % 64, 0u);
}

TEST(Gguf, SaysWhyAFileCannotBeOpened) {
  const TempFolder folder;
  const auto message = [](const std::string& path) {
    const auto gguf = read_gguf(path);
    return gguf.ok() ? std::string("(accepted)") : gguf.error().message;
  };
  EXPECT_NE(message(folder.path() + "/none.gguf").find("there is no such file"), std::string::npos);
  EXPECT_NE(message(folder.path()).find("is a folder"), std::string::npos);
  EXPECT_NE(message("/dev/null").find("not a regular file"), std::string::npos);
  EXPECT_NE(message(folder.write("empty.gguf", "")).find("is empty (0 bytes)"), std::string::npos);
  const std::string fifo = folder.path() + "/fifo.gguf";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(message(fifo).find("not a regular file"), std::string::npos);
  if (geteuid() != 0) {  // root may read everything
    const std::string secret = folder.write("secret.gguf", "GGUF");
    ASSERT_EQ(chmod(secret.c_str(), 0), 0);
    EXPECT_NE(message(secret).find("permission denied"), std::string::npos);
  }
}

TEST(Printable, DisarmsControlCharacters) {
  EXPECT_EQ(printable("plain ü"), "plain ü");
  EXPECT_EQ(printable("\x1b[31m\n\xff\xc2\x9b"), "?[31m???");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
}

}  // namespace
}  // namespace hearth::catalog
