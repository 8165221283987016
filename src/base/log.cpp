#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace hearth {

Result<void> init_logging(std::string_view process, std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return Error{ErrorCode::config_invalid, "log level \"" + std::string(level) + "\" is none of trace, debug, info, warn, error, off",
                 "log_level"};
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(process), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(parsed);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ [%n] %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

}  // namespace hearth
