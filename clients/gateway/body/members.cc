#include "clients/gateway/body/members.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "base/utf8.h"

namespace chimera::gateway {

std::string shown(const Json& value) {
  if (const std::string* text = value.string()) return quote(*text, 40);
  if (value.is_array() || value.is_object()) {
    return value.is_array() ? "an array" : "an object";
  }
  return std::string(cut_utf8(write_json(value), 40));
}

Members::Members(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {}

const Json* Members::take(std::string_view name) {
  known_.push_back(name);
  const Json* found = object_.find(name);
  return found == nullptr || found->is_null() ? nullptr : found;
}

void Members::take(std::string_view name, bool& out) {
  const Json* found = take(name);
  if (found == nullptr) return;
  if (!found->is_boolean()) return bad(name, *found, "true or false");
  out = *found->boolean();
}

std::optional<std::string> Members::text(std::string_view name) {
  const Json* found = take(name);
  if (found == nullptr) return std::nullopt;
  if (found->is_string()) return *found->string();
  bad(name, *found, "a string");
  return std::nullopt;
}

std::optional<int64_t> Members::integer(std::string_view name, int64_t min, int64_t max) {
  const Json* found = take(name);
  if (found == nullptr) return std::nullopt;
  const auto value = found->integer();
  if (value && *value >= min && *value <= max) return value;
  bad(name, *found, fmt::format("an integer from {} to {}", min, max));
  return std::nullopt;
}

void Members::fail(ApiError error) {
  if (!problem_) problem_ = std::move(error);
}

void Members::bad(std::string_view name, const Json& found, std::string_view expected) {
  fail(bad_field(path_of(name), fmt::format("{} (expected {})", shown(found), expected)));
}

std::optional<ApiError> Members::finish() {
  if (problem_) return problem_;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string_view near = nearest(key, known_);
    ApiError error = bad_field(quote(path_of(key), 80), "unknown field",
                               near.empty() ? "" : fmt::format("did you mean {}?", near));
    error.param = key;
    return error;
  }
  return std::nullopt;
}

}  // namespace chimera::gateway
