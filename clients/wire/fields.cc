#include "clients/wire/fields.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "clients/wire/strict_json.h"

namespace chimera::wire {
namespace {

/// A value as it is shown in an error: scalars as written, strings shortened, the rest by kind.
std::string shown(const Json& value) {
  if (value.is_string()) return quote(*value.string());
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return "an object";
  return write_json(value);
}

bool has_control(std::string_view s) {
  return std::any_of(s.begin(), s.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::string expected_integer(const IntRange& range) {
  return fmt::format("an integer from {} to {}", range.min, range.max);
}

}  // namespace

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) {
    fail(fmt::format("{}: {} (expected an object)", where_, shown(object_)));
  }
}

void Fields::fail(std::string message, std::string hint) {
  if (error_) return;
  if (hint.empty()) hint = "see clients/PROTOCOL.md";
  error_ = Error{"invalid_argument", std::move(message), std::move(hint)};
}

void Fields::adopt(std::optional<Error> nested) {
  if (!error_ && nested) error_ = std::move(nested);
}

bool Fields::has(std::string_view name) const { return object_.contains(name); }

void Fields::mismatch(std::string_view name, const Json& found, const std::string& expected) {
  fail(fmt::format("{}.{}: {} (expected {})", where_, name, shown(found), expected));
}

const Json* Fields::take(std::string_view name, Presence presence) {
  known_.emplace_back(name);
  if (error_) return nullptr;
  if (const Json* value = object_.find(name)) return value;
  if (presence == kRequired) fail(fmt::format("{}.{}: missing (it is required)", where_, name));
  return nullptr;
}

bool Fields::read_integer(const IntRange& range, const Json& value, int64_t& out) {
  const std::optional<int64_t> number = value.integer();
  if (!number || *number < range.min || *number > range.max) {
    mismatch(range.name, value, expected_integer(range));
    return false;
  }
  out = *number;
  return true;
}

bool Fields::read_real(const RealRange& range, std::string_view name, const Json& value,
                       double& out) {
  const double number = value.number().value_or(0.0);
  const bool above = range.min_open ? number > range.min : number >= range.min;
  if (!value.is_number() || !above || !(number <= range.max)) {
    mismatch(name, value,
             fmt::format("a number {} {} and at most {}", range.min_open ? "above" : "of at least",
                         range.min, range.max));
    return false;
  }
  out = number;
  return true;
}

bool Fields::read_text(const TextRange& range, std::string_view name, const Json& value,
                       std::string& out, bool control_allowed) {
  const auto* text = value.string();
  if (text == nullptr || text->size() < range.min || text->size() > range.max) {
    mismatch(name, value, fmt::format("a string of {} to {} bytes", range.min, range.max));
    return false;
  }
  if (!control_allowed && has_control(*text)) {
    mismatch(name, value, "no control characters");
    return false;
  }
  out = *text;
  return true;
}

void Fields::integer(const IntRange& range, int64_t& out) {
  if (const Json* value = take(range.name, kOptional)) read_integer(range, *value, out);
}

void Fields::integer(const IntRange& range, std::optional<int64_t>& out) {
  int64_t number = 0;
  const Json* value = take(range.name, kOptional);
  if (value != nullptr && read_integer(range, *value, number)) out = number;
}

void Fields::integer(const IntRange& range, std::optional<uint64_t>& out) {
  std::optional<int64_t> number;
  integer(range, number);
  if (number) out = static_cast<uint64_t>(*number);  // every such range starts at 0 or above
}

void Fields::real(const RealRange& range, double& out, Presence presence) {
  if (const Json* value = take(range.name, presence)) read_real(range, range.name, *value, out);
}

void Fields::real(const RealRange& range, std::optional<double>& out) {
  double number = 0;
  const Json* value = take(range.name, kOptional);
  if (value != nullptr && read_real(range, range.name, *value, number)) out = number;
}

void Fields::boolean(std::string_view name, bool& out) {
  std::optional<bool> found;
  boolean(name, found);
  if (found) out = *found;
}

void Fields::boolean(std::string_view name, std::optional<bool>& out) {
  const Json* value = take(name, kOptional);
  if (value == nullptr) return;
  out = value->boolean();
  if (!out) mismatch(name, *value, "true or false");
}

void Fields::text(const TextRange& range, std::string& out, Presence presence) {
  const Json* value = take(range.name, presence);
  if (value != nullptr) read_text(range, range.name, *value, out, /*control_allowed=*/true);
}

void Fields::text(const TextRange& range, std::optional<std::string>& out) {
  std::string found;
  const Json* value = take(range.name, kOptional);
  if (value != nullptr && read_text(range, range.name, *value, found, /*control_allowed=*/true)) {
    out = std::move(found);
  }
}

void Fields::label(const TextRange& range, std::string& out, Presence presence) {
  const Json* value = take(range.name, presence);
  if (value != nullptr) read_text(range, range.name, *value, out, /*control_allowed=*/false);
}

void Fields::label(const TextRange& range, std::optional<std::string>& out) {
  std::string found;
  const Json* value = take(range.name, kOptional);
  if (value != nullptr && read_text(range, range.name, *value, found, /*control_allowed=*/false)) {
    out = std::move(found);
  }
}

const Json* Fields::array(std::string_view name, Presence presence) {
  const Json* value = take(name, presence);
  if (value == nullptr || value->is_array()) return value;
  mismatch(name, *value, "an array");
  return nullptr;
}

const Json* Fields::object(std::string_view name, Presence presence) {
  const Json* value = take(name, presence);
  if (value == nullptr || value->is_object()) return value;
  mismatch(name, *value, "an object");
  return nullptr;
}

void Fields::tokens(std::vector<int32_t>& out, size_t min_count, Presence presence) {
  const Json* values = array(range::token.name, presence);
  if (values == nullptr) return;
  if (values->size() < min_count || values->size() > kMaxPromptTokens) {
    return mismatch(range::token.name, *values,
                    fmt::format("{} to {} token ids", min_count, kMaxPromptTokens));
  }
  out.reserve(values->size());
  for (const Json& value : *values) {
    int64_t id = 0;
    if (!read_integer(range::token, value, id)) return;
    out.push_back(static_cast<int32_t>(id));
  }
}

void Fields::list(const TextRange& range, std::string_view name, size_t max_count,
                  std::vector<std::string>& out) {
  const Json* values = array(name);
  if (values == nullptr) return;
  if (values->size() > max_count) {
    return mismatch(name, *values, fmt::format("at most {} strings", max_count));
  }
  for (const Json& value : *values) {
    std::string item;
    if (!read_text(range, name, value, item, /*control_allowed=*/true)) return;
    out.push_back(std::move(item));
  }
}

void Fields::map(const RealRange& range, std::map<std::string, double>& out) {
  const Json* values = object(range.name);
  if (values == nullptr) return;
  if (values->size() > range::kMaxModuleNames) {
    return mismatch(range.name, *values, fmt::format("at most {} names", range::kMaxModuleNames));
  }
  for (const auto& [key, value] : values->items()) {
    double number = 0;
    if (key.empty() || key.size() > range::name.max || has_control(key)) {
      return fail(fmt::format("{}.{}: key {} (expected the name of a module)", where_, range.name,
                              quote(key)));
    }
    if (!read_real(range, fmt::format("{}.{}", range.name, key), value, number)) return;
    out.emplace(key, number);
  }
}

std::optional<size_t> Fields::choice(std::string_view name,
                                     std::initializer_list<const char*> choices) {
  const Json* value = take(name, kOptional);
  if (value == nullptr) return std::nullopt;
  const auto* text = value->string();
  size_t index = 0;
  for (const char* spelling : choices) {
    if (text != nullptr && *text == spelling) return index;
    ++index;
  }
  mismatch(name, *value, fmt::format("one of {}", fmt::join(choices, ", ")));
  return std::nullopt;
}

std::optional<Error> Fields::finish() {
  if (error_) return error_;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string_view guess = nearest(key, known_);
    fail(fmt::format("{}: unknown field {}{}", where_, quote(key),
                     guess.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", guess)),
         fmt::format("{} takes {}", where_, fmt::join(known_, ", ")));
    return error_;
  }
  return std::nullopt;
}

}  // namespace chimera::wire
