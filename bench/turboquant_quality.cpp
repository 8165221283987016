// What compressed keys and values cost in quality, profile by profile, beside llama.cpp's own quantised caches.
//
// On a model: the same text goes through it with an f16 cache and with each other one, in the same passes, and the two next-token distributions are compared at every
// position: Kullback–Leibler divergence, agreement on the most likely token, perplexity. The text is a file, or what the model itself writes at temperature 1: text
// that it is at home in by construction. Perplexity alone misleads (a model tuned to follow instructions may get a better one with a worse cache), hence the others.
//
// Needles in a model: a run of rare tokens is hidden at a depth and begun again at the end; counted is how often the model goes on as the needle did. A model that has
// not learned to look back does not find it with any cache, and then the row says nothing about the cache: compare with f16.
//
// Needles in synthetic keys: no model. Keys have the statistics published of real ones: a few channels with a large mean and spread, the rest near normal (KIVI, arXiv
// 2402.02750; KVQuant, 2401.18079). One key of `depth` is asked for by a query that stands out by a fixed margin; counted is how often it still has the largest logit,
// and how far the attention's output is from the exact one.
#include <ggml.h>
#include <llama.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>

#include "engine/backend.h"
#include "process.h"
#include "report.h"
#include "timing.h"
#include "turboquant/backend.h"
#include "turboquant/codec.h"
#include "turboquant/profile.h"

namespace {

using namespace hearth;
using bench::Measurement;
using bench::must;
using Tokens = std::vector<llama_token>;

// A kind of cache: one of ggml's types, or a profile.
struct Cache {
  std::string name;
  ggml_type type = GGML_TYPE_F16;
  std::string profile;  // empty: the type
};

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

class Session {
 public:
  Session(const std::string& path, const Cache& cache, int context, int threads) : type_(cache.type) {
    llama_model_params params = llama_model_default_params();
    std::array<ggml_backend_dev_t, 2> devices{};
    params.devices = devices.data();
    if (!cache.profile.empty()) {
      turboquant::BackendOptions options;
      options.profile = cache.profile;
      backend_ = must(turboquant::Backend::create(options));
      devices[0] = backend_->device();
    }
    engine::LogCapture log;
    model_.reset(llama_model_load_from_file(path.c_str(), params));
    if (!model_) throw std::runtime_error(path + " with " + cache.name + ": " + log.errors("cannot be loaded"));
    llama_context_params shape = llama_context_default_params();
    shape.n_ctx = static_cast<std::uint32_t>(context);
    shape.n_batch = shape.n_ubatch = static_cast<std::uint32_t>(std::min(context, batch));
    shape.n_threads = shape.n_threads_batch = threads;
    shape.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    shape.type_k = shape.type_v = cache.type;
    context_.reset(llama_init_from_model(model_.get(), shape));
    if (!context_) throw std::runtime_error(path + " with " + cache.name + ": " + log.errors("no context"));
  }

  int vocabulary() const { return llama_vocab_n_tokens(llama_model_get_vocab(model_.get())); }
  const llama_vocab* vocab() const { return llama_model_get_vocab(model_.get()); }
  // As held in memory, scales and all.
  double bits_per_number() const {
    if (!backend_) return 8.0 * static_cast<double>(ggml_row_size(type_, 32)) / 32;
    const auto usage = backend_->usage();
    return 16.0 * static_cast<double>(usage.bytes) / static_cast<double>(usage.f16_bytes);
  }
  void clear() { llama_memory_clear(llama_get_memory(context_.get()), false); }

  // Logits after each of `tokens`, which continue what was fed before: rows × vocabulary, valid until the next call. At most `batch` tokens.
  const float* feed(std::span<const llama_token> tokens) {
    llama_batch rows = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
    const llama_pos first = llama_memory_seq_pos_max(llama_get_memory(context_.get()), 0) + 1;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      rows.token[i] = tokens[i];
      rows.pos[i] = first + static_cast<llama_pos>(i);
      rows.n_seq_id[i] = 1;
      rows.seq_id[i][0] = 0;
      rows.logits[i] = 1;
    }
    rows.n_tokens = static_cast<int>(tokens.size());
    const int failed = llama_decode(context_.get(), rows);
    llama_batch_free(rows);
    if (failed != 0) throw std::runtime_error("decoding failed");
    return llama_get_logits(context_.get());
  }

  static constexpr int batch = 256;

 private:
  const ggml_type type_;
  std::unique_ptr<turboquant::Backend> backend_;  // outlives model and context
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<llama_context, Free> context_;
};

