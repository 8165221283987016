#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "catalog/default_model.h"
#include "engine/engine.h"

namespace hearth::app {

void add_version(CLI::App& program, int& exit_code) {
  auto* command = program.add_subcommand("version", "Show versions of hearth, llama.cpp and the compiler");
  command->footer("Example:\n  hearth version");
  command->callback([&exit_code] {
    fmt::print("hearth     {}\n", HEARTH_VERSION);
    fmt::print("llama.cpp  {}\n", engine::llama_cpp_version());
    fmt::print("model      {} (built in, sha256 {})\n", catalog::default_model_id, catalog::default_model_sha256());
    fmt::print("compiler   {}\n", __VERSION__);
    fmt::print("build      {}\n", HEARTH_BUILD);
    exit_code = exit_ok;
  });
}

}  // namespace hearth::app
