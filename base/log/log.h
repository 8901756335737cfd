// Structured logging to standard error: one line per event, `event key=value …`, or an object of
// JSON.
//
// Values are escaped: control bytes and invalid UTF-8 appear as \xNN (in JSON as its own escapes),
// so nothing a client sends can forge a line or drive a terminal. Never log prompts, generated text
// or other client content.
//
// Thread safety: all functions may be called from any thread after init().
#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/status.h"

namespace chimera::log {

enum class Level : uint8_t { kDebug, kInfo, kWarning, kError };
enum class Format : uint8_t { kText, kJson };

/// One key=value pair. Keys are literals of the program, values may come from anywhere.
struct Field {
  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const std::string& v) : key(k), value(v) {}
  Field(std::string_view k, const char* v) : key(k), value(v) {}
  Field(std::string_view k, bool v) : key(k), value(v ? "true" : "false"), bare(true) {}
  template <class T>
  requires(std::integral<T> && !std::same_as<T, bool>) Field(std::string_view k, T v)
      : key(k), value(std::to_string(v)), bare(true) {}
  Field(std::string_view k, double v);

  std::string_view key;
  std::string value;
  bool bare = false;  // a number or truth value, which JSON has without quotes
};
using Fields = std::initializer_list<Field>;

/// "debug", "info", "warning" or "error"; anything else is invalid_argument.
Result<Level> parse_level(std::string_view text);
/// "text" or "json"; anything else is invalid_argument.
Result<Format> parse_format(std::string_view text);
/// Sets up standard error as the only sink. Call once, before other threads log.
void init(Level level, Format format = Format::kText);

void debug(std::string_view event, Fields fields = {});
void info(std::string_view event, Fields fields = {});
void warning(std::string_view event, Fields fields = {});
void error(std::string_view event, Fields fields = {});

/// The line as written, without time and level: `event key=value key="two words"`.
std::string format_line(std::string_view event, Fields fields);
/// The same as the members of an object, `"event":"ready","ms":12`, all of it ASCII.
std::string format_members(std::string_view event, Fields fields);

}  // namespace chimera::log
