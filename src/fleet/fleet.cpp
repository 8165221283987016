#include "fleet/fleet.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <deque>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/log.h"
#include "fleet/attempts.h"
#include "fleet/background.h"
#include "fleet/loop_event.h"
#include "fleet/model_host.h"
#include "fleet/model_names.h"
#include "fleet/private_folder.h"
#include "fleet/process_memory.h"
#include "fleet/read_ahead.h"
#include "fleet/remote_model.h"
#include "fleet/residency.h"

namespace hearth::fleet {
namespace {

namespace asio = net::asio;
using namespace std::chrono_literals;
using net::Task;
using std::chrono::milliseconds;

constexpr std::size_t history_length = 256;
constexpr auto load_limit = 24h;         // the supervisor has its own, for each start
constexpr auto wait_look = 1'000ms;      // whether what is waited for has begun to load
constexpr auto measure_every = 5'000ms;  // what is loaded may grow

// Kept free for everything else on the machine when no budget is given.
std::int64_t host_reserve(std::int64_t total) {
  return std::clamp<std::int64_t>(total / 20, std::int64_t{256} << 20, std::int64_t{4} << 30);
}
// Drivers and displays take some.
constexpr std::int64_t gpu_reserve = std::int64_t{256} << 20;

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}
std::int64_t unix_milliseconds() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}
milliseconds to_ms(Duration duration) { return std::chrono::duration_cast<milliseconds>(duration); }

std::string_view kind_name(ModelKind kind) {
  switch (kind) {
    case ModelKind::worker: return "worker";
    case ModelKind::command: return "command";
    case ModelKind::openai: return "openai";
    case ModelKind::anthropic: return "anthropic";
  }
  return "";
}

std::string device_name(int device) { return device == Residency::cpu ? "cpu" : "gpu" + std::to_string(device); }

Error stopping_error() { return Error{ErrorCode::unavailable, "hearth is stopping", {}, 1s}; }

// What the residency reckons with before the first load. Host memory beside a model on a GPU is not predicted, but measured.
Residency::Model residency_model(const ModelSpec& spec, bool gpus) {
  const auto bytes = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
  const auto total = bytes(spec.need.total());
  Residency::Model out{.id = spec.id,
                       .on_gpu = Footprint{.host = 0, .gpu = total},
                       .on_cpu = Footprint{.host = total, .gpu = 0},
                       .certain = bytes(spec.need.weights),
                       .scratch = bytes(spec.need.compute),
                       .pinned = spec.pinned,
                       .idle_unload = spec.idle_unload};
  if (!spec.gpu_layers) return out;
  const int layers = *spec.gpu_layers;
  if (layers == 0) {
    out.on_gpu.reset();
  } else if (gpus) {
    // As the user insists, and nowhere else. The layers are about alike.
    out.on_cpu.reset();
    if (layers > 0 && layers < spec.layers) {
      out.on_gpu->gpu = bytes(spec.need.weights + spec.need.kv) / spec.layers * layers + bytes(spec.need.compute);
      out.on_gpu->host = total - out.on_gpu->gpu + bytes(spec.need.compute);
      out.certain = 0;
    }
  }
  return out;
}

}  // namespace

class Fleet::Impl : public std::enable_shared_from_this<Impl> {
 public:
  struct Model {
    ModelSpec spec;
    int index = 0;  // here and in the residency
    chat::ModelInfo info;
    std::shared_ptr<ModelHost> host;      // local, while it has memory
    std::unique_ptr<RemoteModel> remote;  // remote
    int remote_running = 0;
    std::int64_t last_used = 0;
    chat::ModelState state = chat::ModelState::absent;  // as last told to those who watch
    TimePoint since;                                    // of that state
    std::string leaving;                                // why it drains

    // What its engine calls it.
    const std::string& upstream_name() const { return spec.upstream.remote_model.empty() ? spec.id : spec.upstream.remote_model; }
    bool local() const { return spec.kind == ModelKind::worker || spec.kind == ModelKind::command; }
  };

  // A request that runs on a model. While it lives the model stays.
  class Lease {
   public:
    Lease(std::shared_ptr<Impl> fleet, Model& model, std::optional<milliseconds> keep)
        : fleet_(std::move(fleet)), model_(&model), host_(model.host), keep_(keep) {}
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (fleet_) fleet_->release(*model_, keep_);
    }
    ModelHost& host() const { return *host_; }

