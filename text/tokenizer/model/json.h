// Reading tokenizer.json as untrusted input: FieldReader in the words of that file, where null
// stands for absent.
//
// Thread safety: none; by the thread that reads the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/fields/reader.h"
#include "base/json/json.h"
#include "base/status.h"

namespace chimera::tokenizer {

/// Typed access to the members of one JSON object. A getter whose member is missing or wrong notes
/// it and returns an empty value, so that a reader checks once, at its end. The Json must outlive
/// it.
class Fields {
 public:
  /// `where` names the object in messages, e.g. "pre_tokenizer".
  Fields(const Json& value, std::string where);
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  /// Present and not null.
  bool has(std::string_view key) const;
  std::string string(std::string_view key);
  std::string string_or(std::string_view key, std::string_view fallback);
  bool boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool fallback);
  /// Whole number in [0, max].
  int64_t integer(std::string_view key, int64_t max);
  /// The single character that the string holds; 0 after an error.
  uint32_t character(std::string_view key);
  /// Never null; an empty container after an error.
  const Json* array(std::string_view key);
  const Json* object(std::string_view key);

  /// Notes "<where>: <message>".
  void fail(const std::string& message);
  /// All that was noted, as data_corrupt.
  Status status() const { return problems_.status(); }
  const std::string& where() const { return reader_.path(); }

 private:
  std::optional<FieldValue> expect(std::string_view key, std::string_view wanted);

  const Json& value_;
  Problems problems_;
  FieldReader reader_;
};

/// "<where>: type "<found>" is not supported", with the supported names as the hint.
Status unsupported_component(std::string_view where, std::string_view found,
                             std::string_view supported);

}  // namespace chimera::tokenizer
