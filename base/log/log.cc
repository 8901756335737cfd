#include "base/log/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cmath>
#include <memory>

#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera::log {
namespace {

// Beside spdlog's default logger, which is the process's as well.
std::atomic<Format> format_of_lines{Format::kText};

void append_value(std::string& out, std::string_view value) {
  const bool quoted = value.empty() || value.find_first_of(" =\"") != std::string_view::npos;
  if (quoted) out += '"';
  append_visible(value, out, /*quotable=*/true);
  if (quoted) out += '"';
}

void write(spdlog::level::level_enum level, std::string_view event, Fields fields) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (logger == nullptr || !logger->should_log(level)) return;
  const bool json = format_of_lines.load(std::memory_order_relaxed) == Format::kJson;
  const std::string line = json ? format_members(event, fields) : format_line(event, fields);
  logger->log(level, spdlog::string_view_t(line));
}

}  // namespace

Field::Field(std::string_view k, double v)
    : key(k), value(fmt::format("{:.6g}", v)), bare(std::isfinite(v)) {}

Result<Level> parse_level(std::string_view text) {
  if (text == "debug") return Level::kDebug;
  if (text == "info") return Level::kInfo;
  if (text == "warning") return Level::kWarning;
  if (text == "error") return Level::kError;
  return Status(Code::kInvalidArgument,
                fmt::format("log level: found {} (expected debug, info, warning or error)", text));
}

Result<Format> parse_format(std::string_view text) {
  if (text == "text") return Format::kText;
  if (text == "json") return Format::kJson;
  return Status(Code::kInvalidArgument,
                fmt::format("log format: found {} (expected text or json)", text));
}

void init(Level level, Format format) {
  auto logger = std::make_shared<spdlog::logger>("chimerad",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  // UTC with milliseconds: sorts, and compares across machines.
  logger->set_pattern(format == Format::kJson
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                          : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                      spdlog::pattern_time_type::utc);
  format_of_lines = format;
  switch (level) {
    case Level::kDebug:
      logger->set_level(spdlog::level::debug);
      break;
    case Level::kInfo:
      logger->set_level(spdlog::level::info);
      break;
    case Level::kWarning:
      logger->set_level(spdlog::level::warn);
      break;
    case Level::kError:
      logger->set_level(spdlog::level::err);
      break;
  }
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void debug(std::string_view event, Fields fields) { write(spdlog::level::debug, event, fields); }
void info(std::string_view event, Fields fields) { write(spdlog::level::info, event, fields); }
void warning(std::string_view event, Fields fields) { write(spdlog::level::warn, event, fields); }
void error(std::string_view event, Fields fields) { write(spdlog::level::err, event, fields); }

std::string format_line(std::string_view event, Fields fields) {
  std::string line(event);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  return line;
}

std::string format_members(std::string_view event, Fields fields) {
  std::string out = "\"event\":";
  append_json_string(event, out, /*ascii=*/true);
  for (const Field& field : fields) {
    out += ',';
    append_json_string(field.key, out, /*ascii=*/true);
    out += ':';
    if (field.bare) {
      out += field.value;
    } else {
      append_json_string(field.value, out, /*ascii=*/true);
    }
  }
  return out;
}

}  // namespace chimera::log