   private:
    std::shared_ptr<Impl> fleet_;
    Model* model_;
    std::shared_ptr<ModelHost> host_;
    std::optional<milliseconds> keep_;
  };

  // A request that waits to be admitted to its model.
  struct Waiter {
    explicit Waiter(asio::io_context& io) : changed(io) {}
    LoopEvent changed;
    bool admitted = false;
    std::optional<Error> refused;
  };

  Impl(asio::io_context& loop, FleetOptions given, PrivateFolder sockets, const Clock& time, MemoryState memory)
      : io(loop),
        options(std::move(given)),
        folder(std::move(sockets)),
        clock(time),
        changed(loop),
        background(std::make_unique<Background>()),
        room_for_files(memory.total > 0 ? memory.available : std::numeric_limits<std::int64_t>::max()),
        gpus(static_cast<int>(memory.gpus.size())),
        residency(host_budget(options, memory), gpu_budgets(memory), options.turn, time) {
    models.reserve(options.models.size());
    for (const auto& spec : options.models) add(spec);
    for (const auto role : {chat::ModelRole::chat, chat::ModelRole::embedding, chat::ModelRole::reranker, chat::ModelRole::classifier,
                            chat::ModelRole::vision, chat::ModelRole::reward}) {
      const auto found = std::find_if(models.begin(), models.end(), [role](const Model& model) { return has_role(model.spec, role); });
      if (found != models.end()) found->info.default_for_role = true;
    }
  }

  static std::int64_t host_budget(const FleetOptions& options, const MemoryState& memory) {
    if (options.memory >= 0) return options.memory;
    // Without knowledge nothing is refused.
    if (memory.total == 0) return std::numeric_limits<std::int64_t>::max() / 2;
    return std::max<std::int64_t>(0, memory.available - host_reserve(memory.total));
  }
  static std::vector<std::int64_t> gpu_budgets(const MemoryState& memory) {
    std::vector<std::int64_t> out;
    for (const auto& gpu : memory.gpus) out.push_back(std::max<std::int64_t>(0, gpu.free - gpu_reserve));
    return out;
  }

  void add(const ModelSpec& spec) {
    auto& model = models.emplace_back();
    model.spec = spec;
    model.index = residency.add(residency_model(spec, gpus > 0));
    model.info = spec.info;
    model.info.id = spec.id;
    model.info.aliases = spec.aliases;
    model.info.roles = spec.roles;
    model.info.pinned = spec.pinned;
    model.info.upstream = kind_name(spec.kind);
    if (model.local()) return;
    auto& upstream = model.spec.upstream;
    if (upstream.first_event == 0ms) upstream.first_event = options.first_token_gpu;
    if (upstream.next_event == 0ms) upstream.next_event = UpstreamOptions().next_event;
    model.remote = std::make_unique<RemoteModel>(io, model.spec, clock);
    model.state = chat::ModelState::ready;
  }

  void spawn(Task<void> task) { asio::co_spawn(io, keep_alive(shared_from_this(), std::move(task)), asio::detached); }
  static Task<void> keep_alive(std::shared_ptr<Impl>, Task<void> task) { co_await std::move(task); }

  // ---- decisions become deeds -------------------------------------------------------------------------------------------------------

  void act() {
    // What an action brings about may call for further ones; they follow in the same loop.
    again = true;
    if (acting) return;
    acting = true;
    while (again && !stopping) {
      again = false;
      for (auto& action : residency.step()) std::visit([this](auto& one) { perform(one); }, action);
    }
    acting = false;
    changed.notify();
  }

  void perform(const Residency::Load& load) { spawn(run_load(models[static_cast<std::size_t>(load.model)])); }
  void perform(const Residency::Drain& drain) {
    auto& model = models[static_cast<std::size_t>(drain.model)];
    model.leaving = drain.reason;
    tell(model, chat::ModelState::draining, drain.reason);
  }
  void perform(const Residency::Stop& stop) { spawn(run_stop(models[static_cast<std::size_t>(stop.model)])); }
  void perform(const Residency::Admit& admit) {
    const auto waiter = waiters.find(admit.ticket);
    waiter->second->admitted = true;
    waiter->second->changed.notify();
    waiters.erase(waiter);
  }
  void perform(Residency::Refuse& refuse) {
    const auto waiter = waiters.find(refuse.ticket);
    waiter->second->refused = std::move(refuse.error);
    waiter->second->changed.notify();
    waiters.erase(waiter);
  }

  // Wakes the residency when time alone changes something.
  Task<void> keep_time() {
    while (!stopping) {
      co_await changed.wait_until(residency.next().value_or(TimePoint::max()));
      if (!stopping && residency.next() && clock.now() >= *residency.next()) act();
    }
  }

  Task<void> keep_measuring() {
    while (!stopping) {
      const auto next = TimePoint::clock::now() + measure_every;
      while (!stopping && TimePoint::clock::now() < next) co_await stopped.wait_until(next);
      for (auto& model : models) {
        if (stopping || !model.host || residency.state(model.index) != chat::ModelState::ready) continue;
        co_await measure(model, std::nullopt);
      }
    }
  }

  // `before`: what was free on its GPU before the load. Without it only what may have grown is measured.
  Task<void> measure(Model& model, std::optional<std::int64_t> before) {
    const auto host = model.host;
    const pid_t pid = host->supervisor().pid();
    if (pid == 0) co_return;
    Footprint taken;
    taken.host = co_await background->run([pid] { return process_memory(pid); });
    const int device = residency.device(model.index);
    if (before && device != Residency::cpu) {
      const auto after = co_await ask_memory();
      const auto gpu = static_cast<std::size_t>(device);
      if (gpu < after.gpus.size()) taken.gpu = *before - after.gpus[gpu].free;
    }
    if (model.host != host || host->supervisor().pid() != pid) co_return;  // it has been replaced meanwhile
    residency.measured(model.index, taken, before.has_value());
  }

  Task<MemoryState> ask_memory() {
    if (!options.memory_state) co_return MemoryState{};
    co_return co_await background->run(options.memory_state);
  }

  Task<void> run_load(Model& model) {
    const auto started = clock.now();
    const int device = residency.device(model.index);
    tell(model, chat::ModelState::loading, residency.waiting(model.index) > 0 ? "requested" : "preloaded");
    std::int64_t before = 0;
    if (device != Residency::cpu) {
      const auto memory = co_await ask_memory();
      const auto gpu = static_cast<std::size_t>(device);
      if (gpu < memory.gpus.size()) before = memory.gpus[gpu].free;
    }
    if (stopping) co_return;

    HostOptions host_options{.supervisor = options.supervisor,
                             .socket = socket_path(model.index),
                             .device = device,
                             .gpus = gpus,
                             .first_token = device == Residency::cpu ? options.first_token_cpu : options.first_token_gpu,
                             .start_wait = options.start_wait};
    const auto host = model.host = std::make_shared<ModelHost>(io, model.spec, std::move(host_options), clock);
    auto& supervisor = host->supervisor();
    supervisor.on_change([this, &model] { on_process_change(model); });
    supervisor.start();
    while (true) {
      const auto up = co_await supervisor.wait_ready(load_limit);
      if (stopping) co_return;
      if (up.ok()) break;
      const auto& error = up.error();
      spdlog::warn("model {} could not be loaded: {}", model.spec.id, error.message);
      if (!model.spec.pinned) {
        co_await supervisor.stop();
        if (stopping) co_return;
        model.host.reset();
        residency.failed(model.index, error, false);
        residency.gone(model.index);
        tell(model, chat::ModelState::failed, error.message, clock.now() - started);
        process_changed.notify();
        act();
        co_return;
      }
      // It is tried again, rarely, in case somebody repairs it.
      if (model.state != chat::ModelState::failed) {
        residency.failed(model.index, error, true);
        tell(model, chat::ModelState::failed, error.message, clock.now() - started);
        act();
      }
      using State = Supervisor::State;
      while (!stopping && model.host == host && supervisor.state() != State::ready && supervisor.state() != State::stopping) {
        co_await process_changed.wait();
      }
      if (stopping || model.host != host || supervisor.state() != State::ready) co_return;
    }
    residency.loaded(model.index);
    const auto took = clock.now() - started;
    spdlog::info("model {} is loaded on {} in {} ms", model.spec.id, device_name(device), to_ms(took).count());
    tell(model, chat::ModelState::ready, "loaded", took);
    act();
    // Whoever waited for it need not wait for these.
    co_await learn(model, *host);
    co_await measure(model, before);
    if (!stopping) act();
  }

  // What the engine says of itself goes before what was configured.
  Task<void> learn(Model& model, ModelHost& host) {
    const auto found = co_await host.upstream().models();
    if (!found.ok() || found->empty()) co_return;
    const auto& told = found->front();
    auto& info = model.info;
    if (told.context > 0) info.context = told.context;
    if (!told.adapters.empty()) info.adapters = told.adapters;
    if (model.spec.kind != ModelKind::worker) co_return;
    const auto take = [](auto& known, const auto& said) {
      if (said != std::remove_cvref_t<decltype(said)>{}) known = said;
    };
    take(info.created, told.created);
    take(info.architecture, told.architecture);
    take(info.quantisation, told.quantisation);
    take(info.parameters, told.parameters);
    take(info.bytes, told.bytes);
    info.chat = told.chat;
    info.embeddings = told.embeddings;
    info.rerank = told.rerank;
    info.vision = told.vision;
    info.tools = told.tools;
  }

  Task<void> run_stop(Model& model) {
    const auto host = model.host;
    const auto began = model.since;
    if (host) co_await host->stop();
    if (stopping) co_return;
    model.host.reset();
    residency.gone(model.index);
    tell(model, chat::ModelState::absent, model.leaving, clock.now() - began);
    process_changed.notify();
    act();
  }

  // A loaded model's process ended, or is back.
  void on_process_change(Model& model) {
    process_changed.notify();
    if (!model.host || stopping || residency.state(model.index) != chat::ModelState::ready) return;
    switch (model.host->supervisor().state()) {
      case Supervisor::State::backing_off:
      case Supervisor::State::failed:
        tell(model, model.host->supervisor().state() == Supervisor::State::failed ? chat::ModelState::failed : chat::ModelState::loading,
             model.host->supervisor().last_error().message);
        break;
      case Supervisor::State::ready:
        if (model.state != chat::ModelState::ready) tell(model, chat::ModelState::ready, "started again", clock.now() - model.since);
        break;
      case Supervisor::State::starting:
      case Supervisor::State::stopping: break;
    }
  }

  void tell(Model& model, chat::ModelState state, const std::string& reason, Duration took = {}) {
    model.state = state;
    model.since = clock.now();
    model.info.problem = state == chat::ModelState::failed ? reason : "";
    ModelEvent event{
        .number = ++last_event, .time = unix_milliseconds(), .model = model.spec.id, .state = state, .reason = reason, .took = to_ms(took)};
    past.push_back(event);
    if (past.size() > history_length) past.pop_front();
    // A watcher may leave, or bring another one, while it is told.
    std::vector<std::shared_ptr<std::function<void(const ModelEvent&)>>> told;
    std::erase_if(watchers, [&](const auto& watcher) {
      auto alive = watcher.lock();
      if (alive) told.push_back(std::move(alive));
      return watcher.expired();
    });
    for (const auto& watcher : told) (*watcher)(event);
  }

  std::string socket_path(int index) const {
    const auto name = "model-" + std::to_string(index);
    return folder.socket(name);
  }

  // ---- requests ---------------------------------------------------------------------------------------------------------------------

  void release(Model& model, std::optional<milliseconds> keep) {
    model.last_used = unix_seconds();
    residency.finish(model.index, keep);
    if (!stopping) act();
  }

  // Waits until the model may be used. `waited` is how long that took.
  Task<Result<Lease>> acquire(Model& model, std::optional<milliseconds> keep, wire::Caller caller, bool insist, Duration& waited) {
    const auto self = shared_from_this();
    if (stopping) co_return stopping_error();
    const bool ready = residency.state(model.index) == chat::ModelState::ready;
    if (!ready && residency.waiting() >= options.queue_limit) {
      co_return Error{ErrorCode::overloaded,
                      std::to_string(options.queue_limit) + " requests wait for models to be loaded already; try again shortly",
                      {},
                      2s};
    }
    if (!residency.resident(model.index) && residency.waiting(model.index) == 0) read_ahead.start(model.spec.files, room_for_files);
    const auto arrived = clock.now();
    Waiter waiter(io);
    const auto ticket = residency.arrive(model.index, insist);
    waiters.emplace(ticket, &waiter);
    const Waiting place{*this, ticket};
    const net::Cancellation::Registration leaves(caller.cancellation, [&waiter] { waiter.changed.notify(); });
    act();
    // The load's own time is the model's; what a request waits for others to make room has its limit.
    Duration idle{0};
    auto looked = TimePoint::clock::now();
    while (!waiter.admitted && !waiter.refused) {
      if (stopping) co_return stopping_error();
      if (net::requested(caller.cancellation)) co_return Error{ErrorCode::client_gone, "the client left"};
      const bool loads = residency.state(model.index) == chat::ModelState::loading;
      const auto left = options.start_wait - idle;
      if (!loads && left <= Duration(0)) {
        co_return Error{ErrorCode::unavailable,
                        "model \"" + model.spec.id + "\" could not be loaded within " + std::to_string(options.start_wait.count() / 1000) +
                            " s: other models are busy and there is no room beside them; try again later",
                        {},
                        5s};
      }
      co_await waiter.changed.wait_until(looked + std::min<Duration>(wait_look, loads ? Duration(wait_look) : left));
      const auto now = TimePoint::clock::now();
      if (!loads) idle += now - looked;
      looked = now;
    }
    if (waiter.refused) co_return *std::move(waiter.refused);
    waited = clock.now() - arrived;
    co_return Lease(self, model, keep);
  }

  // Takes a request out of the line however its wait ends. One that was admitted and is no longer there gives its place back.
  struct Waiting {
    Impl& fleet;
    Residency::Ticket ticket;
    ~Waiting() {
      if (fleet.waiters.erase(ticket) > 0) fleet.residency.give_up(ticket);
    }
  };

  Result<Named> resolve(const std::string& name, chat::ModelRole role) const { return find_model(options.models, name, role); }

  Result<Named> resolve_chat(const chat::Request& request) const {
    auto found = resolve(request.model, chat::ModelRole::chat);
    if (!found.ok() || !request.has_images() || sees(*found)) return found;
    if (request.model.empty()) {
      for (std::size_t i = 0; i < models.size(); ++i) {
        if (has_role(models[i].spec, chat::ModelRole::vision)) return Named{i, {}};
      }
    }
    std::string able;
    for (std::size_t i = 0; i < models.size(); ++i) {
      if (models[i].info.vision || has_role(models[i].spec, chat::ModelRole::vision))
        able += (able.empty() ? "" : ", ") + models[i].spec.id;
    }
    return Error{ErrorCode::unsupported,
                 "model \"" + models[found->model].spec.id + "\" takes no images; " +
                     (able.empty() ? std::string("no configured model does") : "these do: " + able),
                 "messages"};
  }
  // What a remote engine can do is its own to say.
  bool sees(const Named& named) const {
    const auto& model = models[named.model];
    return model.info.vision || has_role(model.spec, chat::ModelRole::vision) || model.spec.kind != ModelKind::worker;
  }

  class LocalAttempts;
  class Stream;
  static Task<Result<std::unique_ptr<wire::EventStream>>> generate(std::shared_ptr<Impl> self, chat::Request request, wire::Caller caller);

  static Task<Result<void>> load(std::shared_ptr<Impl> self, std::string name, std::optional<milliseconds> keep, wire::Caller caller);
  static Task<Result<void>> unload(std::shared_ptr<Impl> self, std::string name, wire::Caller caller);
  Task<void> load_pinned(Model& model);

  // A request that is answered by one document. It is kept, in case the engine ends under it.
  template <class T, class Request>
  static Task<Result<T>> whole(std::shared_ptr<Impl> self, Result<Named> found, Request request, wire::Caller caller,
                               Task<Result<T>> (wire::Provider::*local)(Request, wire::Caller),
                               Task<Result<T>> (RemoteModel::*remote)(Request, wire::Caller)) {
    if (!found.ok()) co_return std::move(found).error();
    auto& model = self->models[found->model];
    request.model = model.upstream_name();
    request.tenant = caller.tenant;
    if constexpr (std::is_same_v<Request, chat::Request>) {
      if (!found->adapter.empty()) request.adapter = found->adapter;
    }
    if (!found->adapter.empty()) caller.origin = nullptr;
    if (!model.local()) {
      const RemoteUse use(model);
      co_return co_await ((*model.remote).*remote)(std::move(request), std::move(caller));
    }
    Duration waited{0};
    const auto lease = co_await self->acquire(model, {}, caller, false, waited);
    if (!lease.ok()) co_return lease.error();
    auto& host = lease->host();
    for (bool last = false;; last = true) {
      const auto up = co_await host.ready();
      if (!up.ok()) co_return up.error();
      const int generation = host.supervisor().generation();
      auto copy = request;
      auto result = co_await (host.upstream().*local)(std::move(copy), caller);
      if (result.ok() || last) co_return result;
      const bool more = co_await host.recovered(result.error(), generation);
      if (!more) co_return result;
    }
  }

  // A request that runs on a remote model.
  struct RemoteUse {
    explicit RemoteUse(Model& used) : model(&used) { ++model->remote_running; }
    RemoteUse(RemoteUse&& other) noexcept : model(std::exchange(other.model, nullptr)) {}
    RemoteUse& operator=(RemoteUse&&) = delete;
    ~RemoteUse() {
      if (!model) return;
      --model->remote_running;
      model->last_used = unix_seconds();
    }
    Model* model;
  };

  const std::vector<chat::ModelInfo>& snapshot() {
    infos.clear();
    const auto now = clock.now();
    const auto unix_now = unix_seconds();
    for (const auto& model : models) {
      auto& info = infos.emplace_back(model.info);
      info.last_used = model.last_used;
      info.state = model.state;
      if (!model.local()) {
        info.running = model.remote_running;
        continue;
      }
      const int index = model.index;
      const auto footprint = residency.footprint(index);
      info.memory_bytes = footprint.host;
      info.gpu_bytes = footprint.gpu;
      info.device = residency.resident(index) ? device_name(residency.device(index)) : "";
      info.running = residency.running(index);
      info.waiting = residency.waiting(index);
      if (const auto at = residency.unloads_at(index)) {
        info.unloads_at = unix_now + std::chrono::duration_cast<std::chrono::seconds>(*at - now).count();
      }
    }
    return infos;
  }

  Task<void> report(Model& model, milliseconds up_to, std::vector<EngineReport>& into, int& left, LoopEvent& done) {
    const auto host = model.host;
    auto stats = co_await host->supervisor().check(up_to);
    if (stats.ok()) into.push_back({model.spec.id, host->supervisor().restarts(), *stats});
    if (--left == 0) done.notify();
  }

  Task<void> stop_one(std::shared_ptr<ModelHost> host, int& left, LoopEvent& done) {
    co_await host->supervisor().stop();
    if (--left == 0) done.notify();
  }

  // Everybody who waits for anything here goes home.
  void dismiss() {
    stopping = true;
    for (auto& [ticket, waiter] : waiters) waiter->changed.notify();
    changed.notify();
    stopped.notify();
    process_changed.notify();
  }

  asio::io_context& io;
  const FleetOptions options;
  PrivateFolder folder;
  const Clock& clock;
  LoopEvent changed;  // what the residency waits for
  LoopEvent process_changed{io};
  LoopEvent stopped{io};
  std::unique_ptr<Background> background;
  ReadAhead read_ahead;
  const std::int64_t room_for_files;  // that are read ahead for one model
  const int gpus;
  Residency residency;
  std::vector<Model> models;  // never moves
  std::map<Residency::Ticket, Waiter*> waiters;
  std::deque<ModelEvent> past;
  std::vector<std::weak_ptr<std::function<void(const ModelEvent&)>>> watchers;
  std::uint64_t last_event = 0;
  bool acting = false;
  bool again = false;
  bool stopping = false;
  std::vector<chat::ModelInfo> infos;  // for snapshot()
};

