// FP8 as transformers and DeepSeek store it: E4M3 weights with one scale per block of rows and
// columns ("weight_scale_inv", which multiplies in spite of its name), or one per matrix.
#include <fmt/format.h>

#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kBlockTails[] = {".weight_scale_inv", ".weight", ".input_scale",
                                            ".activation_scale"};
constexpr std::string_view kMatrixTails[] = {".weight_scale", ".weight", ".input_scale",
                                             ".activation_scale"};
constexpr std::string_view kFp8Unused[] = {".input_scale", ".activation_scale"};
constexpr std::string_view kFp8Ignored[] = {"quant_method", "ignored_layers",
                                            "modules_to_not_convert", "dequantize"};

class Fp8 final : public Scheme {
 public:
  explicit Fp8(std::optional<BlockShape> block) : block_(block) {}

  std::string description() const override {
    return block_ ? fmt::format("FP8, blocks of {} x {}", block_->rows, block_->cols)
                  : "FP8, one scale per matrix";
  }
  std::span<const std::string_view> tails() const override {
    return block_ ? std::span<const std::string_view>(kBlockTails) : kMatrixTails;
  }
  std::span<const std::string_view> unused_tails() const override { return kFp8Unused; }
  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    return fp8_tensors(linear, tails().front(), *fp8_block());
  }
  std::optional<BlockShape> fp8_block() const override {
    return block_.value_or(BlockShape{kWholeSide, kWholeSide});
  }

 private:
  std::optional<BlockShape> block_;
};

}  // namespace

Result<std::vector<TensorView>> fp8_tensors(const StoredLinear& linear, std::string_view scale_tail,
                                            BlockShape block) {
  constexpr DType kFp8[] = {DType::kF8E4M3};
  const auto weight = linear.require(".weight", kFp8);
  auto scale = linear.require(scale_tail, kNumberTypes);
  if (!weight.ok()) return weight.status();
  if (!scale.ok()) return scale.status();
  if (weight->shape.size() != 2)
    return linear.corrupt(
        *weight, "has shape " + shape_string(weight->shape) + ", expected [outputs, inputs]");
  const std::vector<int64_t> want{block.scale_rows(weight->shape[0]),
                                  block.scale_cols(weight->shape[1])};
  // One number may stand without dimensions, one per row without the second of them.
  if (scale->elements() != want[0] * want[1] || (scale->shape != want && scale->elements() != 1 &&
                                                 scale->shape != std::vector<int64_t>{want[0]}))
    return linear.corrupt(
        *scale, "has shape " + shape_string(scale->shape) + ", expected " + shape_string(want));
  scale->shape = want;
  scale->name = linear.weight_name() + "_scale_inv";
  return std::vector{*weight, *scale};
}

Result<std::unique_ptr<Scheme>> read_fp8(const QuantSection& section) {
  const auto r = section.reader();
  r->refuse_unless("fmt", {"\"e4m3\""}, "e4m3");
  r->refuse_unless("activation_scheme", {"\"dynamic\"", "\"static\""}, "dynamic and static");
  // UE8M0: scales that are powers of two, stored as any others.
  r->refuse_unless("scale_fmt", {"\"ue8m0\"", "\"float\"", "\"fp32\""}, "ue8m0 and float");
  std::optional<BlockShape> block;
  if (const auto size = r->integers("weight_block_size", 1, kWholeSide)) {
    if (size->size() == 2) {
      block = BlockShape{(*size)[0], (*size)[1]};
    } else {
      r->refuse("weight_block_size", "two numbers, such as [128, 128]");
    }
  }
  for (const std::string_view key : kFp8Ignored) r->ignore(key);
  r->refuse_unknown();
  if (!r->ok()) return r->status();
  return std::unique_ptr<Scheme>(std::make_unique<Fp8>(block));
}

}  // namespace chimera
