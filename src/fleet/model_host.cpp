#include "fleet/model_host.h"

#include <cstdlib>
#include <sstream>
#include <utility>

namespace hearth::fleet {
namespace {

using namespace std::chrono_literals;

constexpr auto news_wait = 500ms;  // from the end of a connection to the news that its process has ended

// The GPU by which a process knows the one that we count as `device`: of those that we are shown ourselves.
std::string cuda_name(int device) {
  const char* shown = std::getenv("CUDA_VISIBLE_DEVICES");
  std::istringstream names(shown ? shown : "");
  std::string name;
  for (int i = 0; i <= device; ++i) {
    if (!std::getline(names, name, ',')) return std::to_string(device);
  }
  return name;
}

SupervisorOptions supervisor_options(const ModelSpec& spec, const HostOptions& options) {
  auto out = options.supervisor;
  out.command = spec.command;
  out.socket = options.socket;
  out.name = spec.id;
  // Shown several GPUs an engine spreads over all of them; shown one it uses it for long prompts even with all layers on the CPU.
  if (options.device != Residency::cpu && options.gpus > 1) out.environment.push_back("CUDA_VISIBLE_DEVICES=" + cuda_name(options.device));
  if (options.device == Residency::cpu && options.gpus > 0 && spec.kind == ModelKind::worker)
    out.environment.emplace_back("CUDA_VISIBLE_DEVICES=");
  if (spec.kind == ModelKind::command) {
    out.foreign =
        ForeignProcess{.model = spec.upstream.remote_model.empty() ? spec.id : spec.upstream.remote_model, .health_path = spec.health_path};
  } else {
    // A context of gigabytes is cleared before it is used: in large pages that is several times as fast.
    if (std::getenv("GLIBC_TUNABLES") == nullptr) out.environment.emplace_back("GLIBC_TUNABLES=glibc.malloc.hugetlb=1");
    const int layers = spec.gpu_layers ? *spec.gpu_layers : options.device == Residency::cpu ? 0 : -1;
    out.command.push_back("--gpu-layers=" + std::to_string(layers));
  }
  return out;
}

UpstreamOptions upstream_options(const ModelSpec& spec, const HostOptions& options) {
  auto out = spec.upstream;
  if (out.first_event == 0ms) out.first_event = options.first_token;
  if (out.next_event == 0ms) out.next_event = UpstreamOptions().next_event;
  return out;
}

}  // namespace

ModelHost::ModelHost(net::asio::io_context& io, const ModelSpec& spec, HostOptions options, const Clock& clock)
    : start_wait_(options.start_wait),
      ours_(spec.kind == ModelKind::worker),
      supervisor_(io, supervisor_options(spec, options), clock),
      upstream_(io, supervisor_.endpoint(), upstream_options(spec, options)) {}

wire::Provider& ModelHost::upstream() {
  if (std::exchange(connected_to_, supervisor_.generation()) != supervisor_.generation()) upstream_.connect_to(supervisor_.endpoint());
  return upstream_;
}

net::Task<Result<void>> ModelHost::ready() { return supervisor_.wait_ready(start_wait_); }

net::Task<void> ModelHost::stop() {
  // Our worker has nothing to put in order: what it would free piece by piece, the kernel frees at once. Somebody waits for that memory.
  if (ours_) supervisor_.kill();
  return supervisor_.stop();
}

net::Task<bool> ModelHost::recovered(Error failure, int generation) {
  // A process that is going down may still accept a connection and drop it, so a lost connection counts like a refused one, if the process did end.
  if (failure.code != ErrorCode::unavailable && failure.code != ErrorCode::upstream_failed) co_return false;
  const bool ended = co_await supervisor_.wait_ended(generation, news_wait);
  if (!ended) co_return false;
  const auto up = co_await supervisor_.wait_ready(start_wait_, generation);
  co_return up.ok();
}

}  // namespace hearth::fleet