// A request to a local model. What it is sent to may be another process each time.
class Fleet::Impl::LocalAttempts final : public Attempts {
 public:
  LocalAttempts(ModelHost& host, chat::Request request, wire::Caller caller)
      : host_(host), request_(std::move(request)), caller_(std::move(caller)) {}

  Task<Result<std::unique_ptr<wire::EventStream>>> open() override {
    const auto up = co_await host_.ready();
    if (!up.ok()) co_return up.error();
    generation_ = host_.supervisor().generation();
    auto request = last_ ? std::move(request_) : request_;
    co_return co_await host_.upstream().generate(std::move(request), caller_);
  }
  Task<bool> again(Error failure) override {
    if (std::exchange(last_, true)) co_return false;
    co_return co_await host_.recovered(std::move(failure), generation_);
  }
  void settle() override {
    last_ = true;
    request_ = {};
  }

 private:
  ModelHost& host_;
  chat::Request request_;
  wire::Caller caller_;
  int generation_ = 0;
  bool last_ = false;
};

// A running answer: keeps its model loaded, and begins again where that is still possible.
class Fleet::Impl::Stream final : public wire::EventStream {
 public:
  Stream(std::variant<Lease, RemoteUse> use, std::unique_ptr<Attempts> attempts, std::unique_ptr<wire::EventStream> inner,
         chat::Explanation first, chat::Explanation last, int retries)
      : use_(std::move(use)),
        attempts_(std::move(attempts)),
        inner_(std::move(inner)),
        first_(std::move(first)),
        last_(std::move(last)),
        retries_(retries) {
    explain();
  }

