#include "engine/vision.h"

#include <llama.h>
#include <mtmd-helper.h>
#include <mtmd.h>
#include <stb/stb_image.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/base64.h"
#include "base/log.h"
#include "catalog/gguf.h"
#include "engine/backend.h"

namespace hearth::engine {
namespace {

constexpr std::size_t most_bytes = std::size_t{32} << 20;             // of one image's file
constexpr std::int64_t most_pixels = std::int64_t{1} << 26;           // of one image
constexpr std::int64_t most_pixels_together = std::int64_t{1} << 27;  // of a request: they are unpacked at the same time
constexpr int longest_shape = 200;                                    // the longer side over the shorter
constexpr std::size_t most_known = 16'384;                            // pieces whose placeholders are remembered

std::string megapixels(std::int64_t pixels) { return std::to_string((pixels + 500'000) / 1'000'000) + " megapixels"; }

// What the decoder is given. It knows more formats, but those are rare and their decoders little tried against hostile files.
std::string_view format_of(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return "PNG";
  if (bytes.starts_with("\xFF\xD8\xFF")) return "JPEG";
  if (bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a")) return "GIF";
  if (bytes.starts_with("BM")) return "BMP";
  return {};
}

const unsigned char* data_of(const std::string& bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }

// The rows' places relative to where the image begins; empty optional when they are not that alone.
std::optional<std::vector<ImageRows::Place>> places_of(const mtmd_image_tokens* image, int count) {
  std::vector<ImageRows::Place> places;
  for (int i = 0; i < count; ++i) {
    const mtmd_decoder_pos at_0 = mtmd_image_tokens_get_decoder_pos(image, 0, static_cast<std::size_t>(i));
    const mtmd_decoder_pos at_1 = mtmd_image_tokens_get_decoder_pos(image, 1, static_cast<std::size_t>(i));
    if (at_1.t != at_0.t + 1 || at_1.y != at_0.y + 1 || at_1.x != at_0.x + 1 || at_0.z != 0) return {};
    places.push_back(
        {.t = static_cast<std::int32_t>(at_0.t), .y = static_cast<std::int32_t>(at_0.y), .x = static_cast<std::int32_t>(at_0.x)});
  }
  return places;
}

}  // namespace

void Vision::Unload::operator()(mtmd_context* context) const { mtmd_free(context); }

Result<std::unique_ptr<Vision>> Vision::create(const llama_model* model, VisionOptions options) {
  auto file = catalog::read_gguf(options.path);
  if (!file) return std::move(file).error();
  if (const std::string architecture = file->text("general.architecture"); architecture != "clip") {
    return Error{ErrorCode::model_invalid,
                 options.path + " is no vision projector: its architecture is \"" + catalog::printable(architecture) + "\", not \"clip\""};
  }
  const catalog::GgufValue* vision = file->find("clip.has_vision_encoder");
  if (vision == nullptr || !std::holds_alternative<bool>(*vision) || !std::get<bool>(*vision)) {
    return Error{ErrorCode::model_invalid, options.path + " is a projector for sound alone: it has no vision encoder"};
  }
  std::int64_t bytes = 0;
  for (const auto& tensor : file->tensors) bytes += static_cast<std::int64_t>(tensor.bytes);
  return std::unique_ptr<Vision>(new Vision(model, std::move(options), bytes));
}

Vision::Vision(const llama_model* model, VisionOptions options, std::int64_t bytes)
    : model_(model), vocab_(llama_model_get_vocab(model)), options_(std::move(options)), bytes_(bytes), watcher_([this] { watch(); }) {}

Vision::~Vision() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  watcher_.join();
}

// Unloads the projector when it has been idle for long enough.
void Vision::watch() {
  const MutexLock lock(mutex_);
  while (!stopping_) {
    const auto due = last_used_ + options_.idle;
    if (loaded_ == nullptr || loaded_.use_count() > 1 || options_.idle.count() == 0) {
      changed_.wait(mutex_);
    } else if (std::chrono::steady_clock::now() >= due) {
      loaded_.reset();
    } else {
      changed_.wait_until(mutex_, due);
    }
  }
}

Result<std::shared_ptr<mtmd_context>> Vision::projector() {
  const MutexLock alone(encoding_);
  {
    const MutexLock lock(mutex_);
    if (loaded_) return loaded_;
    if (refused_) return *refused_;
  }
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = options_.gpu;
  params.print_timings = false;
  params.n_threads = options_.threads;
  params.flash_attn_type = options_.flash_attention ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  LogCapture log;
  std::shared_ptr<mtmd_context> context(mtmd_init_from_file(options_.path.c_str(), model_, params), Unload{});
  if (!context) {
    const std::string reason = log.errors("llama.cpp gives no reason");
    if (reason.find("mismatch between text model") != std::string::npos) {
      // Not tried again: the library never frees a projector that it refuses at this point.
      const MutexLock lock(mutex_);
      refused_ = Error{ErrorCode::model_invalid,
                       "the projector " + options_.path + " does not belong to this model, use the one published with it: " + reason};
      return *refused_;
    }
    return Error{ErrorCode::model_invalid, "the projector " + options_.path + " cannot be loaded: " + reason};
  }
  const MutexLock lock(mutex_);
  loaded_ = context;
  last_used_ = std::chrono::steady_clock::now();
  ++loads_;
  return context;
}

// The files behind the images, held against the limits before anything is unpacked.
Result<std::vector<Vision::Picture>> Vision::decode(const RenderedChat& chat) const {
  std::vector<Picture> out;
  std::int64_t together = 0;
  for (const PlacedImage& placed : chat.images) {
    const chat::ContentPart& part = *placed.image;
    const auto wrong = [&](ErrorCode code, std::string message) { return Error{code, std::move(message), placed.param}; };
    if (!part.url.empty()) {
      return wrong(ErrorCode::unsupported, "images are not fetched from the network: send this one inline, as data:image/png;base64,…");
    }
    const std::string type = part.media_type.empty() ? "image" : catalog::printable(part.media_type);
    if (!part.media_type.empty() && !part.media_type.starts_with("image/"))
      return wrong(ErrorCode::unsupported, "this model sees images; it cannot take " + type);
    if (part.data.size() / 4 * 3 > most_bytes) {
      return wrong(ErrorCode::invalid_request, "the image (" + type + ") has " + std::to_string(part.data.size() / 4 * 3) +
                                                   " bytes; the most is " + std::to_string(most_bytes) + ": send it smaller or as JPEG");
    }
    auto bytes = base64_decode(part.data);
    if (!bytes) return wrong(ErrorCode::invalid_request, "the image (" + type + ") is not valid base64");
    const std::string_view format = format_of(*bytes);
    if (format.empty()) return wrong(ErrorCode::invalid_request, "the image (" + type + ") cannot be decoded: send PNG, JPEG, GIF or BMP");
    Picture picture{.bytes = std::move(*bytes)};
    int channels = 0;
    if (stbi_info_from_memory(data_of(picture.bytes), static_cast<int>(picture.bytes.size()), &picture.width, &picture.height, &channels) ==
            0 ||
        picture.width < 1 || picture.height < 1) {
      return wrong(ErrorCode::invalid_request, "the image (" + type + ") cannot be decoded: its " + std::string(format) +
                                                   " header is damaged, or speaks of far more than " + megapixels(most_pixels));
    }
    const std::int64_t pixels = std::int64_t{picture.width} * picture.height;
    const std::string size = std::to_string(picture.width) + " x " + std::to_string(picture.height);
    if (pixels > most_pixels) {
      return wrong(ErrorCode::invalid_request, "the image has " + size + " pixels, " + megapixels(pixels) + "; the most is " +
                                                   megapixels(most_pixels) + ". Models see images scaled down anyway: send it smaller");
    }
    const auto [shorter, longer] = std::minmax(picture.width, picture.height);
    if (longer / shorter >= longest_shape) {
      return wrong(ErrorCode::invalid_request,
                   "the image has " + size + " pixels; one side may be at most " + std::to_string(longest_shape) + " times the other");
    }
    together += pixels;
    if (together > most_pixels_together) {
      return wrong(ErrorCode::invalid_request,
                   "the images have more than " + megapixels(most_pixels_together) + " together: send them smaller, or fewer of them");
    }
    out.push_back(std::move(picture));
  }
  return out;
}

Result<SeenPrompt> Vision::read(const RenderedChat& chat, int most_tokens) { return tokenize(chat, most_tokens, true); }

Result<int> Vision::count(const RenderedChat& chat) {
  auto prompt = tokenize(chat, 0, false);
  if (!prompt) return std::move(prompt).error();
  return static_cast<int>(prompt->tokens.size());
}

Result<SeenPrompt> Vision::tokenize(const RenderedChat& chat, int most_tokens, bool encode) {
  auto pictures = decode(chat);
  if (!pictures) return std::move(pictures).error();
  auto loaded = projector();
  if (!loaded) return std::move(loaded).error();
  // Tells the watcher when the use ends.
  struct Use {
    Vision& vision;
    std::shared_ptr<mtmd_context> context;
    ~Use() {
      {
        const MutexLock lock(vision.mutex_);
        context.reset();
        vision.last_used_ = std::chrono::steady_clock::now();
      }
      vision.changed_.notify_all();
    }
  } const use{*this, std::move(*loaded)};
  mtmd_context* const context = use.context.get();

  LogCapture log;
  std::vector<mtmd::bitmap_ptr> bitmaps;
  std::vector<std::string> contents;  // SHA-256 of the files
  for (std::size_t i = 0; i < pictures->size(); ++i) {
    std::string& bytes = (*pictures)[i].bytes;
    mtmd::bitmap_ptr bitmap(
        mtmd_helper_bitmap_init_from_buf(context, data_of(bytes), bytes.size(), !encode, mtmd_helper_init_opt_default()).bitmap);
    if (!bitmap) {
      const char* reason = stbi_failure_reason();
      const std::string& type = chat.images[i].image->media_type;
      return Error{ErrorCode::invalid_request,
                   "the image (" + (type.empty() ? "image" : catalog::printable(type)) +
                       ") cannot be decoded: " + (reason ? reason : "it is damaged"),
                   chat.images[i].param};
    }
    contents.emplace_back(mtmd_bitmap_get_id(bitmap.get()));
    mtmd_bitmap_set_id(bitmap.get(), std::to_string(i).c_str());
    bitmaps.push_back(std::move(bitmap));
    bytes = {};
  }

  // Text, image, text, …
  std::vector<mtmd_input_text> texts;
  texts.reserve(chat.images.size() + 1);
  std::vector<mtmd_input_part> parts;
  std::string_view rest = chat.prompt;
  const auto add_text = [&](std::string_view text) {
    if (text.empty()) return;
    texts.push_back({.text = text.data(), .text_len = text.size(), .add_special = false, .parse_special = true});
    parts.push_back({.text = &texts.back(), .bitmap = nullptr});
  };
  for (std::size_t i = 0; i < chat.images.size(); ++i) {
    const std::size_t at = rest.find(chat.images[i].marker);
    add_text(rest.substr(0, at));
    parts.push_back({.text = nullptr, .bitmap = bitmaps[i].get()});
    rest.remove_prefix(at + chat.images[i].marker.size());
  }
  add_text(rest);
  std::vector<const mtmd_input_part*> list;
  for (const mtmd_input_part& part : parts) list.push_back(&part);
  const mtmd::input_chunks_ptr chunks(mtmd_input_chunks_init());
  int failed = 0;
  std::string reason;
  try {
    failed = mtmd_tokenize_from_parts(context, chunks.get(), list.data(), list.size(), true);
  } catch (const std::exception& e) {
    failed = 2;
    reason = e.what();
  }
  if (failed != 0)
    return Error{ErrorCode::invalid_request, "the images could not be prepared for this model: " + log.errors(reason),
                 chat.images.front().param};
  bitmaps.clear();

  SeenPrompt out;
  const std::size_t pieces = mtmd_input_chunks_size(chunks.get());
  std::size_t total = 0;
  for (std::size_t i = 0; i < pieces; ++i) total += mtmd_input_chunk_get_n_tokens(mtmd_input_chunks_get(chunks.get(), i));
  if (!encode || total > static_cast<std::size_t>(most_tokens)) {
    out.tokens.assign(total, 0);  // only how many there are is of interest
    return out;
  }
  std::string image;  // which one
  int piece = 0;      // of it
  for (std::size_t i = 0; i < pieces; ++i) {
    const mtmd_input_chunk* chunk = mtmd_input_chunks_get(chunks.get(), i);
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
      std::size_t count = 0;
      const llama_token* tokens = mtmd_input_chunk_get_tokens_text(chunk, &count);
      out.tokens.insert(out.tokens.end(), tokens, tokens + count);
      continue;
    }
    const std::string id = mtmd_input_chunk_get_id(chunk);
    if (id != std::exchange(image, id)) piece = 0;
    const std::string key = contents.at(static_cast<std::size_t>(std::stoi(id))) + "/" + std::to_string(piece++) + "/" +
                            std::to_string(mtmd_input_chunk_get_n_tokens(chunk));
    auto rows = rows_of(context, chunk, key);
    if (!rows) return std::move(rows).error();
    for (int row = 0; row < (*rows)->count; ++row) out.tokens.push_back((*rows)->first - row);
    out.images.push_back(std::move(*rows));
  }
  return out;
}

// The piece's rows: kept ones, or encoded now.
Result<ImagePtr> Vision::rows_of(mtmd_context* context, const void* opaque, const std::string& key) {
  const auto* const chunk = static_cast<const mtmd_input_chunk*>(opaque);
  const MutexLock alone(encoding_);
  Token first = 0;
  {
    const MutexLock lock(mutex_);
    if (const auto found = known_.find(key); found != known_.end()) {
      first = found->second->first;
      if (ImagePtr rows = found->second->used.lock()) {
        keep(found->second, rows);
        return rows;
      }
    }
  }
  auto rows = std::make_shared<ImageRows>();
  rows->count = static_cast<int>(mtmd_input_chunk_get_n_tokens(chunk));
  rows->positions = mtmd_input_chunk_get_n_pos(chunk);
  rows->whole = mtmd_decode_use_non_causal(context, chunk);
  if (mtmd_decode_use_mrope(context)) {
    auto places = places_of(mtmd_input_chunk_get_tokens_image(chunk), rows->count);
    if (!places) {
      return Error{ErrorCode::unsupported, "this model's projector (" + options_.path + ") places images in a way that is not supported",
                   "model"};
    }
    rows->places = std::move(*places);
  }
  LogCapture log;
  if (mtmd_encode_chunk(context, chunk) != 0)
    return internal_error("the image could not be encoded: " + log.errors("llama.cpp gives no reason"));
  const float* values = mtmd_get_output_embd(context);
  rows->values.assign(values, values + static_cast<std::ptrdiff_t>(rows->count) * llama_model_n_embd_inp(model_));

  const MutexLock lock(mutex_);
  ++encoded_;
  auto found = known_.find(key);
  if (found == known_.end()) {
    first = reserve(rows->count);
    found =
        known_.emplace(key, order_.insert(order_.end(), {.key = key, .first = first, .count = rows->count, .rows = {}, .used = {}})).first;
  }
  rows->first = found->second->first;
  keep(found->second, rows);
  return ImagePtr(std::move(rows));
}

// Marks the entry as the last used, and lets go of what is too much.
void Vision::keep(Order::iterator entry, ImagePtr rows) {
  const auto size_of = [](const ImagePtr& r) { return static_cast<std::int64_t>(r->values.size() * sizeof(float)); };
  order_.splice(order_.end(), order_, entry);
  if (!entry->rows) kept_bytes_ += size_of(rows);
  entry->used = rows;
  entry->rows = std::move(rows);
  for (Known& old : order_) {
    if (kept_bytes_ <= options_.cache_bytes) break;
    if (!old.rows) continue;
    kept_bytes_ -= size_of(old.rows);
    old.rows.reset();
  }
  // Whoever still uses them needs their placeholders to stay theirs.
  for (auto old = order_.begin(); known_.size() > most_known && old != order_.end();) {
    if (!old->used.expired()) {
      ++old;
      continue;
    }
    reserved_.erase(old->first - old->count + 1);
    known_.erase(old->key);
    old = order_.erase(old);
  }
}

// A range of placeholders that no known piece has. Numbers come again only after two thousand million others: long after the last prefix that was
// computed with the old ones has left the cache.
Token Vision::reserve(int count) {
  for (;;) {
    if (next_ < std::numeric_limits<Token>::min() + count + 2) next_ = first_placeholder;
    const Token last = next_ - count + 1;
    const auto other = reserved_.lower_bound(last - 1);
    if (other == reserved_.end() || other->first > next_ + 1) {
      const Token first = next_;
      reserved_.emplace(last, count);
      next_ = last - 2;  // one between them: see inside_image()
      return first;
    }
    next_ = other->first - 2;
  }
}

void Vision::report(SchedulerStats& stats) const {
  const MutexLock lock(mutex_);
  stats.projector_bytes = loaded_ ? bytes_ : 0;
  stats.projector_loads = loads_;
  stats.images_encoded = encoded_;
  stats.image_bytes = kept_bytes_;
}

}  // namespace hearth::engine