std::vector<double> log_softmax(const float* logits, int count) {
  double top = logits[0], sum = 0;
  for (int i = 1; i < count; ++i) top = std::max(top, static_cast<double>(logits[i]));
  for (int i = 0; i < count; ++i) sum += std::exp(logits[i] - top);
  const double whole = top + std::log(sum);
  std::vector<double> out(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) out[static_cast<std::size_t>(i)] = logits[i] - whole;
  return out;
}
int most_likely(const float* logits, int count) { return static_cast<int>(std::max_element(logits, logits + count) - logits); }

Tokens tokenized(const Session& session, const std::string& text) {
  Tokens out(text.size() + 8);
  const int n =
      llama_tokenize(session.vocab(), text.data(), static_cast<int>(text.size()), out.data(), static_cast<int>(out.size()), true, false);
  out.resize(static_cast<std::size_t>(std::max(n, 0)));
  return out;
}

// What the model writes by itself, at temperature 1. End marks are left out, or it would stop.
Tokens self_written(Session& session, int count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int vocabulary = session.vocabulary();
  const llama_token begin = llama_vocab_bos(session.vocab());
  Tokens out{begin != LLAMA_TOKEN_NULL ? begin : static_cast<llama_token>(random() % static_cast<std::uint64_t>(vocabulary))};
  session.clear();
  while (static_cast<int>(out.size()) < count) {
    auto log = log_softmax(session.feed({&out.back(), 1}), vocabulary);
    double whole = 0;
    for (int i = 0; i < vocabulary; ++i) {
      auto& p = log[static_cast<std::size_t>(i)];
      p = llama_vocab_is_eog(session.vocab(), i) ? 0 : std::exp(p);
      whole += p;
    }
    double left = static_cast<double>(random() >> 11) * 0x1p-53 * whole;
    int next = 0;
    while (next + 1 < vocabulary && (left -= log[static_cast<std::size_t>(next)]) > 0) ++next;
    out.push_back(next);
  }
  return out;
}

struct Quality {
  double divergence = 0, worst_percent = 0, agreement = 0, perplexity = 0, reference_perplexity = 0;
};

Quality compare(Session& exact, Session& other, const std::vector<Tokens>& windows) {
  const int vocabulary = exact.vocabulary();
  std::vector<double> divergences;
  double same = 0, surprise = 0, exact_surprise = 0, judged = 0;
  for (const auto& window : windows) {
    exact.clear(), other.clear();
    for (std::size_t at = 0; at < window.size(); at += Session::batch) {
      const std::size_t count = std::min<std::size_t>(Session::batch, window.size() - at);
      const float* a = exact.feed({window.data() + at, count});
      const float* b = other.feed({window.data() + at, count});
      for (std::size_t i = 0; i < count; ++i, a += vocabulary, b += vocabulary) {
        const auto p = log_softmax(a, vocabulary), q = log_softmax(b, vocabulary);
        double sum = 0;
        for (std::size_t k = 0; k < p.size(); ++k) sum += std::exp(p[k]) * (p[k] - q[k]);
        divergences.push_back(std::max(sum, 0.0));
        same += most_likely(a, vocabulary) == most_likely(b, vocabulary) ? 1 : 0;
        if (at + i + 1 == window.size()) continue;
        const auto next = static_cast<std::size_t>(window[at + i + 1]);
        exact_surprise -= p[next];
        surprise -= q[next];
        ++judged;
      }
    }
  }
  Quality out;
  for (const double d : divergences) out.divergence += d / static_cast<double>(divergences.size());
  std::sort(divergences.begin(), divergences.end());
  out.worst_percent = divergences[divergences.size() * 99 / 100];
  out.agreement = 100 * same / static_cast<double>(divergences.size());
  out.perplexity = std::exp(surprise / judged);
  out.reference_perplexity = std::exp(exact_surprise / judged);
  return out;
}