  Task<chat::Events> next() override {
    auto events = co_await inner_->next();
    while (!begun_ && !cancelled_ && !events.empty() && std::holds_alternative<chat::Failed>(events.front())) {
      auto failure = std::get<chat::Failed>(events.front()).error;
      const bool more = co_await attempts_->again(std::move(failure));
      if (!more || cancelled_) break;
      ++retries_;
      auto reopened = co_await open(*attempts_, retries_);
      if (cancelled_) break;
      if (!reopened.ok()) {
        events.assign(1, chat::Failed{std::move(reopened).error()});
        break;
      }
      inner_ = *std::move(reopened);
      events = co_await inner_->next();
    }
    if (cancelled_) co_return chat::Events{};
    if (!std::exchange(begun_, true)) attempts_->settle();
    if (inner_->explanation().decisions.size() != inner_decisions_) explain();
    co_return events;
  }
  void cancel() override {
    cancelled_ = true;
    inner_->cancel();
  }
  const chat::Explanation& explanation() const override { return explanation_; }
  wire::Protocol raw_protocol() const override { return inner_->raw_protocol(); }
  std::span<const wire::RawFrame> raw() const override { return inner_->raw(); }

 private:
  void explain() {
    explanation_ = first_;
    const auto& inner = inner_->explanation().decisions;
    inner_decisions_ = inner.size();
    explanation_.decisions.insert(explanation_.decisions.end(), inner.begin(), inner.end());
    explanation_.decisions.insert(explanation_.decisions.end(), last_.decisions.begin(), last_.decisions.end());
    if (retries_ > 0) explanation_.add("retries", std::to_string(retries_));
  }

