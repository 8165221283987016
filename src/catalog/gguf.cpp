#include "catalog/gguf.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "base/utf8.h"

namespace hearth::catalog {
namespace {

// Block sizes of ggml at the pinned release; a test compares them with ggml's own.
constexpr std::array tensor_types{
    TensorType{0, "F32", 1, 4},         TensorType{1, "F16", 1, 2},         TensorType{2, "Q4_0", 32, 18},
    TensorType{3, "Q4_1", 32, 20},      TensorType{6, "Q5_0", 32, 22},      TensorType{7, "Q5_1", 32, 24},
    TensorType{8, "Q8_0", 32, 34},      TensorType{9, "Q8_1", 32, 36},      TensorType{10, "Q2_K", 256, 84},
    TensorType{11, "Q3_K", 256, 110},   TensorType{12, "Q4_K", 256, 144},   TensorType{13, "Q5_K", 256, 176},
    TensorType{14, "Q6_K", 256, 210},   TensorType{15, "Q8_K", 256, 292},   TensorType{16, "IQ2_XXS", 256, 66},
    TensorType{17, "IQ2_XS", 256, 74},  TensorType{18, "IQ3_XXS", 256, 98}, TensorType{19, "IQ1_S", 256, 50},
    TensorType{20, "IQ4_NL", 32, 18},   TensorType{21, "IQ3_S", 256, 110},  TensorType{22, "IQ2_S", 256, 82},
    TensorType{23, "IQ4_XS", 256, 136}, TensorType{24, "I8", 1, 1},         TensorType{25, "I16", 1, 2},
    TensorType{26, "I32", 1, 4},        TensorType{27, "I64", 1, 8},        TensorType{28, "F64", 1, 8},
    TensorType{29, "IQ1_M", 256, 56},   TensorType{30, "BF16", 1, 2},       TensorType{34, "TQ1_0", 256, 54},
    TensorType{35, "TQ2_0", 256, 66},   TensorType{39, "MXFP4", 32, 17},    TensorType{40, "NVFP4", 64, 36},
    TensorType{41, "Q1_0", 128, 18},    TensorType{42, "Q2_0", 64, 18},
};

// Value types of the format, by number.
enum : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64, type_count };
constexpr std::array<std::uint8_t, type_count> fixed_size{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

constexpr std::uint64_t max_string = std::uint64_t{1} << 30;    // llama.cpp's own bound
constexpr std::uint64_t max_elements = std::uint64_t{1} << 30;  // likewise
constexpr std::uint64_t kept_text = 1 << 20;
constexpr std::uint64_t kept_elements = 4096;
constexpr std::size_t max_tensor_name = 63;  // GGML_MAX_NAME, less the terminator
constexpr std::uint32_t max_dimensions = 4;  // GGML_MAX_DIMS

Error bad(std::string message) { return Error{ErrorCode::model_invalid, std::move(message)}; }

// Leaves the parser on the first fault; caught in parse().
struct Fault {
  std::string message;
};

class Reader {
 public:
  Reader(int fd, std::uint64_t size) : fd_(fd), size_(size), buffer_(64 * 1024, '\0') {}
  explicit Reader(std::string_view bytes) : size_(bytes.size()), window_(bytes) {}

  std::uint64_t size() const { return size_; }
  std::uint64_t position() const { return position_; }
  std::uint64_t remaining() const { return size_ - position_; }

  // `what` names what is being read, for the message when the file ends first.
  void read(void* to, std::size_t count, std::string_view what) {
    need(count, what);
    auto* out = static_cast<char*>(to);
    while (count > 0) {
      if (position_ < window_start_ || position_ >= window_start_ + window_.size()) fill();
      const auto at = static_cast<std::size_t>(position_ - window_start_);
      const std::size_t part = std::min(count, window_.size() - at);
      std::memcpy(out, window_.data() + at, part);
      out += part;
      position_ += part;
      count -= part;
    }
  }
  void skip(std::uint64_t count, std::string_view what) {
    need(count, what);
    position_ += count;
  }
  void seek(std::uint64_t to) { position_ = to; }
  template <class T>
  T number(std::string_view what) {
    T value{};
    read(&value, sizeof value, what);
    return value;
  }
  // Keeps the first `kept` bytes of a longer text.
  std::string text(std::uint64_t kept, std::string_view what) {
    const auto length = number<std::uint64_t>(what);
    if (length > max_string)
      throw Fault{fmt::format("is damaged: at byte {} {} has an impossible length of {} bytes", position_ - 8, what, length)};
    need(length, what);
    std::string out(static_cast<std::size_t>(std::min(length, kept)), '\0');
    read(out.data(), out.size(), what);
    position_ += length - out.size();
    return out;
  }

 private:
  void need(std::uint64_t count, std::string_view what) const {
    if (count <= remaining()) return;
    throw Fault{
        fmt::format("is truncated: {} at byte {} needs {} bytes, so at least {} in all, but the file has {}. Download or copy it again",
                    what, position_, count, position_ + count, size_)};
  }
  void fill() {
    ssize_t got;
    do got = pread(fd_, buffer_.data(), buffer_.size(), static_cast<off_t>(position_));
    while (got < 0 && errno == EINTR);
    if (got < 0) throw Fault{fmt::format("cannot be read at byte {}: {}", position_, std::strerror(errno))};
    if (got == 0) throw Fault{fmt::format("became shorter while it was read: it ends at byte {}, {} were there", position_, size_)};
    window_start_ = position_;
    window_ = std::string_view(buffer_).substr(0, static_cast<std::size_t>(got));
  }

  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::uint64_t position_ = 0;
  std::uint64_t window_start_ = 0;
  std::string buffer_;
  std::string_view window_;
};

// What a file that is no GGUF is, and what to do about it.
std::string other_format(std::string_view head) {
  const auto starts = [&](std::string_view magic) { return head.starts_with(magic); };
  if (starts("ggml") || starts("lmgg") || starts("fmgg") || starts("tjgg") || starts("ggla") || starts("algg")) {
    return "is in an old GGML format (GGML, GGMF, GGJT or GGLA), which llama.cpp dropped in 2023. Get a GGUF of this model";
  }
  if (starts("FUGG")) return "has its magic reversed (a big-endian GGUF). Convert it with llama.cpp's gguf_convert_endian.py";
  if (starts("PK\x03\x04")) return "is a zip archive, most likely a PyTorch checkpoint. Convert it with llama.cpp's convert_hf_to_gguf.py";
  if (head.size() > 1 && head[0] == '\x80' && head[1] >= 1 && head[1] <= 5) {
    return "is a Python pickle, most likely an old PyTorch checkpoint (loading one can run code). Convert it with llama.cpp's "
           "convert_hf_to_gguf.py";
  }
  if (starts("\x1f\x8b")) return "is gzip-compressed. Unpack it first: gunzip FILE.gz";
  if (starts("\x28\xb5\x2f\xfd")) return "is zstd-compressed. Unpack it first: zstd -d FILE.zst";
  if (starts("\xfd"
             "7zXZ"))
    return "is xz-compressed. Unpack it first: xz -d FILE.xz";
  if (starts("version https://git-lfs")) return "is a Git LFS pointer, not the model itself. Fetch it with: git lfs pull";
  if (starts("\x89HDF")) return "is an HDF5 file (Keras). hearth serves GGUF; get a GGUF of this model";
  if (head.size() > 9 && head[8] == '{' && head[9] == '"') {
    return "is a safetensors file. Convert it with llama.cpp's convert_hf_to_gguf.py, or get a GGUF of this model";
  }
  std::string lower(head.substr(0, 256));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower.find("<!doctype html") != std::string::npos || lower.find("<html") != std::string::npos) {
    return "is an HTML page: the download saved a web page instead of the model (log in first, or use the link to the file itself)";
  }
  if (head.find_first_not_of('\0') == std::string_view::npos)
    return "begins with zero bytes: an unfinished download or a damaged copy. Download it again";
  return fmt::format("is not a GGUF file: it begins with \"{}\", a GGUF begins with \"GGUF\"", printable(head.substr(0, 4)));
}

GgufValue read_value(Reader& in, std::uint32_t type, std::string_view what) {
  switch (type) {
    case u8: return std::uint64_t{in.number<std::uint8_t>(what)};
    case i8: return std::int64_t{in.number<std::int8_t>(what)};
    case u16: return std::uint64_t{in.number<std::uint16_t>(what)};
    case i16: return std::int64_t{in.number<std::int16_t>(what)};
    case u32: return std::uint64_t{in.number<std::uint32_t>(what)};
    case i32: return std::int64_t{in.number<std::int32_t>(what)};
    case f32: return double{in.number<float>(what)};
    case boolean: return in.number<std::uint8_t>(what) != 0;
    case string: return in.text(kept_text, what);
    case u64: return in.number<std::uint64_t>(what);
    case i64: return in.number<std::int64_t>(what);
    case f64: return in.number<double>(what);
    case array: break;
    default: throw Fault{fmt::format("is damaged: {} has the value type {}, known are 0 to {}", what, type, type_count - 1)};
  }
  GgufArray out;
  out.element_type = in.number<std::uint32_t>(what);
  out.count = in.number<std::uint64_t>(what);
  if (out.element_type >= type_count || out.element_type == array) {
    throw Fault{fmt::format("is damaged: {} is an array of value type {}, which is not allowed", what, out.element_type)};
  }
  if (out.count > max_elements) throw Fault{fmt::format("is damaged: {} claims {} elements", what, out.count)};
  if (out.element_type == string) {
    for (std::uint64_t i = 0; i < out.count; ++i) (void)in.text(0, what);
    return out;
  }
  const bool keep = out.count <= kept_elements && out.element_type != f32 && out.element_type != f64 && out.element_type != boolean;
  if (!keep) {
    in.skip(out.count * fixed_size[out.element_type], what);
    return out;
  }
  for (std::uint64_t i = 0; i < out.count; ++i) {
    const GgufValue element = read_value(in, out.element_type, what);
    const auto* natural = std::get_if<std::uint64_t>(&element);
    out.integers.push_back(natural != nullptr ? static_cast<std::int64_t>(*natural) : std::get<std::int64_t>(element));
  }
  return out;
}

GgufTensor read_tensor(Reader& in, const std::string& place) {
  GgufTensor tensor;
  tensor.name = in.text(kept_text, place);
  const std::string what = "tensor \"" + printable(tensor.name) + "\"";
  if (tensor.name.size() > max_tensor_name) {
    throw Fault{fmt::format("is damaged: {} has a name of {} bytes, at most {} are allowed", what, tensor.name.size(), max_tensor_name)};
  }
  const auto dimensions = in.number<std::uint32_t>(what);
  if (dimensions == 0 || dimensions > max_dimensions) {
    throw Fault{fmt::format("is damaged: {} has {} dimensions, 1 to {} are allowed", what, dimensions, max_dimensions)};
  }
  tensor.elements = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.number<std::uint64_t>(what);
    // 2^56 elements of at most 8 bytes cannot overflow below.
    if (size == 0 || size > (std::uint64_t{1} << 56) / tensor.elements)
      throw Fault{fmt::format("is damaged: {} has an impossible dimension of {}", what, size)};
    tensor.elements *= size;
    tensor.shape.push_back(size);
  }
  const auto type = in.number<std::uint32_t>(what);
  tensor.type = find_tensor_type(type);
  if (tensor.type == nullptr) {
    throw Fault{
        fmt::format("cannot be loaded: {} has tensor type {}, which this version of llama.cpp does not know (or no longer supports). "
                    "Use a newer hearth, or another quantisation of the model",
                    what, type)};
  }
  if (tensor.shape[0] % tensor.type->elements != 0) {
    throw Fault{fmt::format("is damaged: {} has rows of {} elements, {} stores blocks of {}", what, tensor.shape[0], tensor.type->name,
                            tensor.type->elements)};
  }
  tensor.bytes = tensor.elements / tensor.type->elements * tensor.type->bytes;
  tensor.offset = in.number<std::uint64_t>(what);
  return tensor;
}

