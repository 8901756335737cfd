// Json as a FieldValue.
//
// Thread safety: constants and free functions.
#pragma once

#include "base/fields/value.h"
#include "base/json/json.h"

namespace chimera {

/// Reads Json strictly: 64.0 is no integer. Has no places.
class JsonFieldFormat : public FieldFormat {
 public:
  static const JsonFieldFormat& strict();

  Kind kind(const void* node) const override;
  Place place(const void*) const override { return {}; }
  std::string found(const void* node) const override;
  std::string written(const void* node) const override;
  bool is_integer(const void* node) const override;
  std::optional<int64_t> integer(const void* node) const override;
  std::optional<double> number(const void* node) const override;
  std::optional<bool> boolean(const void* node) const override;
  std::optional<std::string_view> text(const void* node) const override;
  std::optional<std::string_view> scalar(const void* node) const override { return text(node); }
  size_t size(const void* node) const override;
  const void* item(const void* node, size_t index) const override;
  Entry entry(const void* node, size_t index) const override;
  const void* find(const void* node, std::string_view key) const override;

 protected:
  static const Json& json(const void* node) { return *static_cast<const Json*>(node); }
};

/// `value` outlives the view.
inline FieldValue field_value(const Json& value) { return {&value, JsonFieldFormat::strict()}; }

}  // namespace chimera
