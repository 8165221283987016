#include "app/models_config.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>
#include <filesystem>
#include <map>
#include <optional>

#include "app/url.h"
#include "catalog/default_model.h"
#include "catalog/model.h"
#include "wire/dialect.h"

namespace hearth::app {
namespace {

namespace fs = std::filesystem;

Error config_error(std::string message) { return Error{ErrorCode::config_invalid, std::move(message), {}}; }

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

enum class FileKind { model, adapter, projector };

FileKind kind_of(const catalog::Gguf& file) {
  const std::string type = file.text("general.type");
  if (type == "adapter") return FileKind::adapter;
  if (type == "mmproj" || file.text("general.architecture") == "clip") return FileKind::projector;
  return FileKind::model;
}

Result<catalog::ModelSummary> read(const std::string& path) {
  return path == catalog::embedded_path ? catalog::parse_model(catalog::default_model(), path) : catalog::read_model(path);
}

std::int64_t changed_at(const std::string& path) {
  std::error_code ec;
  const auto written = fs::last_write_time(path, ec);
  if (ec) return 0;
  return std::chrono::duration_cast<std::chrono::seconds>(fs::file_time_type::clock::to_sys(written).time_since_epoch()).count();
}

std::int64_t size_of(const std::string& path) {
  std::error_code ec;
  const auto size = fs::file_size(path, ec);
  return ec ? 0 : static_cast<std::int64_t>(size);
}

// KV cells the engine makes: for small contexts more than one request can use, so that several fit.
std::int64_t cells(const catalog::ModelSummary& model, std::int64_t configured) {
  return configured > 0 ? configured : std::max<std::int64_t>(catalog::default_context(model), 8192);
}

std::optional<chat::ModelRole> role_of(std::string_view word) {
  using enum chat::ModelRole;
  static const std::map<std::string_view, chat::ModelRole> roles{
      {"chat", chat}, {"embedding", embedding}, {"reranker", reranker}, {"classifier", classifier}, {"vision", vision}, {"reward", reward}};
  const auto found = roles.find(word);
  return found == roles.end() ? std::nullopt : std::optional(found->second);
}

class Planner {
 public:
  Planner(const Config& config, const Surroundings& surroundings) : config_(config), surroundings_(surroundings) {}

  Result<FleetPlan> plan() {
    const std::string& folder = config_.text("fleet.folder");
    const bool engine = !config_.text("engine.url").empty();
    if (engine) {
      if (auto done = add_engine(); !done) return std::move(done).error();
    } else if (config_.origin("model.path") != "default" || (config_.models.empty() && folder.empty())) {
      ModelConfig model =
          config_.model(config_.text("model.id").empty() ? default_model_name(config_.text("model.path")) : config_.text("model.id"),
                        config_.origin("model.path"), true);
      if (auto done = add(model, "the model cannot be served: "); !done) return std::move(done).error();
      plan_.options.models.back().preload = true;
    }
    for (const auto& model : config_.models) {
      if (auto done = add(model, fmt::format("{}: ", model.place)); !done) return std::move(done).error();
    }
    if (!folder.empty()) {
      if (auto done = add_folder(folder); !done) return std::move(done).error();
    }
    if (plan_.options.models.empty())
      return config_error(fmt::format("there is no model to serve: the folder {} (fleet.folder) holds none", folder));
    if (auto done = check_names(); !done) return std::move(done).error();
    finish();
    return std::move(plan_);
  }

