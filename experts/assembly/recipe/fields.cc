#include "experts/assembly/recipe/fields.h"

#include <fmt/format.h>

#include "base/yaml/config_wording.h"

namespace chimera {
namespace {

const ConfigWording kWording;

bool add_ranges(const FieldValue& value, IndexRanges& out) {
  const std::optional<std::string_view> text = value.scalar();
  if (!text) return false;
  const Result<IndexRanges> read = parse_index_ranges(*text);
  if (read.ok()) out.insert(out.end(), read->begin(), read->end());
  return read.ok();
}

}  // namespace

RecipeFields::RecipeFields(const FieldValue& map, std::string path, Problems& problems)
    : FieldReader(map, std::move(path), kWording, problems) {}

bool RecipeFields::word(std::string_view key, std::string_view expected, std::string& out,
                        Presence presence) {
  return FieldReader::word(
      key, expected, [](std::string_view text) { return !text.empty(); }, out, presence);
}

bool RecipeFields::ranges(std::string_view key, std::optional<IndexRanges>& out) {
  const std::optional<FieldValue> value = find(key);
  if (!value) return false;
  IndexRanges read;
  bool good = value->is_list() ? value->size() > 0 : add_ranges(*value, read);
  for (size_t i = 0; value->is_list() && i < value->size(); ++i) {
    good = add_ranges((*value)[i], read) && good;
  }
  if (good) {
    out = std::move(read);
  } else {
    bad(key, *value, fmt::format("numbers from 0 to {}, such as 3-60 or 1,5-7", kMaxIndex));
  }
  return good;
}

bool RecipeFields::float_dtype(std::string_view key, std::optional<DType>& out) {
  constexpr std::pair<std::string_view, DType> kNames[] = {
      {"f32", DType::kF32},     {"f16", DType::kF16},     {"bf16", DType::kBF16},
      {"float32", DType::kF32}, {"float16", DType::kF16}, {"bfloat16", DType::kBF16}};
  const std::optional<FieldValue> value = find(key);
  if (!value) return false;
  for (const auto& [name, dtype] : kNames) {
    if (value->scalar() != name) continue;
    out = dtype;
    return true;
  }
  bad(key, *value, "f32, f16 or bf16");
  return false;
}

std::optional<FieldValue> RecipeFields::items(std::string_view key, std::string_view expected,
                                              Presence presence) {
  const std::optional<FieldValue> value = list(key, expected, presence);
  if (!value || value->size() > 0) return value;
  problems().add(value->place(), wording().mismatch(path_of(key), "an empty list", expected));
  return std::nullopt;
}

}  // namespace chimera
