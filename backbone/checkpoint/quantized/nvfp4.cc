// NVFP4: E2M1 codes, two in a byte and the first in its low half, an E4M3 scale per 16 inputs and
// one F32 number per matrix.
#include <cstring>

#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

constexpr int64_t kBlock = 16;
constexpr int64_t kCodeBytes = kBlock / 2;
constexpr std::string_view kScales = ".weight_scale";

class Nvfp4Source final : public TensorSource {
 public:
  Nvfp4Source(TensorView codes, TensorView scales, TensorView global, GlobalScale use)
      : parts_{std::move(codes), std::move(scales), std::move(global)}, use_(use) {}

  std::span<const TensorView> parts() const override { return parts_; }

  Status make(std::byte* to) const override {
    const float global = number_at(parts_[2], 0);
    const std::byte* codes = parts_[0].bytes.data();
    for (const std::byte stored : parts_[1].bytes) {
      const float own = f8e4m3_to_f32(std::to_integer<uint8_t>(stored));
      const float scale = use_ == GlobalScale::kDivides ? own / global : own * global;
      std::memcpy(to, &scale, sizeof(scale));
      std::memcpy(to + sizeof(scale), codes, kCodeBytes);
      codes += kCodeBytes;
      to += sizeof(scale) + kCodeBytes;
    }
    return {};
  }

 private:
  std::array<TensorView, 3> parts_;
  GlobalScale use_;
};

}  // namespace

Result<std::vector<TensorView>> nvfp4_tensors(const StoredLinear& linear,
                                              std::string_view codes_tail,
                                              std::string_view global_tail, GlobalScale use) {
  constexpr DType kBytes[] = {DType::kU8};
  constexpr DType kFp8[] = {DType::kF8E4M3};
  constexpr DType kFloat[] = {DType::kF32};
  auto codes = linear.require(codes_tail, kBytes);
  auto scales = linear.require(kScales, kFp8);
  auto global = linear.require(global_tail, kFloat);
  for (const auto* part : {&codes, &scales, &global}) {
    if (!part->ok()) return part->status();
  }
  if (codes->shape.size() != 2 || codes->shape[1] % kCodeBytes != 0 || codes->elements() < 1)
    return linear.corrupt(*codes, "has shape " + shape_string(codes->shape) +
                                      ", expected [outputs, inputs / 2] with inputs a multiple of "
                                      "16");
  const int64_t rows = codes->shape[0], cols = codes->shape[1] * 2;
  CHIMERA_RETURN_IF_ERROR(linear.check_shape(*scales, std::array{rows, cols / kBlock}));
  if (global->elements() != 1)
    return linear.corrupt(*global, "has shape " + shape_string(global->shape) + ", expected [1]");
  return std::vector{
      unmade_tensor(linear.weight_name(), DType::kNVFP4, {rows, cols},
                    std::make_shared<Nvfp4Source>(std::move(*codes), std::move(*scales),
                                                  std::move(*global), use))};
}

}  // namespace chimera
