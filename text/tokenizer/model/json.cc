#include "text/tokenizer/model/json.h"

#include <fmt/format.h>

#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

const Json& empty_array() {
  static const Json kEmpty = Json::array();
  return kEmpty;
}

const Json& empty_object() {
  static const Json kEmpty = Json::object();
  return kEmpty;
}

}  // namespace

Fields::Fields(const Json& value, std::string where) : value_(value), where_(std::move(where)) {
  if (!value.is_object()) fail(fmt::format("expected an object, found {}", value.kind_name()));
}

void Fields::fail(const std::string& message) {
  if (!status_.ok()) return;
  status_ = Status(Code::kDataCorrupt, where_ + ": " + message,
                   "use the tokenizer.json as Hugging Face tokenizers wrote it");
}

const Json* Fields::find(const char* key) const {
  if (!status_.ok()) return nullptr;
  const Json* found = value_.find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

bool Fields::has(const char* key) const { return find(key) != nullptr; }

const Json* Fields::expect(const char* key, const char* wanted, bool (*is_wanted)(const Json&)) {
  const Json* found = find(key);
  if (found == nullptr) {
    fail(fmt::format("\"{}\" is missing (expected {})", key, wanted));
    return nullptr;
  }
  if (!is_wanted(*found)) {
    fail(fmt::format("\"{}\" is of type {}, expected {}", key, found->kind_name(), wanted));
    return nullptr;
  }
  return found;
}

std::string Fields::string(const char* key) {
  const Json* v = expect(key, "a string", [](const Json& j) { return j.is_string(); });
  return v == nullptr ? std::string() : *v->string();
}

std::string Fields::string_or(const char* key, std::string_view fallback) {
  return has(key) ? string(key) : std::string(fallback);
}

bool Fields::boolean(const char* key) {
  const Json* v = expect(key, "true or false", [](const Json& j) { return j.is_boolean(); });
  return v != nullptr && *v->boolean();
}

bool Fields::boolean_or(const char* key, bool fallback) {
  return has(key) ? boolean(key) : fallback;
}

int64_t Fields::integer(const char* key, int64_t max) {
  const Json* v =
      expect(key, "a whole number", [](const Json& j) { return j.natural().has_value(); });
  if (v == nullptr) return 0;
  const uint64_t n = *v->natural();
  if (n > static_cast<uint64_t>(max)) {
    fail(fmt::format("\"{}\" is {}, expected at most {}", key, n, max));
    return 0;
  }
  return static_cast<int64_t>(n);
}

uint32_t Fields::character(const char* key) {
  const std::string s = string(key);
  if (!status_.ok()) return 0;
  if (s.empty() || char_length(s[0]) != s.size()) {
    fail(fmt::format("\"{}\" is \"{}\", expected exactly one character", key, s));
    return 0;
  }
  return decode_char(s, 0).code_point;
}

const Json* Fields::array(const char* key) {
  const Json* v = expect(key, "an array", [](const Json& j) { return j.is_array(); });
  return v == nullptr ? &empty_array() : v;
}

const Json* Fields::object(const char* key) {
  const Json* v = expect(key, "an object", [](const Json& j) { return j.is_object(); });
  return v == nullptr ? &empty_object() : v;
}

Status unsupported_component(std::string_view where, std::string_view found,
                             std::string_view supported) {
  return Status(Code::kUnimplemented, fmt::format("{}: type \"{}\" is not supported", where, found),
                fmt::format("supported: {}", supported));
}

}  // namespace chimera::tokenizer