 private:
  Result<void> add_engine() {
    const std::string& address = config_.text("engine.url");
    auto url = parse_base_url(address);
    if (!url) return Error{ErrorCode::config_invalid, "engine.url: " + url.error().message, "engine.url"};
    auto models = surroundings_.engine_models;
    if (models.empty()) {
      const std::string& id = config_.text("model.id");
      models.push_back({.id = id.empty() ? "default" : id, .chat = true});
      plan_.warnings.push_back(
          fmt::format("{} does not say what it serves (yet): clients may call its model \"{}\"; model.id gives it another name", address,
                      models[0].id));
    }
    for (auto& info : models) {
      fleet::ModelSpec spec;
      spec.id = info.id;
      spec.kind = fleet::ModelKind::openai;
      spec.info = std::move(info);
      spec.info.upstream = "openai";
      spec.roles.clear();
      if (spec.info.rerank) spec.roles.push_back(chat::ModelRole::reranker);
      if (spec.info.embeddings && !spec.info.chat) spec.roles.push_back(chat::ModelRole::embedding);
      if (spec.roles.empty()) spec.roles.push_back(chat::ModelRole::chat);
      spec.remotes.push_back({url->endpoint, url->base_path});
      spec.upstream = upstream(config_.model("", "", true));
      spec.upstream.name = address;
      spec.upstream.own_engine = false;
      spec.upstream.retries = 2;
      spec.upstream.api_key = config_.text("engine.api_key");
      if (plan_.options.models.empty()) spec.aliases = config_.list("model.aliases");
      keep(std::move(spec), "engine.url");
    }
    return {};
  }

  Result<void> add(const ModelConfig& model, const std::string& place) {
    const std::string& kind = model.text("kind");
    const auto at = [&](std::string_view key, std::string message) {
      return config_error(fmt::format("{}models.{}.{} {}", place, model.name, key, message));
    };
    fleet::ModelSpec spec;
    spec.id = model.name;
    spec.aliases = model.list("aliases");
    spec.roles.clear();
    for (const auto& word : model.list("roles")) spec.roles.push_back(*role_of(word));
    spec.kind = kind == "worker"    ? fleet::ModelKind::worker
                : kind == "command" ? fleet::ModelKind::command
                : kind == "openai"  ? fleet::ModelKind::openai
                                    : fleet::ModelKind::anthropic;
    spec.upstream = upstream(model);
    spec.info.upstream = kind;
    spec.pinned = model.is("pinned");
    spec.preload = model.is("preload") || spec.pinned;
    if (model.integer("idle_unload") >= 0) spec.idle_unload = model.duration("idle_unload");
    if (model.integer("gpu_layers") >= 0) spec.gpu_layers = static_cast<int>(model.integer("gpu_layers"));

    if (kind == "worker" && model.text("path").empty())
      return config_error(fmt::format("{}the model \"{}\" lacks its path: path = \"FILE.gguf\"", place, model.name));
    if (!model.text("path").empty()) {
      const auto summary = read(model.text("path"));
      if (!summary) return Error{summary.error().code, place + summary.error().message, "model.path"};
      if (kind == "worker" && model.text("speculation") == "mtp" && !summary->can_guess()) {
        return config_error(fmt::format("{}speculation \"mtp\" needs a model with blocks for it, and {} {}. Set it to auto or lookup",
                                        place, model.text("path"),
                                        summary->mtp_layers == 0 ? "has none" : "cannot be used so: " + summary->mtp_obstacle));
      }
      describe(spec, *summary, model);
    } else {
      spec.info.context = static_cast<int>(model.integer("context"));
      settle_abilities(spec);
    }
    if (kind == "worker") {
      if (auto done = add_parts(spec, model, place); !done) return done;
    }
    if (model.integer("memory") >= 0) spec.need = {.weights = static_cast<std::uint64_t>(model.integer("memory"))};

    if (kind == "command") {
      spec.command = model.list("command");
      if (spec.command.empty())
        return at("command", "is missing: the program and its arguments, e.g. [\"llama-server\", \"--port\", \"{port}\"]");
      if (std::none_of(spec.command.begin(), spec.command.end(), [](const auto& word) { return word.find("{port}") != std::string::npos; }))
        return at("command", "must say {port} where the port goes: hearth chooses a free one");
      spec.health_path = model.text("health_path");
      if (!spec.health_path.starts_with("/"))
        return at("health_path", fmt::format("must begin with \"/\", unlike \"{}\"", spec.health_path));
      if (spec.need.total() == 0) {
        plan_.warnings.push_back(fmt::format(
            "{}how much memory the model \"{}\" takes is not known, so it counts as none: set memory or path", place, model.name));
      }
    }
    if (kind == "openai" || kind == "anthropic") {
      if (auto done = add_remotes(spec, model, at); !done) return done;
    }
    if (kind == "worker") workers_.push_back({plan_.options.models.size(), model});
    keep(std::move(spec), model.place);
    return {};
  }

