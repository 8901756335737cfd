// What NVIDIA's Model Optimizer exports: FP8 with one scale per matrix, and NVFP4.
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kFp8Tails[] = {".weight_scale", ".weight",  ".input_scale",
                                          ".k_scale",      ".v_scale", ".q_scale"};
constexpr std::string_view kNvfp4Tails[] = {".weight_scale_2", ".weight_scale", ".weight",
                                            ".input_scale",    ".k_scale",      ".v_scale",
                                            ".q_scale"};
constexpr std::string_view kModeloptUnused[] = {".input_scale", ".k_scale", ".v_scale", ".q_scale"};
constexpr std::string_view kModeloptIgnored[] = {
    "quant_method",  "producer",        "exclude_modules",     "ignore",
    "config_groups", "kv_cache_scheme", "kv_cache_quant_algo", "modules_to_not_convert"};

class ModelOpt final : public Scheme {
 public:
  explicit ModelOpt(bool nvfp4) : nvfp4_(nvfp4) {}

  std::string description() const override {
    return nvfp4_ ? "NVFP4 of ModelOpt" : "FP8 of ModelOpt, one scale per matrix";
  }
  std::span<const std::string_view> tails() const override {
    return nvfp4_ ? std::span<const std::string_view>(kNvfp4Tails) : kFp8Tails;
  }
  std::span<const std::string_view> unused_tails() const override { return kModeloptUnused; }
  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    if (nvfp4_)
      return nvfp4_tensors(linear, ".weight", ".weight_scale_2", GlobalScale::kMultiplies);
    return fp8_tensors(linear, ".weight_scale", *fp8_block());
  }
  std::optional<BlockShape> fp8_block() const override {
    if (nvfp4_) return std::nullopt;
    return BlockShape{kWholeSide, kWholeSide};
  }

 private:
  bool nvfp4_;
};

}  // namespace

Result<std::unique_ptr<Scheme>> read_modelopt(const QuantSection& section) {
  const auto r = section.reader();
  const std::string algorithm = r->text("quant_algo", "");
  if (algorithm != "FP8" && algorithm != "NVFP4") r->refuse("quant_algo", "FP8 and NVFP4");
  if (algorithm == "NVFP4" && r->integer("group_size", 16, 1, kWholeSide) != 16)
    r->refuse("group_size", "16");
  r->ignore("group_size");
  for (const std::string_view key : kModeloptIgnored) r->ignore(key);
  r->refuse_unknown();
  if (!r->ok()) return r->status();
  return std::unique_ptr<Scheme>(std::make_unique<ModelOpt>(algorithm == "NVFP4"));
}

}  // namespace chimera
