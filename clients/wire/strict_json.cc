#include "clients/wire/strict_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/reader.h"

namespace chimera::wire {
namespace {

constexpr JsonLimits kLimits{
    .max_bytes = kMaxMessageBytes, .max_depth = kMaxJsonDepth, .max_values = kMaxJsonValues};

/// Behind the blanks at `at`.
size_t skip_blanks(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

/// Behind the string that begins at `at`.
size_t skip_string(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

/// Behind the value that begins at `at`.
size_t skip_value(std::string_view text, size_t at) {
  size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}')) break;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    ++at;
  }
  return at;
}

}  // namespace

std::variant<Json, Error> parse_strict(std::string_view text) {
  Result<Json> parsed = parse_json(text, kLimits);
  if (parsed.ok()) return std::move(*parsed);
  const Status& status = parsed.status();
  if (status.code() == Code::kDataCorrupt) {
    return Error{"invalid_argument", "request: " + status.message() + " (expected one JSON object)",
                 "see clients/PROTOCOL.md"};
  }
  return Error{std::string(code_name(status.code())), "request: " + status.message(),
               status.hint()};
}

std::string_view raw_member(std::string_view object, std::string_view name) {
  size_t at = skip_blanks(object, 0) + 1;  // {
  while (at < object.size()) {
    at = skip_blanks(object, at);
    if (at >= object.size() || object[at] != '"') break;
    const size_t key_end = skip_string(object, at);
    const Result<Json> key = parse_json(object.substr(at, key_end - at));
    const size_t begin = skip_blanks(object, skip_blanks(object, key_end) + 1);  // :
    const size_t end = skip_value(object, begin);
    if (key.ok() && *key == name) {
      std::string_view value = object.substr(begin, end - begin);
      return value.substr(0, value.find_last_not_of(" \t\r\n") + 1);
    }
    at = end + 1;  // ,
  }
  return {};
}

}  // namespace chimera::wire