// Percent of needles found: three of six tokens are given again, and each of the other three must be the most likely one.
double recall(Session& session, const Tokens& hay, int depth, int needles) {
  int found = 0;
  for (int n = 0; n < needles; ++n) {
    std::mt19937_64 random(static_cast<std::uint64_t>(1000 * depth + n));
    Tokens text(hay.begin(), hay.begin() + depth), needle;
    const auto known = [&](llama_token token) {
      return std::find(text.begin(), text.end(), token) != text.end() || std::find(needle.begin(), needle.end(), token) != needle.end();
    };
    for (int tries = 0; needle.size() < 6; ++tries) {  // tokens that the text has not, as long as there are some
      const auto token = static_cast<llama_token>(random() % static_cast<std::uint64_t>(session.vocabulary()));
      if (tries > 1000 || !known(token)) needle.push_back(token);
    }
    // At an eighth, two, … of the depth.
    const auto place = text.begin() + depth * (1 + n % 7) / 8;
    text.insert(place, needle.begin(), needle.end());
    text.insert(text.end(), needle.begin(), needle.begin() + 3);
    session.clear();
    const float* last = nullptr;
    std::size_t rows = 0;
    for (std::size_t at = 0; at < text.size(); at += rows) {
      rows = std::min<std::size_t>(Session::batch, text.size() - at);
      last = session.feed({text.data() + at, rows});
    }
    last += (rows - 1) * static_cast<std::size_t>(session.vocabulary());
    bool right = true;
    for (int i = 3; i < 6 && right; ++i) {
      right = most_likely(last, session.vocabulary()) == needle[static_cast<std::size_t>(i)];
      if (right && i < 5) last = session.feed({&needle[static_cast<std::size_t>(i)], 1});
    }
    found += right ? 1 : 0;
  }
  return 100.0 * found / needles;
}

// ---- synthetic keys ----

constexpr int head = 128;

// Encodes and decodes vectors the way a cache does.
std::vector<float> through(const Cache& cache, const std::vector<float>& x, bool keys) {
  std::vector<float> out(x.size());
  const auto vectors = x.size() / head;
  if (cache.profile.empty()) {
    std::vector<std::uint8_t> row(ggml_row_size(cache.type, head));
    for (std::size_t i = 0; i < vectors; ++i) {
      ggml_quantize_chunk(cache.type, x.data() + i * head, row.data(), 0, 1, head, nullptr);
      if (cache.type == GGML_TYPE_F16) {
        ggml_fp16_to_fp32_row(reinterpret_cast<const ggml_fp16_t*>(row.data()), out.data() + i * head, head);
      } else {
        ggml_get_type_traits(cache.type)->to_float(row.data(), out.data() + i * head, head);
      }
    }
    return out;
  }
  const auto profile = must(turboquant::find_profile(cache.profile));
  const auto codec = must(turboquant::Codec::create({head, keys ? profile.widths.keys : profile.widths.values}));
  std::vector<std::uint8_t> record(codec.format().bytes());
  for (std::size_t i = 0; i < vectors; ++i) {
    codec.encode(x.data() + i * head, record.data());
    codec.decode(record.data(), out.data() + i * head);
  }
  return out;
}

struct Synthetic {
  double found = 0;  // percent
  double error = 0;  // ‖out − exact‖² ÷ ‖exact‖², mean
};