  template <class At>
  Result<void> add_remotes(fleet::ModelSpec& spec, const ModelConfig& model, const At& at) {
    if (model.list("url").empty()) return at("url", "is missing: the base address, e.g. \"https://api.example.com/v1\"");
    const bool keyed = !model.text("api_key").empty();
    for (const auto& address : model.list("url")) {
      auto url = parse_base_url(address);
      if (!url) return at("url", "is wrong: " + url.error().message);
      const auto* tcp = std::get_if<net::TcpEndpoint>(&url->endpoint);
      const bool local = tcp == nullptr || tcp->host == "localhost" || tcp->host == "::1" || tcp->host.starts_with("127.");
      if (keyed && !local && !tcp->tls) {
        plan_.warnings.push_back(fmt::format("{}: the key of \"{}\" goes to {} unencrypted; use https:// across networks you do not trust",
                                             model.place, model.name, address));
      }
      spec.remotes.push_back({std::move(url->endpoint), std::move(url->base_path)});
    }
    if (spec.kind == fleet::ModelKind::anthropic && !keyed)
      return at("api_key", "is missing: { env = \"ANTHROPIC_API_KEY\" } takes it from the environment");
    return {};
  }

  // What the model's file says.
  void describe(fleet::ModelSpec& spec, const catalog::ModelSummary& summary, const ModelConfig& model) {
    const std::int64_t context = cells(summary, model.integer("context"));
    const bool own_guesses = summary.can_guess() && (model.text("speculation") == "mtp" ||
                                                     (model.text("speculation") == "auto" && model.text("draft_model").empty()));
    spec.need = catalog::estimate_memory(summary, context, model.text("kv_type"), own_guesses);
    spec.layers = static_cast<int>(summary.layers) + 1;
    if (model.text("path") != catalog::embedded_path) spec.files = summary.files;
    auto& info = spec.info;
    info.created = changed_at(model.text("path") == catalog::embedded_path ? surroundings_.program : summary.files.front());
    info.architecture = summary.architecture;
    info.quantisation = summary.quantisation;
    info.parameters = static_cast<std::int64_t>(summary.parameters);
    info.bytes = static_cast<std::int64_t>(summary.file_bytes);
    info.context = static_cast<int>(summary.context > 0 ? std::min(context, summary.context) : context);
    info.chat = summary.pooling.empty();
    info.rerank = summary.pooling == "rank";
    info.embeddings = !info.rerank && !summary.recurrent;
    info.tools = info.chat && !summary.tool_format.empty();
    if (spec.roles.empty()) {
      spec.roles.push_back(info.rerank ? chat::ModelRole::reranker : info.chat ? chat::ModelRole::chat : chat::ModelRole::embedding);
    }
  }

  // Without a file its roles are all that is known.
  static void settle_abilities(fleet::ModelSpec& spec) {
    if (spec.roles.empty()) spec.roles.push_back(chat::ModelRole::chat);
    for (const auto role : spec.roles) {
      if (role == chat::ModelRole::embedding) spec.info.embeddings = true;
      if (role == chat::ModelRole::reranker) spec.info.rerank = true;
      if (role == chat::ModelRole::chat || role == chat::ModelRole::vision) spec.info.chat = true;
      if (role == chat::ModelRole::vision) spec.info.vision = true;
    }
    spec.info.tools = spec.info.chat;
  }

