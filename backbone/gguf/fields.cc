#include "backbone/gguf/fields.h"

#include <algorithm>

namespace chimera {

void GgufFields::fail(Code code, const std::string& message, std::string hint) {
  if (status_.ok()) status_ = Status(code, label_ + ": " + message, std::move(hint));
}

template <class T>
const T* GgufFields::get(std::string_view key, const char* expected) {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return nullptr;
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr)
    fail(Code::kDataCorrupt,
         "metadata " + std::string(key) + " is of another type (expected " + expected + ")");
  return value;
}

std::optional<int64_t> GgufFields::integer(std::string_view key) {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* list = std::get_if<std::vector<int64_t>>(&found->second)) {
      const bool equal = !list->empty() && std::all_of(list->begin(), list->end(), [&](int64_t n) {
        return n == list->front();
      });
      if (equal) return list->front();
      fail(Code::kUnimplemented,
           "metadata " + std::string(key) + " differs from layer to layer (expected one number)");
      return std::nullopt;
    }
  }
  const auto* value = get<int64_t>(key, "an integer");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<double> GgufFields::number(std::string_view key) {
  const auto* value = get<double>(key, "a number");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<bool> GgufFields::boolean(std::string_view key) {
  const auto* value = get<bool>(key, "a boolean");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

const std::string* GgufFields::text(std::string_view key) {
  return get<std::string>(key, "a text");
}

const std::vector<std::string>* GgufFields::texts(std::string_view key) {
  return get<std::vector<std::string>>(key, "a list of texts");
}

const std::vector<int64_t>* GgufFields::integers(std::string_view key) {
  return get<std::vector<int64_t>>(key, "a list of integers");
}

const std::vector<double>* GgufFields::numbers(std::string_view key) {
  return get<std::vector<double>>(key, "a list of numbers");
}

int64_t GgufFields::required(std::string_view key) {
  const std::optional<int64_t> value = integer(key);
  if (!value) fail(Code::kDataCorrupt, "lacks the metadata " + std::string(key) + " (an integer)");
  return value.value_or(0);
}

}  // namespace chimera