// One pass over a depth for all caches: each gets the same keys, values and queries.
std::vector<Synthetic> synthetic(const std::vector<Cache>& caches, int depth, int needles, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> mean(head), spread(head, 1);
  for (int c = 0; c < head; ++c) mean[static_cast<std::size_t>(c)] = 0.3F * normal(random);
  for (int outlier = 0; outlier < head / 16; ++outlier) {
    const auto c = static_cast<std::size_t>(random() % head);
    mean[c] = (random() % 2 == 0 ? 8.0F : -8.0F) + normal(random);
    spread[c] = 2;
  }
  std::vector<float> keys(static_cast<std::size_t>(depth) * head), values(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = mean[i % head] + spread[i % head] * normal(random);
  for (auto& v : values) v = normal(random);
  // A needle's query points along its key's own part; its logit stands 7 standard deviations above those of the others, as f16 finds at any depth here.
  constexpr float margin = 7;
  struct Query {
    std::size_t token;
    std::vector<float> q;
  };
  std::vector<Query> queries;
  for (int n = 0; n < needles; ++n) {
    Query query{static_cast<std::size_t>(random()) % static_cast<std::size_t>(depth), std::vector<float>(head)};
    double own = 0, others = 0;
    for (std::size_t c = 0; c < head; ++c) {
      const float part = keys[query.token * head + c] - mean[c];
      query.q[c] = part / (spread[c] * spread[c]) + 0.3F * normal(random) / spread[c];
      own += static_cast<double>(query.q[c]) * part;
      others += static_cast<double>(query.q[c] * spread[c]) * (query.q[c] * spread[c]);
    }
    // Logits of the others get a deviation of own/margin: the needle stands `margin` of them above.
    const double deviation = std::max(std::sqrt(others), own / margin);
    for (auto& q : query.q) q = static_cast<float>(q * 3 / deviation);
    queries.push_back(std::move(query));
  }
  const auto attend = [&](const std::vector<float>& k, const std::vector<float>& v, const Query& query, bool& found) {
    std::vector<double> logit(static_cast<std::size_t>(depth));
    for (std::size_t t = 0; t < logit.size(); ++t) {
      double sum = 0;
      for (std::size_t c = 0; c < head; ++c) sum += static_cast<double>(query.q[c]) * k[t * head + c];
      logit[t] = sum;
    }
    const auto top = static_cast<std::size_t>(std::max_element(logit.begin(), logit.end()) - logit.begin());
    found = top == query.token;
    std::vector<double> out(head);
    double whole = 0;
    for (std::size_t t = 0; t < logit.size(); ++t) {
      const double p = std::exp(logit[t] - logit[top]);
      whole += p;
      for (std::size_t c = 0; c < head; ++c) out[c] += p * v[t * head + c];
    }
    for (auto& x : out) x /= whole;
    return out;
  };
  std::vector<std::vector<double>> exact;
  for (const auto& query : queries) {
    bool found = false;
    exact.push_back(attend(keys, values, query, found));
  }
  std::vector<Synthetic> results;
  for (const auto& cache : caches) {
    const auto k = through(cache, keys, true), v = through(cache, values, false);
    Synthetic result;
    for (std::size_t n = 0; n < queries.size(); ++n) {
      bool found = false;
      const auto out = attend(k, v, queries[n], found);
      double error = 0, size = 0;
      for (std::size_t c = 0; c < head; ++c) {
        error += (out[c] - exact[n][c]) * (out[c] - exact[n][c]);
        size += exact[n][c] * exact[n][c];
      }
      result.found += found ? 100.0 / needles : 0;
      result.error += error / size / needles;
    }
    results.push_back(result);
  }
  return results;
}

Measurement row(std::string name, std::string unit, int decimals) {
  Measurement m;
  m.name = std::move(name);
  m.unit = std::move(unit);
  m.decimals = decimals;
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What compressed keys and values cost in quality, beside f16, q8_0 and q4_0 caches."};
  app.footer(
      "Examples:\n"
      "  bench_turboquant_quality --model assets/hearth-nano-0-f16.gguf\n"
      "  bench_turboquant_quality --model qwen3-8b-q4_k_m.gguf --text book.txt --window 4096 --tokens 16384 --profiles k8v4 k3v2,sinks=4\n"
      "  bench_turboquant_quality --synthetic");
  std::string text_file, json_file, document, section = "quality";
  std::vector<std::string> models, names;
  int window = 1024, most = 8192, threads = 2, needles = 14;
  bool with_synthetic = false;
  for (const auto& profile : turboquant::profiles()) names.emplace_back(profile.name);
  names.emplace_back("k3v2,sinks=4");
  app.add_option("--model", models, "[NAME=]GGUF file; several are measured one after the other");
  app.add_option("--text", text_file, "Text to read; without, the model's own writing")->check(CLI::ExistingFile);
  app.add_option("--window", window, "Tokens of one text, each beginning with an empty cache")
      ->check(CLI::Range(64, 1 << 20))
      ->capture_default_str();
  app.add_option("--tokens", most, "Tokens in all, at most")->check(CLI::Range(64, 1 << 24))->capture_default_str();
  app.add_option("--profiles", names, "Profiles, with their options")->capture_default_str();
  app.add_option("--needles", needles, "Needles a depth; 0 = none")->check(CLI::Range(0, 1000))->capture_default_str();
  app.add_flag("--synthetic", with_synthetic, "Also needles in synthetic keys, at depths from 1,024 to 131,072");
  app.add_option("--threads", threads, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--json", json_file, "Write the values here");
  app.add_option("--write", document, "Replace the results in this document");
  app.add_option("--section", section, "Which of its results")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (models.empty() && !with_synthetic) {
    std::fprintf(stderr, "bench_turboquant_quality: nothing to measure; name a --model, or ask for --synthetic\n");
    return 2;
  }
  try {
    engine::start_backend();
    std::vector<Cache> caches{{"f16", GGML_TYPE_F16, ""}, {"q8_0", GGML_TYPE_Q8_0, ""}, {"q4_0", GGML_TYPE_Q4_0, ""}};
    for (const auto& name : names) {
      must(turboquant::find_profile(name));
      caches.push_back({name, GGML_TYPE_F16, name});
    }
    bench::Report report;
    report.title = "Quality of compressed keys and values";
    report.command = "bench/run quality";
    report.machine = bench::machine_line();
    for (const auto& given : models) {
      const auto sign = given.find('=');
      const std::string path = sign == std::string::npos ? given : given.substr(sign + 1);
      const std::string name = sign == std::string::npos ? std::filesystem::path(path).stem().string() : given.substr(0, sign);
      Session exact(path, caches[0], window + 16, threads);
      std::vector<Tokens> windows;
      if (text_file.empty()) {
        for (int i = 0; i < std::max(1, most / window); ++i)
          windows.push_back(self_written(exact, window, static_cast<std::uint64_t>(i) + 1));
      } else {
        std::ifstream in(text_file, std::ios::binary);
        const Tokens all = tokenized(exact, std::string(std::istreambuf_iterator<char>(in), {}));
        for (int at = 0; at + window <= std::min<int>(most, static_cast<int>(all.size())); at += window)
          windows.emplace_back(all.begin() + at, all.begin() + at + window);
        if (windows.empty())
          throw std::runtime_error(text_file + " has only " + std::to_string(all.size()) + " tokens; --window must be at most that");
      }
      Measurement bits = row(name + ": bits a number", "", 2), divergence = row(name + ": divergence from f16, mean", "millinats", 2),
                  worst = row(name + ": the same, 99th percentile", "millinats", 1),
                  agreement = row(name + ": same most likely token", "%", 1), perplexity = row(name + ": perplexity", "", 3);
      std::vector<std::pair<int, Measurement>> found;
      for (int depth = 256; needles > 0 && depth <= window; depth *= 2)
        found.emplace_back(std::min(depth, window - 8), row(name + ": needles found at " + std::to_string(depth), "%", 0));
      for (const auto& cache : caches) {
        std::fprintf(stderr, "%s with %s ...\n", name.c_str(), cache.name.c_str());
        std::unique_ptr<Session> session;
        try {
          session = std::make_unique<Session>(path, cache, window + 16, threads);
        } catch (const std::exception& refused) {
          report.notes.push_back(name + " with " + cache.name + ": " + refused.what());
          continue;
        }
        const Quality quality = compare(exact, *session, windows);
        bits.add(cache.name, session->bits_per_number());
        divergence.add(cache.name, 1000 * quality.divergence);
        worst.add(cache.name, 1000 * quality.worst_percent);
        agreement.add(cache.name, quality.agreement);
        perplexity.add(cache.name, quality.perplexity);
        for (auto& [depth, m] : found) m.add(cache.name, recall(*session, windows[0], depth, needles));
      }
      report.notes.push_back(name + ": " + std::to_string(windows.size()) + " texts of " + std::to_string(window) + " tokens, " +
                             (text_file.empty() ? "written by the model itself at temperature 1"
                                                : "from " + std::filesystem::path(text_file).filename().string()) +
                             ".");
      for (auto* m : {&bits, &divergence, &worst, &agreement, &perplexity}) report.measurements.push_back(std::move(*m));
      for (auto& [depth, m] : found) report.measurements.push_back(std::move(m));
    }
    if (with_synthetic) {
      std::erase_if(caches, [](const Cache& cache) { return cache.profile.find(',') != std::string::npos; });  // no layers, no beginning
      for (const int depth : {1024, 8192, 32768, 131072}) {
        std::fprintf(stderr, "synthetic keys, %d ...\n", depth);
        Measurement found = row("synthetic keys: needles found at " + std::to_string(depth), "%", 1),
                    error = row("the same: error of attention's output", "%", 2);
        const int count = depth > 100000 ? 100 : 200;
        const auto results = synthetic(caches, depth, count, static_cast<std::uint64_t>(depth));
        for (std::size_t i = 0; i < caches.size(); ++i) {
          found.add(caches[i].name, results[i].found);
          error.add(caches[i].name, 100 * results[i].error);
        }
        report.measurements.push_back(std::move(found));
        report.measurements.push_back(std::move(error));
      }
      report.notes.push_back(
          "Synthetic keys: head size 128, one channel in sixteen with a mean of ±8 and twice the spread of the others; error is ‖out − "
          "exact‖² ÷ ‖exact‖².");
    }
    bench::publish(report, json_file, document, section);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_turboquant_quality: %s\n", error.what());
    return 1;
  }
}
