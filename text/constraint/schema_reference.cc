#include "text/constraint/schema_reference.h"

#include <charconv>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "base/quote.h"
#include "text/constraint/schema_types.h"

namespace chimera::constraint {
namespace {

/// References that lead to references, at most.
constexpr int kMaxSteps = 64;

/// One part of a pointer as it is meant: %XX, then ~1 and ~0.
std::string unescape(std::string_view part) {
  std::string plain;
  for (size_t i = 0; i < part.size(); ++i) {
    unsigned value = 0;
    if (part[i] == '%' && i + 2 < part.size() &&
        std::from_chars(part.data() + i + 1, part.data() + i + 3, value, 16).ptr ==
            part.data() + i + 3) {
      plain.push_back(static_cast<char>(value));
      i += 2;
    } else {
      plain.push_back(part[i]);
    }
  }
  std::string out;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i] == '~' && i + 1 < plain.size()) {
      out.push_back(plain[++i] == '1' ? '/' : '~');
    } else {
      out.push_back(plain[i]);
    }
  }
  return out;
}

const Json* step(const Json& from, const std::string& key) {
  if (from.is_object()) return from.find(key);
  size_t index = 0;
  const char* const end = key.data() + key.size();
  if (!from.is_array() || std::from_chars(key.data(), end, index).ptr != end) return nullptr;
  return index < from.size() ? &from[index] : nullptr;
}

const Json* resolve(const Json& document, std::string_view reference) {
  if (reference == "#") return &document;
  if (!reference.starts_with("#/")) return nullptr;
  const Json* at = &document;
  std::string_view rest = reference.substr(2);
  for (bool more = true; more && at != nullptr;) {
    const size_t slash = rest.find('/');
    more = slash != std::string_view::npos;
    at = step(*at, unescape(rest.substr(0, slash)));
    if (more) rest.remove_prefix(slash + 1);
  }
  return at;
}

}  // namespace

const Json* follow_references(const Json& document, const Json& schema, std::string& problem) {
  const Json* at = &schema;
  for (int steps = 0; at->is_object() && at->contains("$ref"); ++steps) {
    for (const auto& [keyword, value] : at->items()) {
      if (keyword == "$ref" || is_annotation(keyword)) continue;
      problem = fmt::format("{} beside \"$ref\" is not supported", quote(keyword));
      return nullptr;
    }
    const Json& reference = (*at)["$ref"];
    const Json* next = reference.is_string() ? resolve(document, *reference.string()) : nullptr;
    if (next == nullptr || steps == kMaxSteps) {
      problem = next == nullptr
                    ? "\"$ref\" (expected a place in this schema, such as \"#/$defs/name\")"
                    : "\"$ref\" leads in a circle";
      return nullptr;
    }
    at = next;
  }
  return at;
}

}  // namespace chimera::constraint
