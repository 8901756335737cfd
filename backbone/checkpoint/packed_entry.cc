#include "backbone/checkpoint/packed_entry.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "compute/tensor/packed_tensor.h"

namespace chimera {
namespace {

// Of Matrix::scale: normal numbers.
constexpr int64_t kLeastExponent = -126, kMostExponent = 127;
constexpr size_t kMatrixKeys = 3;

Status corrupt_packed(const std::string& label, const std::string& what) {
  return {Code::kDataCorrupt, label + ": __metadata__: " + std::string(kPackedKey) + ": " + what,
          "The file is broken; pack it again."};
}

std::optional<WeightFormat> packed_named(const std::string* name) {
  for (const WeightFormatInfo& info : kWeightFormats) {
    if (name != nullptr && is_packed(info.format) && info.name == *name) return info.format;
  }
  return std::nullopt;
}

/// What the entry says of one matrix.
struct PackedForm {
  DType dtype;
  std::vector<int64_t> shape;
  float scale;
};

std::optional<PackedForm> form_of(const Json& entry) {
  if (!entry.is_object() || entry.size() != kMatrixKeys) return std::nullopt;
  const auto format = packed_named(entry["format"].string());
  const auto exponent = entry["exponent"].integer();
  if (!format || !exponent || *exponent < kLeastExponent || *exponent > kMostExponent)
    return std::nullopt;
  PackedForm form{packed_type(*format), {}, std::ldexp(1.0f, static_cast<int>(*exponent))};
  const Json& shape = entry["shape"];
  if (!shape.is_array()) return std::nullopt;
  for (const Json& side : shape) {
    const auto length = side.integer();
    if (!length) return std::nullopt;
    form.shape.push_back(*length);
  }
  if (!packed_bytes(form.dtype, form.shape)) return std::nullopt;
  return form;
}

uint64_t filled_up(int64_t bytes) {
  return (static_cast<uint64_t>(bytes) + kPackedAlignment - 1) / kPackedAlignment *
         kPackedAlignment;
}

/// `t` as the bytes of that matrix.
Status apply_form(const PackedForm& form, const std::byte* image, TensorView& t,
                  const std::string& label) {
  const int64_t bytes = *packed_bytes(form.dtype, form.shape);
  if (t.dtype != DType::kU8 || t.shape.size() != 1 || t.bytes.size() != filled_up(bytes)) {
    return corrupt_packed(
        label, "tensor " + quote(t.name) + " is " + std::string(dtype_name(t.dtype)) + " " +
                   shape_string(t.shape) + " (expected U8 [" + std::to_string(filled_up(bytes)) +
                   "] for " + std::string(dtype_name(form.dtype)) + " " + shape_string(form.shape) +
                   ")");
  }
  const auto at = static_cast<uint64_t>(t.bytes.data() - image);
  if (at % kPackedAlignment != 0) {
    return corrupt_packed(label, "tensor " + quote(t.name) + " begins at byte " +
                                     std::to_string(at) + " of the file (expected a multiple of " +
                                     std::to_string(kPackedAlignment) + ")");
  }
  t.dtype = form.dtype;
  t.shape = form.shape;
  t.bytes = t.bytes.first(static_cast<size_t>(bytes));
  t.scale = form.scale;
  return {};
}

}  // namespace

Status apply_packed(const std::map<std::string, std::string>& metadata, const std::byte* image,
                    std::vector<TensorView>& tensors, const std::string& label) {
  const auto entry = metadata.find(kPackedKey);
  if (entry == metadata.end()) return {};
  const Result<Json> packed = parse_json(entry->second);
  if (!packed.ok() || !packed->is_object() || !(*packed)["layout"].integer())
    return corrupt_packed(label, "found no JSON object with the number of a layout");
  if (const int64_t layout = *(*packed)["layout"].integer(); layout != kPackedLayout) {
    return {Code::kUnimplemented,
            label + ": is packed in layout " + std::to_string(layout) + " (expected " +
                std::to_string(kPackedLayout) + ")",
            "Pack it again with this version, of what it was packed from."};
  }
  const Json& matrices = (*packed)["matrices"];
  if (!matrices.is_object() || packed->size() != 2)
    return corrupt_packed(label, "expected layout and matrices, and nothing else");
  std::unordered_map<std::string_view, TensorView*> by_name;
  for (TensorView& t : tensors) by_name.emplace(t.name, &t);
  for (const auto& [name, value] : matrices.items()) {
    const auto form = form_of(value);
    if (!form) {
      return corrupt_packed(label, "tensor " + quote(name) + ": found " +
                                       write_json(value).substr(0, 80) +
                                       " (expected format, shape [outputs, inputs] and exponent)");
    }
    const auto found = by_name.find(name);
    if (found == by_name.end()) return corrupt_packed(label, "found no tensor " + quote(name));
    CHIMERA_RETURN_IF_ERROR(apply_form(*form, image, *found->second, label));
  }
  return {};
}

uint64_t stored_packed_bytes(const TensorView& t) {
  return filled_up(packed_bytes(t.dtype, t.shape).value_or(0));
}

std::string packed_text(const std::vector<TensorView>& tensors) {
  Json matrices = Json::object();
  for (const TensorView& t : tensors) {
    if (!is_packed_type(t.dtype)) continue;
    matrices.append(t.name, Json{{"format", info_of(format_of_packed(t.dtype)).name},
                                 {"shape", t.shape},
                                 {"exponent", int64_t{std::ilogb(t.scale)}}});
  }
  if (matrices.empty()) return {};
  return write_json({{"layout", kPackedLayout}, {"matrices", std::move(matrices)}});
}

}  // namespace chimera
