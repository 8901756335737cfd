#include "base/fields/reader.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera {
namespace {

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

std::string Wording::integer(const IntRange& range, bool) const {
  return fmt::format("an integer from {} to {}", range.min, range.max);
}

std::string Wording::number(const RealRange& range, bool) const {
  return fmt::format("a number {} {} and at most {}", range.min_open ? "above" : "of at least",
                     range.min, range.max);
}

std::string Wording::path_of(const std::string& path, std::string_view key) const {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

FieldReader::FieldReader(FieldValue map, std::string path, const Wording& wording,
                         Problems& problems)
    : map_(map),
      path_(std::move(path)),
      wording_(&wording),
      problems_(&problems),
      valid_(map.is_map()) {
  if (valid_) return;
  problems_->add(map_.place(), wording_->mismatch(path_, wording_->found(map_), wording_->map()));
}

void FieldReader::skip(std::string_view key) {
  if (!asked(key)) known_.emplace_back(key);
}

bool FieldReader::asked(std::string_view key) const {
  return std::find(known_.begin(), known_.end(), key) != known_.end();
}

std::optional<FieldValue> FieldReader::find(std::string_view key, Presence presence,
                                            std::string_view expected) {
  skip(key);
  if (!valid_) return std::nullopt;
  const std::optional<FieldValue> value = map_.find(key);
  if (!value && presence == kRequired) fail(wording_->missing(path_, key, expected));
  return value;
}

bool FieldReader::integer(const IntRange& range, int64_t& out, Presence presence) {
  const std::optional<FieldValue> value =
      find(range.name, presence, wording_->integer(range, false));
  return value && read(*value, range.name, range, out);
}

bool FieldReader::number(const RealRange& range, double& out, Presence presence) {
  const std::optional<FieldValue> value =
      find(range.name, presence, wording_->number(range, false));
  return value && read(*value, range.name, range, out);
}

bool FieldReader::boolean(std::string_view key, bool& out, Presence presence) {
  constexpr std::string_view kExpected = "true or false";
  const std::optional<FieldValue> value = find(key, presence, kExpected);
  if (!value) return false;
  const std::optional<bool> flag = value->boolean();
  if (flag) out = *flag;
  if (!flag) bad(key, *value, kExpected);
  return flag.has_value();
}

bool FieldReader::text(const TextRange& range, std::string& out, Presence presence,
                       Controls controls) {
  const std::optional<FieldValue> value = find(range.name, presence);
  return value && read(*value, range.name, range, controls, out);
}

bool FieldReader::word(std::string_view key, std::string_view expected, Accept accept,
                       std::string& out, Presence presence) {
  const std::optional<FieldValue> value = find(key, presence, expected);
  if (!value) return false;
  const std::optional<std::string_view> scalar = value->scalar();
  if (!scalar || !accept(*scalar)) {
    bad(key, *value, expected);
    return false;
  }
  out = *scalar;
  return true;
}

std::optional<FieldValue> FieldReader::map(std::string_view key, Presence presence) {
  const std::optional<FieldValue> value = find(key, presence, wording_->map());
  if (!value || value->is_map()) return value;
  bad(key, *value, wording_->map());
  return std::nullopt;
}

std::optional<FieldValue> FieldReader::list(std::string_view key, std::string_view expected,
                                            Presence presence) {
  const std::optional<FieldValue> value = find(key, presence, expected);
  if (!value || value->is_list()) return value;
  bad(key, *value, expected);
  return std::nullopt;
}

bool FieldReader::read(const FieldValue& value, std::string_view key, const IntRange& range,
                       int64_t& out) const {
  const std::optional<int64_t> number = value.integer();
  if (number && *number >= range.min && *number <= range.max) {
    out = *number;
    return true;
  }
  bad(key, value, wording_->integer(range, value.is_integer()));
  return false;
}

bool FieldReader::read(const FieldValue& value, std::string_view key, const RealRange& range,
                       double& out) const {
  const std::optional<double> number = value.number();
  if (number && (range.min_open ? *number > range.min : *number >= range.min) &&
      *number <= range.max) {
    out = *number;
    return true;
  }
  bad(key, value, wording_->number(range, number.has_value()));
  return false;
}

bool FieldReader::read(const FieldValue& value, std::string_view key, const TextRange& range,
                       Controls controls, std::string& out) const {
  const std::optional<std::string_view> text = value.text();
  if (!text || text->size() < range.min || text->size() > range.max) {
    bad(key, value, fmt::format("a string of {} to {} bytes", range.min, range.max));
    return false;
  }
  if (controls == kNoControls && has_control(*text)) {
    bad(key, value, "no control characters");
    return false;
  }
  out = *text;
  return true;
}

void FieldReader::bad(std::string_view key, const FieldValue& value,
                      std::string_view expected) const {
  problems_->add(value.place(), wording_->mismatch(path_of(key), wording_->found(value), expected));
}

void FieldReader::only(std::span<const std::string_view> keys) const {
  if (!valid_) return;
  for (size_t i = 0; i < map_.size(); ++i) {
    const FieldEntry entry = map_.entry(i);
    if (std::find(keys.begin(), keys.end(), entry.key) != keys.end()) continue;
    problems_->add(entry.at, wording_->unknown(path_, entry.key, keys));
  }
}

void FieldReader::finish() const {
  const std::vector<std::string_view> keys(known_.begin(), known_.end());
  only(keys);
}

}  // namespace chimera