  // Adapters, draft model and projector: checked, and counted.
  Result<void> add_parts(fleet::ModelSpec& spec, const ModelConfig& model, const std::string& place) {
    const auto wrong = [&](const Error& error) { return Error{error.code, place + error.message, {}}; };
    const auto of_kind = [&](const std::string& path, FileKind wanted, std::string_view what) -> Result<void> {
      const auto file = catalog::read_gguf(path);
      if (!file) return wrong(file.error());
      if (kind_of(*file) != wanted) return config_error(fmt::format("{}{} is not {}", place, path, what));
      return {};
    };
    std::int64_t adapters = 0;
    for (const auto& [name, path] : model.keys("adapters")) {
      if (auto done = of_kind(path, FileKind::adapter, "a LoRA adapter"); !done) return done;
      adapters += size_of(path);
      spec.info.adapters.push_back(name);
    }
    spec.need.weights += static_cast<std::uint64_t>(std::min(adapters, model.integer("adapter_bytes")));
    if (const auto& folder = model.text("adapter_folder"); !folder.empty()) {
      std::error_code ec;
      if (!fs::is_directory(folder, ec)) return config_error(fmt::format("{}adapter_folder: {} is not a folder", place, folder));
    }
    if (const auto& path = model.text("mmproj"); !path.empty()) {
      if (auto done = of_kind(path, FileKind::projector, "a vision projector (mmproj)"); !done) return done;
      spec.need.weights += static_cast<std::uint64_t>(size_of(path));
      spec.files.push_back(path);
      spec.info.vision = true;
      if (model.list("roles").empty()) spec.roles.push_back(chat::ModelRole::vision);
    }
    if (const auto& path = model.text("draft_model"); !path.empty()) {
      const auto draft = read(path);
      if (!draft) return wrong(draft.error());
      const auto need = catalog::estimate_memory(*draft, cells(*draft, model.integer("context")), model.text("kv_type"));
      if (path != catalog::embedded_path) spec.files.insert(spec.files.end(), draft->files.begin(), draft->files.end());
      spec.need.weights += need.weights;
      spec.need.kv += need.kv;
      spec.need.compute += need.compute;
    } else if (model.text("speculation") == "draft") {
      return config_error(fmt::format("{}speculation \"draft\" needs a draft_model", place));
    }
    return {};
  }

  Result<void> add_folder(const std::string& folder) {
    std::error_code ec;
    if (!fs::is_directory(folder, ec))
      return config_error(fmt::format("{}: {} (fleet.folder) is not a folder", config_.origin("fleet.folder"), folder));
    struct File {
      fs::path path;
      std::string stem;
    };
    std::vector<File> models, adapters, projectors;
    for (const auto& path : catalog::list_models(folder)) {
      const auto file = catalog::read_gguf(path.string());
      if (!file) {
        plan_.warnings.push_back(fmt::format("passed over: {}", file.error().message));
        continue;
      }
      const auto kind = kind_of(*file);
      auto& where = kind == FileKind::adapter ? adapters : kind == FileKind::projector ? projectors : models;
      where.push_back({path, default_model_name(path.string())});
    }
    std::vector<ModelConfig> found;
    std::vector<const File*> files;  // of each of `found`
    for (const auto& file : models) {
      if (configured(file.path)) continue;
      ModelConfig model = config_.model(file.stem, file.path.string(), false);
      model.set("path", file.path.string(), model.place);
      found.push_back(std::move(model));
      files.push_back(&file);
    }
    for (const auto& file : adapters) attach_adapter(found, file.stem, file.path);
    for (const auto& file : projectors) {
      const auto index = model_of_projector(file.stem, file.path, [&](std::size_t i) { return files[i]->path; }, found);
      if (!index) {
        plan_.warnings.push_back(fmt::format(
            "passed over: {} is a vision projector, and no model's name tells whose; name it mmproj-MODEL.gguf", file.path.string()));
      } else if (found[*index].text("mmproj").empty()) {
        found[*index].set("mmproj", file.path.string(), file.path.string());
      }
    }
    for (const auto& model : found) {
      if (const auto summary = read(model.text("path")); !summary) {
        plan_.warnings.push_back(fmt::format("passed over: {}", summary.error().message));
        continue;
      }
      if (auto done = add(model, ""); !done) return done;
    }
    return {};
  }

