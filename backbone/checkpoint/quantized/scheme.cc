#include "backbone/checkpoint/quantized/scheme.h"

#include <algorithm>
#include <array>

#include "base/quote.h"

namespace chimera {
namespace {

constexpr const char* kHint = "Get the config.json and the weights that belong together.";

}  // namespace

std::unique_ptr<ConfigReader> QuantSection::reader(
    std::initializer_list<std::string_view> inside) const {
  auto reader = std::make_unique<ConfigReader>(config_json, label);
  for (const std::string& key : path) reader->descend(key);
  for (const std::string_view key : inside) reader->descend(key);
  return reader;
}

const TensorView* StoredLinear::find(std::string_view tail) const {
  const auto at = parts_.find(tail);
  return at == parts_.end() ? nullptr : &at->second;
}

Result<TensorView> StoredLinear::require(std::string_view tail,
                                         std::span<const DType> dtypes) const {
  const TensorView* part = find(tail);
  if (part == nullptr)
    return Status(Code::kDataCorrupt, label_ + ": lacks tensor " + quote(stem_ + std::string(tail)),
                  kHint);
  if (std::find(dtypes.begin(), dtypes.end(), part->dtype) != dtypes.end()) return *part;
  std::string expected;
  for (const DType dtype : dtypes)
    expected += (expected.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  return corrupt(*part,
                 "is stored as " + std::string(dtype_name(part->dtype)) + ", expected " + expected);
}

Status StoredLinear::only(std::span<const std::string_view> tails) const {
  for (const auto& [tail, part] : parts_) {
    if (std::find(tails.begin(), tails.end(), tail) == tails.end())
      return corrupt(part, "does not belong to weights of this kind");
  }
  return {};
}

Status StoredLinear::corrupt(const TensorView& part, const std::string& what) const {
  return {Code::kDataCorrupt, label_ + ": tensor " + quote(part.name) + " " + what, kHint};
}

Status StoredLinear::check_shape(const TensorView& part, std::span<const int64_t> shape) const {
  if (std::equal(shape.begin(), shape.end(), part.shape.begin(), part.shape.end())) return {};
  return corrupt(part,
                 "has shape " + shape_string(part.shape) + ", expected " + shape_string(shape));
}

std::span<const std::string_view> Scheme::unused_tails() const { return {}; }

std::span<const SchemeEntry> quant_schemes() {
  static constexpr std::array kSchemes{SchemeEntry{"awq", read_awq},
                                       SchemeEntry{"compressed-tensors", read_compressed_tensors},
                                       SchemeEntry{"fp8", read_fp8}, SchemeEntry{"gptq", read_gptq},
                                       SchemeEntry{"modelopt", read_modelopt}};
  return kSchemes;
}

}  // namespace chimera