  std::variant<Lease, RemoteUse> use_;
  std::unique_ptr<Attempts> attempts_;
  std::unique_ptr<wire::EventStream> inner_;
  const chat::Explanation first_, last_;  // what comes before and after the engine's own
  chat::Explanation explanation_;
  std::size_t inner_decisions_ = 0;
  int retries_;
  bool begun_ = false;
  bool cancelled_ = false;
};

Task<Result<std::unique_ptr<wire::EventStream>>> Fleet::Impl::generate(std::shared_ptr<Impl> self, chat::Request request,
                                                                       wire::Caller caller) {
  const auto found = self->resolve_chat(request);
  if (!found.ok()) co_return found.error();
  auto& model = self->models[found->model];
  // An upstream that passes bytes through sees from the origin whether the client used the upstream's own name for the model; only an adapter hides in it.
  if (!found->adapter.empty()) caller.origin = nullptr;
  request.model = model.upstream_name();
  if (!found->adapter.empty()) request.adapter = found->adapter;
  request.tenant = caller.tenant;
  const auto keep = std::exchange(request.keep_loaded, std::nullopt);

  chat::Explanation first, last;
  first.add("model", model.spec.id + (found->adapter.empty() ? "" : ":" + found->adapter));
  last.add("lane", model.local() ? "local" : "remote");
  int retries = 0;
  if (!model.local()) {
    RemoteUse use(model);
    auto attempts = model.remote->generate(std::move(request), std::move(caller));
    auto stream = co_await open(*attempts, retries);
    if (!stream.ok()) co_return std::move(stream).error();
    co_return std::make_unique<Stream>(std::move(use), std::move(attempts), *std::move(stream), std::move(first), std::move(last), retries);
  }
  const bool ready = self->residency.state(model.index) == chat::ModelState::ready;
  Duration waited{0};
  auto lease = co_await self->acquire(model, keep, caller, false, waited);
  if (!lease.ok()) co_return std::move(lease).error();
  if (!ready) last.add("load", "waited " + std::to_string(to_ms(waited).count()) + " ms");
  std::unique_ptr<Attempts> attempts = std::make_unique<LocalAttempts>(lease->host(), std::move(request), std::move(caller));
  auto stream = co_await open(*attempts, retries);
  if (!stream.ok()) co_return std::move(stream).error();
  co_return std::make_unique<Stream>(*std::move(lease), std::move(attempts), *std::move(stream), std::move(first), std::move(last),
                                     retries);
}

