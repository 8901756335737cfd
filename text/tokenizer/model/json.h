// Reading tokenizer.json as untrusted input: bounded parsing, and field access that collects the
// first error with the place it was found at.
//
// Thread safety: values; distinct objects are independent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/json/json.h"
#include "base/status.h"

namespace chimera::tokenizer {

/// Typed access to the members of one JSON object. After the first error every getter returns an
/// empty value, so that a reader checks once, at its end. The Json must outlive it.
class Fields {
 public:
  /// `where` names the object in messages, e.g. "pre_tokenizer".
  Fields(const Json& value, std::string where);

  /// Present and not null.
  bool has(const char* key) const;
  std::string string(const char* key);
  std::string string_or(const char* key, std::string_view fallback);
  bool boolean(const char* key);
  bool boolean_or(const char* key, bool fallback);
  /// Whole number in [0, max].
  int64_t integer(const char* key, int64_t max);
  /// The single character that the string holds.
  uint32_t character(const char* key);
  /// Never null; an empty container after an error.
  const Json* array(const char* key);
  const Json* object(const char* key);

  /// Records "<where>: <message>" unless an error is already there.
  void fail(const std::string& message);
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  const Json* find(const char* key) const;
  const Json* expect(const char* key, const char* wanted, bool (*is_wanted)(const Json&));

  const Json& value_;
  std::string where_;
  Status status_;
};

/// "<where>: type "<found>" is not supported", with the supported names as the hint.
Status unsupported_component(std::string_view where, std::string_view found,
                             std::string_view supported);

}  // namespace chimera::tokenizer