std::uint64_t padded(std::uint64_t bytes, std::uint64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

void check_layout(const Gguf& gguf) {
  std::uint64_t expected = 0;
  for (const auto& tensor : gguf.tensors) {
    const std::string name = printable(tensor.name);
    if (tensor.offset % gguf.alignment != 0) {
      throw Fault{fmt::format("is damaged: tensor \"{}\" begins at offset {}, which is not a multiple of the alignment {}", name,
                              tensor.offset, gguf.alignment)};
    }
    if (tensor.offset < expected) {
      throw Fault{fmt::format("is damaged: tensor \"{}\" at offset {} overlaps the one before it, which ends at {}", name, tensor.offset,
                              expected)};
    }
    if (tensor.offset > expected) {
      throw Fault{fmt::format("is damaged: tensor \"{}\" begins at offset {}, but {} was expected; llama.cpp refuses files with gaps", name,
                              tensor.offset, expected)};
    }
    if (tensor.bytes > std::numeric_limits<std::uint64_t>::max() / 2 - expected)
      throw Fault{fmt::format("is damaged: tensor \"{}\" is impossibly large", name)};
    expected = padded(expected + tensor.bytes, gguf.alignment);
  }
  // The last tensor's padding may be missing: nothing reads it.
  const std::uint64_t data = gguf.tensors.empty() ? 0 : gguf.tensors.back().offset + gguf.tensors.back().bytes;
  if (gguf.data_offset + data > gguf.file_bytes) {
    const std::uint64_t needed = gguf.data_offset + data;
    throw Fault{fmt::format("is truncated: {} bytes expected, {} are there ({:.1f} %). Download or copy it again", needed, gguf.file_bytes,
                            100.0 * static_cast<double>(gguf.file_bytes) / static_cast<double>(needed))};
  }
}

Gguf parse(Reader& in) {
  if (in.size() == 0) throw Fault{"is empty (0 bytes): an unfinished download or copy. Get it again"};
  std::string head(static_cast<std::size_t>(std::min<std::uint64_t>(in.size(), 256)), '\0');
  in.read(head.data(), head.size(), "the beginning");
  if (!head.starts_with("GGUF")) {
    if (std::string_view("GGUF").starts_with(head))
      throw Fault{fmt::format("is truncated: at least 24 bytes expected, {} are there. Download or copy it again", in.size())};
    throw Fault{other_format(head)};
  }
  in.seek(4);
  Gguf gguf;
  gguf.file_bytes = in.size();
  gguf.version = in.number<std::uint32_t>("the version");
  if ((gguf.version & 0xffff) == 0 && gguf.version != 0) {
    throw Fault{"is a big-endian GGUF; this machine is little-endian. Convert it with llama.cpp's gguf_convert_endian.py"};
  }
  if (gguf.version < 2 || gguf.version > 3) {
    throw Fault{fmt::format("is GGUF version {}; versions 2 and 3 are supported. {}", gguf.version,
                            gguf.version > 3 ? "Use a newer hearth" : "Convert the model again with a current llama.cpp")};
  }
  const auto tensors = in.number<std::uint64_t>("the tensor count");
  const auto entries = in.number<std::uint64_t>("the metadata count");
  // The least an entry takes: key length, type and one byte; a tensor: name length, dimension count, one dimension, type and offset.
  if (entries > in.remaining() / 13)
    throw Fault{
        fmt::format("is truncated or damaged: {} metadata entries do not fit in the {} bytes after the header", entries, in.remaining())};
  if (tensors > in.remaining() / 32)
    throw Fault{fmt::format("is truncated or damaged: {} tensors do not fit in the {} bytes after the header", tensors, in.remaining())};

  std::unordered_set<std::string> seen;
  for (std::uint64_t i = 0; i < entries; ++i) {
    std::string key = in.text(kept_text, fmt::format("metadata key {} of {}", i + 1, entries));
    const std::string what = "metadata \"" + printable(key) + "\"";
    if (!seen.insert(key).second) throw Fault{fmt::format("is damaged: {} appears twice", what)};
    const auto type = in.number<std::uint32_t>(what);
    GgufValue value = read_value(in, type, what);
    if (key == "general.alignment") {
      const auto* alignment = std::get_if<std::uint64_t>(&value);
      if (type != u32 || *alignment == 0 || (*alignment & (*alignment - 1)) != 0) {
        throw Fault{fmt::format("is damaged: {} must be a 32-bit power of two", what)};
      }
      gguf.alignment = *alignment;
    }
    gguf.metadata.emplace_back(std::move(key), std::move(value));
  }
  seen.clear();
  for (std::uint64_t i = 0; i < tensors; ++i) {
    gguf.tensors.push_back(read_tensor(in, fmt::format("tensor {} of {}", i + 1, tensors)));
    if (!seen.insert(gguf.tensors.back().name).second)
      throw Fault{fmt::format("is damaged: tensor \"{}\" appears twice", printable(gguf.tensors.back().name))};
  }
  gguf.data_offset = tensors == 0 ? in.position() : padded(in.position(), gguf.alignment);
  check_layout(gguf);
  return gguf;
}

Result<Gguf> guarded(Reader& in, std::string_view name) {
  try {
    return parse(in);
  } catch (const Fault& fault) { return bad(fmt::format("{} {}.", name, fault.message)); }
}

}  // namespace

