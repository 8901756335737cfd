#include "backbone/checkpoint/block_types_entry.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "compute/tensor/block_types.h"

namespace chimera {
namespace {

const BlockType* type_named(const std::string* name) {
  for (const BlockType& type : block_types()) {
    if (name != nullptr && type.name == *name) return &type;
  }
  return nullptr;
}

Status corrupt_entry(const std::string& label, const std::string& what) {
  return {Code::kDataCorrupt,
          label + ": __metadata__: " + std::string(kBlockTypesKey) + ": " + what,
          "The file is broken; make it again."};
}

/// Bytes as blocks of `type`.
bool apply(const BlockType& type, TensorView& t) {
  if (t.dtype != DType::kU8 || t.shape.empty() || t.shape.back() % type.bytes != 0) return false;
  if (t.shape.back() / type.bytes > std::numeric_limits<int64_t>::max() / type.elements)
    return false;
  t.dtype = type.dtype;
  t.shape.back() = t.shape.back() / type.bytes * type.elements;
  return true;
}

}  // namespace

Status apply_block_types(const std::map<std::string, std::string>& metadata,
                         std::vector<TensorView>& tensors, const std::string& label) {
  const auto entry = metadata.find(kBlockTypesKey);
  if (entry == metadata.end()) return {};
  const Result<Json> types = parse_json(entry->second);
  if (!types.ok() || !types->is_object())
    return corrupt_entry(label, "found no JSON object of tensor names and their types");
  std::unordered_map<std::string_view, TensorView*> by_name;
  for (TensorView& t : tensors) by_name.emplace(t.name, &t);
  for (const auto& [name, value] : types->items()) {
    const BlockType* type = type_named(value.string());
    if (type == nullptr)
      return corrupt_entry(
          label, quote(name) + " is of an unknown type " + write_json(value).substr(0, 40));
    const auto found = by_name.find(name);
    if (found == by_name.end()) return corrupt_entry(label, "found no tensor " + quote(name));
    if (!apply(*type, *found->second))
      return corrupt_entry(
          label, "tensor " + quote(name) + " is " + std::string(dtype_name(found->second->dtype)) +
                     " " + shape_string(found->second->shape) + " (expected U8 with rows of " +
                     "whole blocks of " + std::string(type->name) + ")");
  }
  return {};
}

TensorView stored_form(const TensorView& tensor) {
  if (!is_block_type(tensor.dtype) || tensor.shape.empty()) return tensor;
  const DTypeUnit unit = unit_of(tensor.dtype);
  TensorView bytes = tensor;
  bytes.dtype = DType::kU8;
  bytes.shape.back() = bytes.shape.back() / unit.elements * unit.bytes;
  return bytes;
}

std::string block_types_text(const std::vector<TensorView>& tensors) {
  Json types = Json::object();
  for (const TensorView& t : tensors) {
    if (is_block_type(t.dtype)) types.append(t.name, dtype_name(t.dtype));
  }
  return types.empty() ? std::string() : write_json(types);
}

}  // namespace chimera