Task<Result<void>> Fleet::Impl::load(std::shared_ptr<Impl> self, std::string name, std::optional<milliseconds> keep, wire::Caller caller) {
  const auto found = self->resolve(name, chat::ModelRole::chat);
  if (!found.ok()) co_return found.error();
  auto& model = self->models[found->model];
  if (!model.local()) co_return Result<void>();
  Duration waited{0};
  const auto lease = co_await self->acquire(model, keep, std::move(caller), true, waited);
  if (!lease.ok()) co_return lease.error();
  co_return co_await lease->host().ready();
}

Task<Result<void>> Fleet::Impl::unload(std::shared_ptr<Impl> self, std::string name, wire::Caller caller) {
  const auto found = self->resolve(name, chat::ModelRole::chat);
  if (!found.ok()) co_return found.error();
  auto& model = self->models[found->model];
  if (!model.local()) {
    co_return Error{ErrorCode::unsupported, "model \"" + model.spec.id + "\" is served elsewhere: it is not loaded here", "model"};
  }
  // Requests that wait may bring it back at once: what counts is that it went.
  const auto was = model.host;
  const bool going = self->residency.resident(model.index);
  self->residency.unload(model.index);
  self->act();
  const net::Cancellation::Registration leaves(caller.cancellation, [&self] { self->process_changed.notify(); });
  while (going && self->residency.resident(model.index) && (!was || model.host == was)) {
    if (self->stopping) co_return stopping_error();
    if (net::requested(caller.cancellation)) co_return Error{ErrorCode::client_gone, "the client left"};
    co_await self->process_changed.wait();
  }
  co_return Result<void>();
}