const TensorType* find_tensor_type(std::uint32_t id) {
  const auto it = std::find_if(tensor_types.begin(), tensor_types.end(), [&](const TensorType& type) { return type.id == id; });
  return it == tensor_types.end() ? nullptr : &*it;
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto it = std::find_if(metadata.begin(), metadata.end(), [&](const auto& entry) { return entry.first == key; });
  return it == metadata.end() ? nullptr : &it->second;
}
std::string Gguf::text(std::string_view key) const {
  const auto* value = find(key);
  const auto* text = value != nullptr ? std::get_if<std::string>(value) : nullptr;
  return text != nullptr ? *text : std::string();
}
std::int64_t Gguf::integer(std::string_view key, std::int64_t otherwise) const {
  const auto* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto* natural = std::get_if<std::uint64_t>(value)) {
    return *natural <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ? static_cast<std::int64_t>(*natural)
                                                                                            : otherwise;
  }
  const auto* integer = std::get_if<std::int64_t>(value);
  return integer != nullptr ? *integer : otherwise;
}

Result<Gguf> parse_gguf(std::string_view bytes, std::string_view name) {
  Reader in(bytes);
  return guarded(in, name);
}

Result<Gguf> read_gguf(const std::string& path) {
  // Without O_NONBLOCK a FIFO in place of the file would wait for a writer for ever.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string reason = errno == ENOENT   ? "there is no such file"
                               : errno == EACCES ? "permission denied (check its mode and owner: ls -l)"
                                                 : std::strerror(errno);
    return Error{ErrorCode::io, fmt::format("{} cannot be opened: {}.", path, reason)};
  }
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat info{};
  if (fstat(fd, &info) != 0) return Error{ErrorCode::io, fmt::format("{} cannot be read: {}.", path, std::strerror(errno))};
  if (S_ISDIR(info.st_mode))
    return Error{ErrorCode::io,
                 fmt::format("{} is a folder. Give the path of a .gguf file; `hearth models list {}` shows those in it.", path, path)};
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::io, fmt::format("{} is not a regular file.", path)};
  Reader in(fd, static_cast<std::uint64_t>(info.st_size));
  return guarded(in, path);
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  while (!text.empty() && out.size() < limit) {
    const std::size_t length = utf8_sequence_length(text);
    const auto first = static_cast<unsigned char>(text[0]);
    // C1 controls (U+0080 to U+009F) steer terminals too.
    const bool control = first < 0x20 || first == 0x7f || (length == 2 && first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    if (length == 0 || control) {
      out += '?';
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  if (!text.empty()) out += "…";
  return out;
}

}  // namespace hearth::catalog
