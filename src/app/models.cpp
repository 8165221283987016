#include <openssl/evp.h>
#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <set>

#include "app/commands.h"
#include "app/machine.h"
#include "base/json.h"
#include "catalog/default_model.h"
#include "catalog/model.h"

namespace hearth::app {
namespace {

using catalog::ModelSummary;
using catalog::printable;

struct ModelFlags {
  std::vector<std::string> folders;
  std::string path;
  std::string sha256;
  std::int64_t context = 0;
  bool json = false;
};

Result<ModelSummary> read(const std::string& path) {
  return path == catalog::embedded_path ? catalog::parse_model(catalog::default_model(), path) : catalog::read_model(path);
}

std::string show_count(std::uint64_t n) {
  if (n >= 1'000'000'000) return fmt::format("{:.2f} B", static_cast<double>(n) / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.2f} M", static_cast<double>(n) / 1e6);
  return std::to_string(n);
}

json::object memory_json(const ModelSummary& model, std::int64_t context, std::string_view kv_type, std::uint64_t available) {
  const auto memory = catalog::estimate_memory(model, context, kv_type, model.can_guess());
  return {{"context", context},
          {"kv_type", kv_type},
          {"weights", memory.weights},
          {"kv", memory.kv},
          {"compute", memory.compute},
          {"total", memory.total()},
          {"context_that_fits", catalog::context_that_fits(model, available, kv_type, model.can_guess())}};
}

json::object to_json(const ModelSummary& model, std::int64_t context) {
  json::object kv;
  json::array memory;
  const auto available = read_memory().available;
  for (const auto type : catalog::kv_types()) {
    kv[type] = catalog::kv_bytes_per_token(model, type, model.can_guess());
    memory.push_back(memory_json(model, context, type, available));
  }
  return {{"path", printable(model.files.front(), 4096)},
          {"files", model.files.size()},
          {"bytes", model.file_bytes},
          {"gguf_version", model.gguf_version},
          {"architecture", printable(model.architecture)},
          {"name", printable(model.name)},
          {"licence", printable(model.licence)},
          {"parameters", model.parameters},
          {"quantisation", model.quantisation},
          {"dominant_tensor_type", model.dominant_type},
          {"context", model.context},
          {"layers", model.layers},
          {"embedding_length", model.embedding_length},
          {"heads", model.heads},
          {"kv_heads", json::value_from(model.kv_heads)},
          {"key_length", model.key_length},
          {"value_length", model.value_length},
          {"vocabulary", model.vocabulary},
          {"sliding_window", model.sliding_window},
          {"recurrent", model.recurrent},
          {"mtp_layers", model.mtp_layers},
          {"mtp_obstacle", model.mtp_obstacle},
          {"chat_template", model.chat_template},
          {"tool_format", model.tool_format},
          {"pooling", model.pooling},
          {"kv_bytes_per_token", kv},
          {"memory", memory}};
}

void print_json(const json::value& value) { std::puts(json::serialize(value).c_str()); }

// "2 of 64", or the range when layers differ.
std::string show_kv_heads(const ModelSummary& model) {
  const std::set<std::int64_t> distinct(model.kv_heads.begin(), model.kv_heads.end());
  if (distinct.empty()) return "none";
  if (distinct.size() == 1) return std::to_string(*distinct.begin());
  return fmt::format("{} to {}, by layer", *distinct.begin(), *distinct.rbegin());
}

int inspect(const ModelFlags& flags) {
  const auto model = read(flags.path);
  if (!model) return fail(model.error());
  const std::int64_t context = flags.context > 0 ? flags.context : catalog::default_context(*model);
  if (flags.json) {
    print_json(to_json(*model, context));
    return exit_ok;
  }
  const auto row = [](std::string_view name, const std::string& value) { fmt::print("{:<16}{}\n", name, value); };
  const auto or_dash = [](const std::string& text) { return text.empty() ? std::string("-") : printable(text); };
  row("file", model->files.size() == 1 ? printable(flags.path, 4096)
                                       : fmt::format("{} and {} more", printable(flags.path, 4096), model->files.size() - 1));
  row("size", fmt::format("{} (GGUF version {})", show_bytes(model->file_bytes), model->gguf_version));
  row("name", or_dash(model->name));
  row("licence", or_dash(model->licence));
  row("architecture", printable(model->architecture) + (model->recurrent ? ", with recurrent layers" : ""));
  row("parameters", show_count(model->parameters));
  row("quantisation", fmt::format("{} (mostly {})", model->quantisation, model->dominant_type));
  row("context", model->context > 0 ? fmt::format("{} tokens", model->context) : "not stated");
  row("layers", fmt::format("{}, width {}", model->layers, model->embedding_length));
  row("heads",
      fmt::format("{}; KV heads {}; key {}, value {}", model->heads, show_kv_heads(*model), model->key_length, model->value_length));
  row("vocabulary", std::to_string(model->vocabulary));
  if (model->sliding_window > 0)
    row("sliding window", fmt::format("{} tokens in some layers: the figures below are upper bounds", model->sliding_window));
  if (model->mtp_layers > 0)
    row("MTP blocks", fmt::format("{} of the layers: {}", model->mtp_layers,
                                  model->can_guess() ? "speculation guesses with them" : "not used, " + model->mtp_obstacle));
  row("use", !model->pooling.empty() ? model->pooling == "rank" ? "reranking" : fmt::format("embeddings ({} pooling)", model->pooling)
             : model->chat_template
                 ? fmt::format("chat{}", model->tool_format.empty() ? ", no tool calls in its template"
                                                                    : ", tool calls in the " + model->tool_format + " format")
                 : "text completion (the file has no chat template)");
  fmt::print("\nexpected memory with a context of {} tokens (--context N for another)\n", context);
  fmt::print("  {:<8}{:>14}{:>12}{:>12}{:>16}{:>12}{:>14}\n", "KV type", "KV per token", "weights", "KV", "compute (est.)", "total",
             "context fits");
  const auto available = read_memory().available;
  for (const auto type : catalog::kv_types()) {
    const auto memory = catalog::estimate_memory(*model, context, type, model->can_guess());
    fmt::print("  {:<8}{:>14}{:>12}{:>12}{:>16}{:>12}{:>14}\n", type,
               show_bytes(catalog::kv_bytes_per_token(*model, type, model->can_guess())), show_bytes(memory.weights), show_bytes(memory.kv),
               show_bytes(memory.compute), show_bytes(memory.total()),
               catalog::context_that_fits(*model, available, type, model->can_guess()));
  }
  fmt::print("context fits: tokens in the {} that are free here, at most what the model was trained for\n", show_bytes(available));
  return exit_ok;
}

Result<std::string> sha256_of(const std::string& path) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> digest(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
  if (path == catalog::embedded_path) {
    EVP_DigestUpdate(digest.get(), catalog::default_model().data(), catalog::default_model().size());
  } else {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> buffer(1 << 20);
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), file.gcount() > 0) {
      EVP_DigestUpdate(digest.get(), buffer.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (file.bad() || !file.eof()) return Error{ErrorCode::io, path + " cannot be read to its end", {}};
  }
  std::array<unsigned char, 32> bytes{};
  EVP_DigestFinal_ex(digest.get(), bytes.data(), nullptr);
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

int verify(const ModelFlags& flags) {
  const auto model = read(flags.path);
  const auto answer = [&](bool ok, const std::string& message, const std::string& sha256) {
    if (flags.json) {
      json::object out{{"path", printable(flags.path, 4096)}, {"ok", ok}, {"message", message}};
      if (!sha256.empty()) out["sha256"] = sha256;
      print_json(out);
    } else if (ok) {
      fmt::print("{}\n", message);
    } else {
      std::fprintf(stderr, "hearth: %s\n", message.c_str());
    }
    return ok ? exit_ok : exit_failed;
  };
  if (!model) return answer(false, model.error().message, {});
  std::string message = fmt::format("{} is whole: {}, {}, {} parameters, {} in {} file{}", printable(flags.path, 4096),
                                    printable(model->architecture), model->quantisation, show_count(model->parameters),
                                    show_bytes(model->file_bytes), model->files.size(), model->files.size() == 1 ? "" : "s");
  if (flags.sha256.empty()) return answer(true, message, {});
  const auto sum = sha256_of(flags.path);
  if (!sum) return answer(false, sum.error().message, {});
  std::string wanted = flags.sha256;
  for (char& c : wanted) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (*sum != wanted)
    return answer(
        false, fmt::format("{} has sha256 {}, expected {}: it is not the file you think it is", printable(flags.path, 4096), *sum, wanted),
        *sum);
  return answer(true, message + "; its sha256 matches", *sum);
}

// Where models are looked for when no folder is given.
std::vector<std::string> default_folders() {
  std::vector<std::string> out;
  const char* home = process_environment("HOME");
  if (home != nullptr) {
    out.push_back(std::string(home) + "/.local/share/hearth/models");
    out.push_back(std::string(home) + "/models");
  }
  out.emplace_back("/usr/share/hearth");
  out.emplace_back("/var/lib/hearth/models");
  return out;
}

// The files that the configuration names, and those of its folder.
std::vector<std::string> configured_paths() {
  const auto config = load_config({.file = {}, .environment = process_environment, .flags = {}});
  std::vector<std::string> out;
  if (!config) return out;
  const auto add = [&](const std::string& path) {
    if (!path.empty() && path != catalog::embedded_path) out.push_back(path);
  };
  add(config->text("model.path"));
  for (const auto& model : config->models) add(model.text("path"));
  for (const auto& path : catalog::list_models(config->text("fleet.folder"))) add(path.string());
  return out;
}

int list(const ModelFlags& flags) {
  for (const auto& folder : flags.folders) {
    std::error_code ec;
    if (!std::filesystem::is_directory(folder, ec)) return fail({ErrorCode::io, folder + " is not a folder", {}});
  }
  std::vector<std::string> paths;
  if (flags.folders.empty()) {
    paths.emplace_back(catalog::embedded_path);
    for (auto& path : configured_paths()) paths.push_back(std::move(path));
  }
  for (const auto& folder : flags.folders.empty() ? default_folders() : flags.folders) {
    for (const auto& path : catalog::list_models(folder)) paths.push_back(path.string());
  }
  std::set<std::string> seen;
  std::erase_if(paths,
                [&](const std::string& path) { return !seen.insert(std::filesystem::path(path).lexically_normal().string()).second; });
  json::array out;
  if (!flags.json) fmt::print("{:<12}{:<10}{:>10}{:>12}{:>10}  {}\n", "architecture", " quant", "parameters", "size", "context", "path");
  for (const auto& path : paths) {
    const auto model = read(path);
    if (flags.json) {
      out.push_back(model.ok() ? json::value(to_json(*model, catalog::default_context(*model)))
                               : json::value{{"path", printable(path, 4096)}, {"error", model.error().message}});
    } else if (model.ok()) {
      fmt::print("{:<12} {:<10}{:>10}{:>12}{:>10}  {}\n", printable(model->architecture, 11), model->quantisation,
                 show_count(model->parameters), show_bytes(model->file_bytes), model->context, printable(path, 4096));
    } else {
      fmt::print("{:<12} {}\n", "(unusable)", model.error().message);
    }
  }
  if (flags.json) print_json(out);
  if (!flags.json && flags.folders.empty())
    fmt::print("\nLooked in the configuration and in {}. `hearth models list FOLDER` looks elsewhere.\n",
               fmt::join(default_folders(), ", "));
  return exit_ok;
}

}  // namespace

void add_models(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("models", "List, inspect and verify model files");
  command->require_subcommand(1);
  command->footer(
      "Examples:\n"
      "  hearth models list ~/models\n"
      "  hearth models inspect qwen3-8b.gguf --context 32768\n"
      "  hearth models verify qwen3-8b.gguf");
  auto flags = std::make_shared<ModelFlags>();

  auto* list_command =
      command->add_subcommand("list", "List the GGUF files in folders; without any, those of the configuration and the built-in model");
  list_command->add_option("folders", flags->folders, "Folders to look in, with their subfolders")->type_name("FOLDER");
  list_command->add_flag("--json", flags->json, "Print JSON");
  list_command->footer("Example:\n  hearth models list ~/models --json");
  list_command->callback([flags, &exit_code] { exit_code = list(*flags); });

  auto* inspect_command = command->add_subcommand("inspect", "Show what a model is and how much memory it will take");
  inspect_command->add_option("path", flags->path, "GGUF file, or embedded: for the built-in model")->required()->type_name("PATH");
  inspect_command->add_option("--context", flags->context, "Context to expect memory for, in tokens")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 28))
      ->type_name("N");
  inspect_command->add_flag("--json", flags->json, "Print JSON");
  inspect_command->footer("Examples:\n  hearth models inspect embedded:\n  hearth models inspect qwen3-8b.gguf --context 32768 --json");
  inspect_command->callback([flags, &exit_code] { exit_code = inspect(*flags); });

  auto* verify_command = command->add_subcommand("verify", "Check that a model file is whole and well-formed; exit code 1 when it is not");
  verify_command->add_option("path", flags->path, "GGUF file, or embedded: for the built-in model")->required()->type_name("PATH");
  verify_command->add_option("--sha256", flags->sha256, "Compare the file's checksum with this one (reads the whole file)")
      ->type_name("HEX");
  verify_command->add_flag("--json", flags->json, "Print JSON");
  verify_command->footer("Examples:\n  hearth models verify qwen3-8b.gguf\n  hearth models verify qwen3-8b.gguf --sha256 cf7015e7e56b78…");
  verify_command->callback([flags, &exit_code] { exit_code = verify(*flags); });
}

}  // namespace hearth::app