  // "MODEL-NAME.gguf" belongs to "MODEL.gguf"; of several models whose names begin it, to the longest.
  void attach_adapter(std::vector<ModelConfig>& models, const std::string& stem, const fs::path& path) {
    ModelConfig* best = nullptr;
    for (auto& model : models) {
      const auto& name = model.name;
      const bool begins = stem.size() > name.size() + 1 && stem.starts_with(name) && (stem[name.size()] == '-' || stem[name.size()] == '.');
      if (begins && (best == nullptr || name.size() > best->name.size())) best = &model;
    }
    if (best == nullptr) {
      plan_.warnings.push_back(fmt::format(
          "passed over: {} is an adapter, and no model's name begins its own; name it MODEL-NAME.gguf, or list it under adapters",
          path.string()));
      return;
    }
    auto adapters = best->keys("adapters");
    adapters[stem.substr(best->name.size() + 1)] = path.string();
    best->set("adapters", std::move(adapters), path.string());
  }

  // By name without "mmproj" and number format; or as the only model beside it in a folder of their own.
  template <class PathOf>
  std::optional<std::size_t> model_of_projector(const std::string& stem, const fs::path& path, const PathOf& path_of,
                                                const std::vector<ModelConfig>& models) const {
    std::string name = lower(stem);
    if (const auto at = name.find("mmproj"); at != std::string::npos) name.erase(at, 6);
    for (const std::string_view format : {"-f16", "-bf16", "-f32", "-q8_0"}) {
      if (name.ends_with(format)) name.resize(name.size() - format.size());
    }
    const auto separator = [](char c) { return c == '-' || c == '_' || c == '.'; };
    while (!name.empty() && separator(name.back())) name.pop_back();
    while (!name.empty() && separator(name.front())) name.erase(0, 1);
    std::optional<std::size_t> beside;
    int neighbours = 0;
    for (std::size_t i = 0; i < models.size(); ++i) {
      if (!name.empty() && lower(models[i].name).starts_with(name)) return i;
      if (path_of(i).parent_path() == path.parent_path()) {
        beside = i;
        ++neighbours;
      }
    }
    std::error_code ec;
    const bool own_folder = !fs::equivalent(path.parent_path(), config_.text("fleet.folder"), ec);
    return neighbours == 1 && own_folder ? beside : std::nullopt;
  }

  bool configured(const fs::path& path) const {
    const auto same = [&](const std::string& other) {
      std::error_code ec;
      return !other.empty() && fs::equivalent(path, other, ec);
    };
    if (std::any_of(config_.models.begin(), config_.models.end(), [&](const auto& model) { return same(model.text("path")); })) return true;
    return config_.text("engine.url").empty() && same(config_.text("model.path"));
  }

  Result<void> check_names() const {
    std::map<std::string, std::size_t> owner;
    const auto& models = plan_.options.models;
    for (std::size_t i = 0; i < models.size(); ++i) {
      auto names = models[i].aliases;
      names.insert(names.begin(), models[i].id);
      for (const auto& name : names) {
        if (name.empty()) return config_error(fmt::format("{}: an alias of the model \"{}\" is empty", plan_.places[i], models[i].id));
        const auto [it, fresh] = owner.emplace(name, i);
        if (fresh || it->second == i) continue;
        const auto told = [&](std::size_t n) {
          return models[n].id == name ? plan_.places[n] : fmt::format("{} (an alias of \"{}\")", plan_.places[n], models[n].id);
        };
        return config_error(
            fmt::format("two models are called \"{}\": {} and {}. Give one of them another name", name, told(it->second), told(i)));
      }
    }
    return {};
  }

