// FieldValue: one value of a document, whatever the document is written in.
//
// A view of a node that a format's own reader made: base/json/field_value.h and
// base/yaml/field_value.h make views of theirs. It says what may be read from the node; FieldReader
// decides whether that is what was wanted.
//
// Lifetime: the node and the format outlive the view. Thread safety: as a pointer to const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

/// Where something stands; both count from 1, and are 0 where a format knows no places.
struct Place {
  int line = 0;
  int column = 0;
};

class FieldFormat;
struct FieldEntry;

class FieldValue {
 public:
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };

  FieldValue(const void* node, const FieldFormat& format) : node_(node), format_(&format) {}

  Kind kind() const;
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_list() const { return kind() == Kind::kList; }
  bool is_map() const { return kind() == Kind::kMap; }
  Place place() const;
  /// As a message shows it: a scalar as it is written, shortened and made visible, the rest by
  /// kind.
  std::string found() const;
  /// All of it in one line, as the format writes it.
  std::string written() const;

  /// Whether it is written as an integer; integer() has it when 64 bits do.
  bool is_integer() const;
  std::optional<int64_t> integer() const;
  /// Any finite number.
  std::optional<double> number() const;
  std::optional<bool> boolean() const;
  /// What can be nothing but text.
  std::optional<std::string_view> text() const;
  /// The text of a scalar that its format spells as text, whatever else it could stand for: in YAML
  /// of every scalar, 1.10 and true among them.
  std::optional<std::string_view> scalar() const;

  /// Items of a list, entries of a map, else 0.
  size_t size() const;
  /// REQUIRES: a list, and `index` < size().
  FieldValue operator[](size_t index) const;
  /// In the order of the document. REQUIRES: a map, and `index` < size().
  FieldEntry entry(size_t index) const;
  /// The value of `key`; nothing when this is no map or has none.
  std::optional<FieldValue> find(std::string_view key) const;

 private:
  const void* node_;
  const FieldFormat* format_;
};

struct FieldEntry {
  std::string_view key;
  Place at;  // of the key
  FieldValue value;
};

/// How FieldValue reads the nodes of one format; the functions are those of FieldValue.
class FieldFormat {
 public:
  using Kind = FieldValue::Kind;
  virtual ~FieldFormat() = default;
  virtual Kind kind(const void* node) const = 0;
  virtual Place place(const void* node) const = 0;
  virtual std::string found(const void* node) const = 0;
  virtual std::string written(const void* node) const = 0;
  virtual bool is_integer(const void* node) const = 0;
  virtual std::optional<int64_t> integer(const void* node) const = 0;
  virtual std::optional<double> number(const void* node) const = 0;
  virtual std::optional<bool> boolean(const void* node) const = 0;
  virtual std::optional<std::string_view> text(const void* node) const = 0;
  virtual std::optional<std::string_view> scalar(const void* node) const = 0;
  virtual size_t size(const void* node) const = 0;
  virtual const void* item(const void* node, size_t index) const = 0;
  struct Entry {
    std::string_view key;
    Place at;
    const void* value;
  };
  virtual Entry entry(const void* node, size_t index) const = 0;
  virtual const void* find(const void* node, std::string_view key) const = 0;  // or null
};

inline FieldValue::Kind FieldValue::kind() const { return format_->kind(node_); }
inline Place FieldValue::place() const { return format_->place(node_); }
inline std::string FieldValue::found() const { return format_->found(node_); }
inline std::string FieldValue::written() const { return format_->written(node_); }
inline bool FieldValue::is_integer() const { return format_->is_integer(node_); }
inline std::optional<int64_t> FieldValue::integer() const { return format_->integer(node_); }
inline std::optional<double> FieldValue::number() const { return format_->number(node_); }
inline std::optional<bool> FieldValue::boolean() const { return format_->boolean(node_); }
inline std::optional<std::string_view> FieldValue::text() const { return format_->text(node_); }
inline std::optional<std::string_view> FieldValue::scalar() const { return format_->scalar(node_); }
inline size_t FieldValue::size() const { return format_->size(node_); }
inline FieldValue FieldValue::operator[](size_t index) const {
  return {format_->item(node_, index), *format_};
}
inline FieldEntry FieldValue::entry(size_t index) const {
  const FieldFormat::Entry found = format_->entry(node_, index);
  return {found.key, found.at, {found.value, *format_}};
}
inline std::optional<FieldValue> FieldValue::find(std::string_view key) const {
  const void* found = format_->find(node_, key);
  if (found == nullptr) return std::nullopt;
  return FieldValue(found, *format_);
}

}  // namespace chimera