// The first try is its own: others follow by themselves, and whoever wants the model learns why it is not there.
Task<void> Fleet::Impl::load_pinned(Model& model) {
  Duration waited{0};
  [[maybe_unused]] const auto lease = co_await acquire(model, {}, {}, true, waited);
}

// ---- the face ----------------------------------------------------------------------------------------------------------------------

Fleet::Fleet(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Fleet::~Fleet() {
  kill();
  for (auto& model : impl_->models) {
    if (model.host) model.host->supervisor().on_change(nullptr);
    model.host.reset();
  }
  // What still waits for an answer from there is dropped while everything it refers to is there.
  impl_->background.reset();
}

Result<std::unique_ptr<Fleet>> Fleet::make(asio::io_context& io, FleetOptions options, const Clock& clock) {
  const auto checked = check_specs(options.models);
  if (!checked.ok()) return checked.error();
  auto folder = options.socket_folder.empty() ? PrivateFolder::make() : PrivateFolder::make_in(options.socket_folder);
  if (!folder.ok()) return std::move(folder).error();
  const auto memory = options.memory_state ? options.memory_state() : MemoryState{};
  return std::unique_ptr<Fleet>(new Fleet(std::make_shared<Impl>(io, std::move(options), *std::move(folder), clock, memory)));
}

void Fleet::start() {
  impl_->spawn(impl_->keep_time());
  impl_->spawn(impl_->keep_measuring());
  for (auto& model : impl_->models) {
    if (!model.local()) continue;
    if (model.spec.pinned) impl_->spawn(impl_->load_pinned(model));
    else if (model.spec.preload) impl_->residency.hint(model.index);
  }
  impl_->act();
}

Task<void> Fleet::stop() {
  const auto self = impl_;
  self->dismiss();
  int left = 0;
  LoopEvent done(self->io);
  for (auto& model : self->models) {
    if (!model.host) continue;
    ++left;
    self->spawn(self->stop_one(model.host, left, done));
  }
  while (left > 0) co_await done.wait();  // NOLINT(bugprone-infinite-loop): what was spawned counts it down
}

void Fleet::kill() {
  impl_->dismiss();
  for (auto& model : impl_->models) {
    if (model.host) model.host->supervisor().kill();
  }
}

Task<Result<std::unique_ptr<wire::EventStream>>> Fleet::generate(chat::Request request, wire::Caller caller) {
  return Impl::generate(impl_, std::move(request), std::move(caller));
}

Task<Result<chat::Embeddings>> Fleet::embed(chat::EmbeddingRequest request, wire::Caller caller) {
  auto found = impl_->resolve(request.model, chat::ModelRole::embedding);
  return Impl::whole<chat::Embeddings>(impl_, std::move(found), std::move(request), std::move(caller), &wire::Provider::embed,
                                       &RemoteModel::embed);
}
Task<Result<chat::RerankResult>> Fleet::rerank(chat::RerankRequest request, wire::Caller caller) {
  auto found = impl_->resolve(request.model, chat::ModelRole::reranker);
  return Impl::whole<chat::RerankResult>(impl_, std::move(found), std::move(request), std::move(caller), &wire::Provider::rerank,
                                         &RemoteModel::rerank);
}
Task<Result<int>> Fleet::count_tokens(chat::Request request, wire::Caller caller) {
  auto found = impl_->resolve_chat(request);
  return Impl::whole<int>(impl_, std::move(found), std::move(request), std::move(caller), &wire::Provider::count_tokens,
                          &RemoteModel::count_tokens);
}
Task<Result<std::vector<chat::TokenInfo>>> Fleet::score(chat::Request request, wire::Caller caller) {
  auto found = impl_->resolve_chat(request);
  return Impl::whole<std::vector<chat::TokenInfo>>(impl_, std::move(found), std::move(request), std::move(caller), &wire::Provider::score,
                                                   &RemoteModel::score);
}

Task<Result<std::vector<chat::ModelInfo>>> Fleet::models() {
  auto all = impl_->snapshot();
  co_return all;
}

Task<Result<void>> Fleet::load(std::string model, std::optional<milliseconds> keep_loaded, wire::Caller caller) {
  return Impl::load(impl_, std::move(model), keep_loaded, std::move(caller));
}
Task<Result<void>> Fleet::unload(std::string model, wire::Caller caller) {
  return Impl::unload(impl_, std::move(model), std::move(caller));
}

const std::vector<chat::ModelInfo>& Fleet::snapshot() const { return impl_->snapshot(); }

std::shared_ptr<void> Fleet::watch(std::function<void(const ModelEvent&)> watcher) {
  auto token = std::make_shared<std::function<void(const ModelEvent&)>>(std::move(watcher));
  impl_->watchers.push_back(token);
  return token;
}

std::vector<ModelEvent> Fleet::history(std::uint64_t after) const {
  std::vector<ModelEvent> out;
  for (const auto& event : impl_->past) {
    if (event.number > after) out.push_back(event);
  }
  return out;
}

Task<std::vector<Fleet::EngineReport>> Fleet::reports(milliseconds up_to) {
  const auto self = impl_;
  std::vector<EngineReport> all;
  int left = 0;
  LoopEvent done(self->io);
  for (auto& model : self->models) {
    const bool asked = model.spec.kind == ModelKind::worker && model.host && model.state == chat::ModelState::ready;
    if (!asked) continue;
    ++left;
    self->spawn(self->report(model, up_to, all, left, done));
  }
  while (left > 0) co_await done.wait();  // NOLINT(bugprone-infinite-loop): what was spawned counts it down
  std::sort(all.begin(), all.end(), [](const EngineReport& a, const EngineReport& b) { return a.model < b.model; });
  co_return all;
}

std::int64_t Fleet::memory_used() const { return impl_->residency.host_used(); }
std::int64_t Fleet::memory_budget() const { return impl_->residency.host_budget(); }

}  // namespace hearth::fleet