  void finish() {
    auto& options = plan_.options;
    options.memory = config_.integer("fleet.memory");
    options.turn = config_.duration("fleet.turn");
    options.start_wait = config_.duration("timeouts.start");
    options.queue_limit = static_cast<int>(config_.integer("fleet.queue_limit"));
    options.supervisor.hang_limit = config_.duration("timeouts.hang");
    options.supervisor.stop_grace = config_.duration("timeouts.drain");
    // The only model there is is loaded at once and kept, as its users expect.
    if (options.models.size() == 1) {
      auto& only = options.models.front();
      only.preload = true;
      only.pinned = only.info.pinned = only.pinned || !only.idle_unload;
    }
    for (const auto& [index, model] : workers_) options.models[index].command = worker_command(model);

    const auto budget = options.memory >= 0 ? static_cast<std::uint64_t>(options.memory) : surroundings_.available;
    if (budget == 0) return;
    for (const auto& spec : options.models) {
      if (spec.need.total() <= budget) continue;
      plan_.warnings.push_back(fmt::format("{} needs about {}, and {} are available. `hearth doctor` shows what to change.", spec.id,
                                           show_bytes(spec.need.total()), show_bytes(budget)));
    }
  }

  // The worker is configured by its flags alone; the fleet adds socket and GPU layers.
  std::vector<std::string> worker_command(const ModelConfig& model) const {
    std::vector<std::string> command{surroundings_.program, "worker"};
    for (const auto& setting : settings()) {
      if (!setting.worker || setting.key == "model.gpu_layers") continue;
      const std::string_view leaf = setting.key.substr(setting.key.find('.') + 1);
      const auto own = std::find_if(model_settings().begin(), model_settings().end(), [&](const Setting& s) { return s.key == leaf; });
      std::string value = own == model_settings().end() ? config_.as_flag(setting) : model.as_flag(*own);
      if (setting.key == "model.id") value = model.name;
      // Several workers share what one alone would take for its prefix cache.
      if (setting.key == "scheduler.prefix_cache" && model.integer("prefix_cache") < 0 && workers_.size() > 1) {
        constexpr std::uint64_t most = std::uint64_t{4} << 30;
        value = std::to_string(std::min(most, surroundings_.available / 8 / workers_.size()));
      }
      if (value.empty()) continue;
      // One argument, so that a value that begins with a dash stays a value.
      command.push_back(fmt::format("--{}={}", setting.flag, value));
    }
    return command;
  }

  static fleet::UpstreamOptions upstream(const ModelConfig& model) {
    const std::string& kind = model.text("kind");
    fleet::UpstreamOptions out;
    out.name = kind;
    out.api_key = model.text("api_key");
    out.remote_model = model.text("remote_model");
    // Zero: the fleet knows what is right for the device.
    out.first_event = std::chrono::milliseconds(std::max<std::int64_t>(model.integer("first_token"), 0));
    out.next_event = model.duration("between_tokens");
    out.concurrency.running = static_cast<int>(model.integer("concurrency"));
    if (model.integer("max_tokens") > 0) out.max_tokens = static_cast<int>(model.integer("max_tokens"));
    out.dialect = wire::dialect_from_name(model.text("tool_dialect"));
    out.own_engine = kind == "worker";
    if (kind == "openai" || kind == "anthropic") out.retries = 2;
    return out;
  }

  void keep(fleet::ModelSpec spec, std::string place) {
    spec.info.id = spec.id;
    spec.info.aliases = spec.aliases;
    spec.info.roles = spec.roles;
    spec.info.pinned = spec.pinned;
    plan_.options.models.push_back(std::move(spec));
    plan_.places.push_back(std::move(place));
  }

  struct WorkerModel {
    std::size_t index;  // in plan_.options.models
    ModelConfig model;
  };
  const Config& config_;
  const Surroundings& surroundings_;
  FleetPlan plan_;
  std::vector<WorkerModel> workers_;
};

}  // namespace

Result<FleetPlan> plan_fleet(const Config& config, const Surroundings& surroundings) { return Planner(config, surroundings).plan(); }

std::string default_model_name(std::string_view path) {
  if (path == catalog::embedded_path) return std::string(catalog::default_model_id);
  std::string name = fs::path(path).filename().string();
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  constexpr std::string_view first_part = "-00001-of-";
  if (const auto at = name.rfind(first_part); at != std::string::npos && name.size() == at + first_part.size() + 5) name.resize(at);
  return name;
}

}  // namespace hearth::app
