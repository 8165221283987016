#include "engine/adapter_cache.h"

#include <gguf.h>
#include <llama.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>

#include "engine/backend.h"

namespace hearth::engine {
namespace {

namespace fs = std::filesystem;
using catalog::printable;

constexpr std::size_t most_names = 20;  // in an error message

Error refused(ErrorCode code, std::string message) { return Error{code, std::move(message), "adapter"}; }

std::string mebibytes(std::int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  char text[32];
  std::snprintf(text, sizeof text, mib < 10 ? "%.1f MiB" : "%.0f MiB", mib);
  return text;
}

fs::path normal(const fs::path& path) {
  std::error_code ec;
  return path.empty() ? path : fs::absolute(path, ec).lexically_normal();
}

// `path` without its last `suffix`, or nothing.
std::optional<std::string> without(const std::string& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return {};
  return text.substr(0, text.size() - suffix.size());
}

std::string shape(const std::vector<std::uint64_t>& sizes) {
  std::string out;
  for (std::uint64_t size : sizes) out += (out.empty() ? "" : " × ") + std::to_string(size);
  return out;
}

std::uint64_t size_of(const catalog::GgufTensor& tensor, std::size_t dimension) {
  return dimension < tensor.shape.size() ? tensor.shape[dimension] : 1;
}

// What llama.cpp's converter writes, and every back end multiplies with.
bool computable(const catalog::TensorType& type) {
  constexpr std::array<std::string_view, 4> names{"F32", "F16", "BF16", "Q8_0"};
  return std::find(names.begin(), names.end(), type.name) != names.end();
}

// Reads the file once, so that loading it is a copy in memory.
Result<void> warm(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> buffer(std::size_t{1} << 20);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {}
  if (!in.eof()) return Error{ErrorCode::model_invalid, "cannot be read"};
  return {};
}

// llama.cpp asserts that the number it reads is a 32-bit one.
bool alpha_is_float(const std::string& path) {
  const gguf_init_params header_only{.no_alloc = true, .ctx = nullptr};
  const std::unique_ptr<gguf_context, void (*)(gguf_context*)> file(gguf_init_from_file(path.c_str(), header_only), gguf_free);
  if (!file) return false;
  const std::int64_t at = gguf_find_key(file.get(), "adapter.lora.alpha");
  return at < 0 || (gguf_get_kv_type(file.get(), at) == GGUF_TYPE_FLOAT32 && std::isfinite(gguf_get_val_f32(file.get(), at)));
}

}  // namespace

AdapterCache::AdapterCache(Base base, std::vector<AdapterSpec> configured, const std::string& folder, std::int64_t bytes)
    : base_(std::move(base)),
      configured_(std::move(configured)),
      folder_(folder.empty() ? fs::path() : normal(fs::path(folder) / ".").parent_path()),
      limit_(bytes) {}
AdapterCache::~AdapterCache() = default;

std::vector<std::string> AdapterCache::names() const {
  std::vector<std::string> out;
  for (const AdapterSpec& spec : configured_) out.push_back(spec.name);
  if (folder_.empty()) return out;
  std::vector<std::string> found;
  std::error_code ec;
  for (fs::directory_iterator it(folder_, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code no_file;
    if (it->path().extension() != ".gguf" || !it->is_regular_file(no_file)) continue;
    std::string name = it->path().stem();
    if (std::find(out.begin(), out.end(), name) == out.end()) found.push_back(std::move(name));
  }
  std::sort(found.begin(), found.end());
  out.insert(out.end(), found.begin(), found.end());
  return out;
}

Error AdapterCache::unknown(const std::string& wanted) const {
  const std::vector<std::string> all = names();
  std::string message = "there is no adapter \"" + printable(wanted) + "\"";
  if (all.empty()) return refused(ErrorCode::model_not_found, message + ": this model has none");
  message += "; those there are: ";
  for (std::size_t i = 0; i < std::min(all.size(), most_names); ++i) message += (i == 0 ? "" : ", ") + printable(all[i]);
  if (all.size() > most_names) message += " and " + std::to_string(all.size() - most_names) + " more";
  return refused(ErrorCode::model_not_found, std::move(message));
}

// Which file a client's word stands for. What is configured is the operator's choice; anything else must lie in the folder, as its name is written:
// a client cannot make this process open another file.
Result<AdapterCache::Source> AdapterCache::resolve(const std::string& wanted) const {
  for (const AdapterSpec& spec : configured_) {
    if (spec.name == wanted) return Source{normal(spec.path), spec.scale};
  }
  if (wanted.find('\0') != std::string::npos) return unknown(wanted);
  const bool is_path = wanted.find('/') != std::string::npos;
  const fs::path file = normal(is_path ? folder_ / wanted : folder_ / (without(wanted, ".gguf").value_or(wanted) + ".gguf"));
  for (const AdapterSpec& spec : configured_) {
    if (is_path && normal(spec.path) == file) return Source{file, spec.scale};
  }
  const bool inside = !folder_.empty() && std::mismatch(folder_.begin(), folder_.end(), file.begin(), file.end()).first == folder_.end();
  if (is_path && !inside) {
    return refused(ErrorCode::invalid_request, "the adapter \"" + printable(wanted) +
                                                   "\" is a path outside the adapters' folder: use a name, or a path inside that folder");
  }
  std::error_code ec;
  if (!inside || file.extension() != ".gguf" || !fs::is_regular_file(file, ec)) return unknown(wanted);
  return Source{file, 1};
}

const catalog::GgufTensor* AdapterCache::base_tensor(const std::string& name) const {
  const auto at = std::find_if(base_.tensors.begin(), base_.tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  return at == base_.tensors.end() ? nullptr : &*at;
}

// Products of the shapes must fit, or a graph with this adapter would end the process.
Result<void> AdapterCache::check_pair(const std::string& name, const catalog::GgufTensor& a, const catalog::GgufTensor& b) const {
  const auto bad = [&](std::string what) {
    return refused(ErrorCode::unsupported, "was made for another base model: its tensor \"" + printable(name) + "\" " + std::move(what));
  };
  const catalog::GgufTensor* const base = base_tensor(name);
  if (base == nullptr) return bad("does not exist in this one");
  for (const auto* part : {&a, &b}) {
    if (!computable(*part->type)) {
      return refused(ErrorCode::unsupported, "has a tensor of type " + std::string(part->type->name) + " (\"" + printable(part->name) +
                                                 "\"): convert it again as F32, F16, BF16 or Q8_0");
    }
  }
  // Embedding rows are looked up, not multiplied: there the first matrix lies the other way round.
  const bool rows = name == "token_embd.weight";
  if (rows && base_tensor("output.weight") == nullptr) {
    return refused(ErrorCode::unsupported,
                   "changes the embedding matrix, which this model also uses for its output: llama.cpp cannot do that");
  }
  const std::uint64_t width = size_of(*base, 0), height = size_of(*base, 1);
  const bool fits = rows ? width == size_of(b, 1) && height == size_of(a, 1) && size_of(a, 0) == size_of(b, 0)
                         : width == size_of(a, 0) && height == size_of(b, 1) && size_of(a, 1) == size_of(b, 0);
  const auto same = [&](std::size_t d) { return size_of(a, d) == size_of(*base, d) && size_of(b, d) == size_of(*base, d); };
  if (fits && same(2) && same(3)) return {};
  return bad("has the shapes " + shape(a.shape) + " and " + shape(b.shape) + ", this model's is " + shape(base->shape));
}

Result<void> AdapterCache::check_tensors(const catalog::Gguf& file) const {
  struct Pair {
    const catalog::GgufTensor *a = nullptr, *b = nullptr;
  };
  std::map<std::string, Pair> pairs;
  for (const catalog::GgufTensor& tensor : file.tensors) {
    if (auto name = without(tensor.name, ".lora_a")) pairs[*name].a = &tensor;
    else if (auto of_b = without(tensor.name, ".lora_b")) pairs[*of_b].b = &tensor;
    else if (!tensor.name.ends_with("_norm.weight")) {  // llama.cpp passes over those
      return refused(ErrorCode::model_invalid, "holds a tensor that is no part of an adapter: \"" + printable(tensor.name) + "\"");
    }
  }
  if (pairs.empty()) return refused(ErrorCode::model_invalid, "holds no LoRA tensors");
  for (const auto& [name, pair] : pairs) {
    if (pair.a == nullptr || pair.b == nullptr) {
      return refused(ErrorCode::model_invalid,
                     "is damaged: of the pair \"" + printable(name) + "\" only " + (pair.a != nullptr ? "lora_a" : "lora_b") + " is there");
    }
    if (auto fits = check_pair(name, *pair.a, *pair.b); !fits) return fits;
  }
  return {};
}

// The bytes its tensors will take. Errors go on after the adapter's name.
Result<std::int64_t> AdapterCache::check(const Source& source) const {
  auto file = catalog::read_gguf(source.path);
  if (!file) {
    std::string message = file.error().message;
    if (message.starts_with(source.path + " ")) message.erase(0, source.path.size() + 1);  // where it lies is not the client's business
    return refused(ErrorCode::model_invalid, std::move(message));
  }
  const std::string type = file->text("general.type"), kind = file->text("adapter.type"), architecture = file->text("general.architecture");
  if (type != "adapter") {
    return refused(ErrorCode::model_invalid, type.empty() || type == "model" ? "is a model, not an adapter"
                                                                             : "is of type \"" + printable(type) + "\", not an adapter");
  }
  if (kind != "lora") return refused(ErrorCode::unsupported, "is an adapter of type \"" + printable(kind) + "\"; this build reads LoRA");
  if (architecture != base_.architecture) {
    return refused(ErrorCode::unsupported, "was made for another base model: it is for the architecture \"" + printable(architecture) +
                                               "\", this model is \"" + base_.architecture + "\"");
  }
  if (file->find("adapter.alora.invocation_tokens") != nullptr) {
    return refused(ErrorCode::unsupported,
                   "is an activated LoRA, which only counts from certain tokens on: this build applies LoRA throughout");
  }
  if (!alpha_is_float(source.path)) return refused(ErrorCode::model_invalid, "is damaged: its adapter.lora.alpha is no 32-bit number");
  if (auto ok = check_tensors(*file); !ok) return ok.error();
  std::int64_t bytes = 0;
  for (const catalog::GgufTensor& tensor : file->tensors) bytes += static_cast<std::int64_t>(tensor.bytes);
  if (bytes > limit_) {
    return refused(ErrorCode::unsupported,
                   "has " + mebibytes(bytes) + ", and the budget for adapters is " + mebibytes(limit_) + ": raise it to use this one");
  }
  return bytes;
}

// Everything between a file's name and an adapter to compute with; `entry` counts its bytes from here on.
Result<AdapterPtr> AdapterCache::load(const Source& source, std::uint64_t id, Entry& entry) {
  auto bytes = check(source);
  if (!bytes) return std::move(bytes).error();
  std::vector<AdapterPtr> evicted;  // freed without the lock
  {
    const MutexLock lock(mutex_);
    if (auto room = make_room(*bytes, evicted); !room) return room.error();
    bytes_ += entry.bytes = *bytes;
  }
  evicted.clear();
  if (auto read = warm(source.path); !read) return read.error();
  LogCapture log;
  llama_adapter_lora* loaded = nullptr;
  {
    const MutexLock lock(adapter_list());
    loaded = llama_adapter_lora_init(base_.model, source.path.c_str());
  }
  if (loaded == nullptr) return Error{ErrorCode::model_invalid, "cannot be loaded: " + log.errors("llama.cpp gives no reason")};
  const auto free = [](llama_adapter_lora* adapter) {
    const MutexLock lock(adapter_list());
    llama_adapter_lora_free(adapter);
  };
  return AdapterPtr(std::make_shared<LlamaAdapter>(id, std::shared_ptr<llama_adapter_lora>(loaded, free), source.scale));
}

// Least recently used first. What it gives up is freed by the caller, or by the decoder when that is still attached to it.
Result<void> AdapterCache::make_room(std::int64_t bytes, std::vector<AdapterPtr>& evicted) {
  while (bytes_ + bytes > limit_) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      const bool idle = (*it)->adapter != nullptr && (*it)->adapter.use_count() == 1;
      if (idle && (oldest == entries_.end() || (*it)->used < (*oldest)->used)) oldest = it;
    }
    if (oldest == entries_.end()) {
      Error full =
          refused(ErrorCode::overloaded, "has to wait: adapters in use fill the budget of " + mebibytes(limit_) + "; try again later");
      full.retry_after = std::chrono::seconds(1);
      return full;
    }
    bytes_ -= (*oldest)->bytes;
    evicted.push_back(std::move((*oldest)->adapter));
    entries_.erase(oldest);
  }
  return {};
}

Result<AdapterPtr> AdapterCache::acquire(const std::string& wanted) {
  auto source = resolve(wanted);
  if (!source) return std::move(source).error();
  const auto named = [&](Error error) {
    error.message = "the adapter \"" + printable(wanted) + "\" " + error.message;
    error.param = "adapter";
    return error;
  };
  struct stat info{};
  if (stat(source->path.c_str(), &info) != 0) return unknown(wanted);
  const Version version{info.st_size, std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec, info.st_ino};

  AdapterPtr outdated;  // freed without the lock
  auto entry = std::make_shared<Entry>();
  std::uint64_t id = 0;
  {
    const MutexLock lock(mutex_);
    for (;;) {
      const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e->source == *source; });
      if (at == entries_.end()) break;
      if ((*at)->adapter == nullptr) {
        loaded_.wait(mutex_);
        continue;
      }
      if ((*at)->version == version) {
        (*at)->used = ++uses_;
        return (*at)->adapter;
      }
      bytes_ -= (*at)->bytes;
      outdated = std::move((*at)->adapter);
      entries_.erase(at);
      break;
    }
    entry->source = *source;
    entry->version = version;
    entry->used = ++uses_;
    id = ++last_id_;
    entries_.push_back(entry);
  }

  Result<AdapterPtr> adapter = AdapterPtr();
  try {
    adapter = load(*source, id, *entry);
  } catch (const std::exception& e) { adapter = Error{ErrorCode::internal, std::string("could not be loaded: ") + e.what()}; }

  const MutexLock lock(mutex_);
  if (adapter) {
    entry->adapter = *adapter;
    ++loads_;
  } else {
    bytes_ -= entry->bytes;
    std::erase(entries_, entry);
  }
  loaded_.notify_all();
  if (!adapter) return named(std::move(adapter).error());
  return adapter;
}

void AdapterCache::report(SchedulerStats& stats) const {
  const MutexLock lock(mutex_);
  stats.adapters = static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [](const auto& e) { return e->adapter != nullptr; }));
  stats.adapter_bytes = bytes_;
  stats.adapter_loads = loads_;
}

}  // namespace hearth::engine
