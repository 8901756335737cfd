// compressed-tensors, which llm-compressor writes: FP8, int8, packed int4 and int8, and NVFP4.
//
//   float-quantized        weight F8_E4M3, weight_scale per matrix, output or block
//   int-quantized          weight I8 [outputs, inputs], weight_scale per output or matrix
//   pack-quantized         weight_packed I32 [outputs, inputs * bits / 32], low bits first, codes
//                          plus 2^(bits - 1); weight_scale [outputs, groups]; weight_shape [2]
//                          weight_zero_point: packed likewise along the outputs, or I8
//                          weight_g_idx I32 [inputs]: the group of every input (actorder "group")
//   nvfp4-pack-quantized   see nvfp4.cc; weight_global_scale divides
//
// A configuration may hold several groups of settings, by names of matrices; whose settings a
// matrix has is seen from its tensors, and they must be those of one of the groups.
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "backbone/checkpoint/quantized/compressed_config.h"
#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kCompressedUnused[] = {
    ".input_scale",        ".input_zero_point", ".output_scale", ".output_zero_point",
    ".input_global_scale", ".k_scale",          ".v_scale",      ".q_scale"};

/// weight_shape, two numbers.
Result<std::array<int64_t, 2>> stated_shape(const StoredLinear& linear) {
  constexpr DType kTypes[] = {DType::kI64, DType::kI32};
  const auto part = linear.require(".weight_shape", kTypes);
  if (!part.ok()) return part.status();
  CHIMERA_RETURN_IF_ERROR(linear.check_shape(*part, std::array{int64_t{2}}));
  std::array<int64_t, 2> out{};
  if (part->dtype == DType::kI64) {
    std::memcpy(out.data(), part->bytes.data(), sizeof(out));
  } else {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<int32_t>(word_at(*part, static_cast<int64_t>(i)));
  }
  for (const int64_t side : out) {
    if (side < 1 || side > kWholeSide * 32)
      return linear.corrupt(
          *part, fmt::format("says [{}, {}], expected [outputs, inputs]", out[0], out[1]));
  }
  return out;
}

class CompressedTensors final : public Scheme {
 public:
  explicit CompressedTensors(CompressedConfig config)
      : form_(config.form), groups_(std::move(config.groups)) {}

  std::string description() const override {
    std::string out = "compressed-tensors ";
    const std::array names{"FP8", "int8", "packed integers", "NVFP4"};
    out += names[static_cast<size_t>(form_)];
    for (const CompressedSettings& s : groups_) out += ", " + s.text();
    return out;
  }
  std::span<const std::string_view> tails() const override {
    static constexpr std::string_view kWeight[] = {
        ".weight_scale",     ".weight",       ".weight_zero_point", ".input_scale",
        ".input_zero_point", ".output_scale", ".output_zero_point", ".k_scale",
        ".v_scale",          ".q_scale"};
    static constexpr std::string_view kPacked[] = {
        ".weight_packed",     ".weight_scale",      ".weight_zero_point", ".weight_shape",
        ".weight_g_idx",      ".input_scale",       ".input_zero_point",  ".output_scale",
        ".k_scale",           ".v_scale",           ".q_scale",           ".weight_global_scale",
        ".output_zero_point", ".input_global_scale"};
    const bool packed = form_ == CompressedForm::kPacked || form_ == CompressedForm::kNvfp4;
    return packed ? std::span<const std::string_view>(kPacked) : kWeight;
  }
  std::span<const std::string_view> unused_tails() const override { return kCompressedUnused; }
  std::optional<BlockShape> fp8_block() const override {
    if (form_ != CompressedForm::kFp8) return std::nullopt;
    return groups_.front().fp8_block();
  }

  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    switch (form_) {
      case CompressedForm::kFp8: {
        constexpr std::string_view kParts[] = {".weight", ".weight_scale"};
        CHIMERA_RETURN_IF_ERROR(linear.only(kParts));
        return fp8_tensors(linear, ".weight_scale", *fp8_block());
      }
      case CompressedForm::kInt8:
        return whole_bytes(linear);
      case CompressedForm::kPacked:
        return packed(linear);
      case CompressedForm::kNvfp4: {
        constexpr std::string_view kParts[] = {".weight_packed", ".weight_scale",
                                               ".weight_global_scale"};
        CHIMERA_RETURN_IF_ERROR(linear.only(kParts));
        return nvfp4_tensors(linear, ".weight_packed", ".weight_global_scale",
                             GlobalScale::kDivides);
      }
    }
    return Status(Code::kInternal, "no such form");
  }

 private:
  /// Fills in group and scales by the settings that fit, or says why none does.
  Status fit(const StoredLinear& linear, const TensorView& scales, int64_t codes,
             IntegerMatrix& m) const {
    const bool zeros = linear.has(".weight_zero_point");
    for (const CompressedSettings& s : groups_) {
      const int64_t group = s.group == 0 ? m.cols : s.group;
      const int64_t groups = (m.cols + group - 1) / group;
      const bool one = s.strategy == "tensor";
      const bool shape = one ? scales.elements() == 1
                             : scales.shape == std::vector<int64_t>{m.rows, groups} ||
                                   (groups == 1 && scales.shape == std::vector<int64_t>{m.rows});
      const bool size = codes == 0 || codes == (m.cols * s.bits + 31) / 32;
      if (!shape || !size || s.symmetric == zeros) continue;
      m.bits = static_cast<int>(s.bits);
      m.group = group;
      m.symmetric = s.symmetric;
      m.narrow_scales = is_narrow(scales.dtype);
      m.scale = [t = scales, groups, one](int64_t row, int64_t g) {
        return number_at(t, one ? 0 : row * groups + g);
      };
      return {};
    }
    return linear.corrupt(scales, fmt::format("has shape {} for [{}, {}] {} zero points, which no "
                                              "group of the configuration has",
                                              shape_string(scales.shape), m.rows, m.cols,
                                              zeros ? "with" : "without"));
  }

  /// Zero points beside codes from 0 on.
  static Status read_zeros(const StoredLinear& linear, IntegerMatrix& m) {
    const int middle = 1 << (m.bits - 1);
    m.zero = [middle](int64_t, int64_t) { return middle; };
    if (m.symmetric) return {};
    constexpr DType kTypes[] = {DType::kI8, DType::kI32};
    const auto part = linear.require(".weight_zero_point", kTypes);
    if (!part.ok()) return part.status();
    m.parts.push_back(*part);
    const int64_t groups = m.groups();
    if (part->dtype == DType::kI8) {
      const bool one = part->elements() == 1;
      if (!one) CHIMERA_RETURN_IF_ERROR(linear.check_shape(*part, std::array{m.rows, groups}));
      m.zero = [t = *part, groups, one, middle](int64_t row, int64_t g) {
        const auto at = static_cast<size_t>(one ? 0 : row * groups + g);
        return std::to_integer<int8_t>(t.bytes[at]) + middle;
      };
      return {};
    }
    const int64_t per_word = 32 / m.bits;
    CHIMERA_RETURN_IF_ERROR(
        linear.check_shape(*part, std::array{(m.rows + per_word - 1) / per_word, groups}));
    const uint32_t mask = (1u << m.bits) - 1;
    m.zero = [t = *part, groups, per_word, mask, bits = m.bits](int64_t row, int64_t g) {
      return static_cast<int>(word_at(t, row / per_word * groups + g) >> (bits * (row % per_word)) &
                              mask);
    };
    return {};
  }

  Result<std::vector<TensorView>> whole_bytes(const StoredLinear& linear) const {
    constexpr std::string_view kParts[] = {".weight", ".weight_scale", ".weight_zero_point"};
    CHIMERA_RETURN_IF_ERROR(linear.only(kParts));
    constexpr DType kBytes[] = {DType::kI8};
    const auto weight = linear.require(".weight", kBytes);
    const auto scales = linear.require(".weight_scale", kNumberTypes);
    if (!weight.ok()) return weight.status();
    if (!scales.ok()) return scales.status();
    if (weight->shape.size() != 2 || weight->elements() < 1)
      return linear.corrupt(
          *weight, "has shape " + shape_string(weight->shape) + ", expected [outputs, inputs]");
    IntegerMatrix m;
    m.name = linear.weight_name();
    m.rows = weight->shape[0];
    m.cols = weight->shape[1];
    m.parts = {*weight, *scales};
    CHIMERA_RETURN_IF_ERROR(fit(linear, *scales, 0, m));
    CHIMERA_RETURN_IF_ERROR(read_zeros(linear, m));
    m.codes = [t = *weight, cols = m.cols](int64_t first, int64_t count, uint8_t* out) {
      const auto* from = reinterpret_cast<const uint8_t*>(t.bytes.data()) + first * cols;
      for (int64_t i = 0; i < count * cols; ++i) out[i] = from[i] ^ 0x80u;  // plus 128
    };
    return std::vector{integer_tensor(std::move(m))};
  }

  Result<std::vector<TensorView>> packed(const StoredLinear& linear) const {
    constexpr std::string_view kParts[] = {".weight_packed", ".weight_scale", ".weight_zero_point",
                                           ".weight_shape", ".weight_g_idx"};
    CHIMERA_RETURN_IF_ERROR(linear.only(kParts));
    const auto words = linear.require(".weight_packed", kWordTypes);
    const auto scales = linear.require(".weight_scale", kNumberTypes);
    const auto shape = stated_shape(linear);
    if (!words.ok()) return words.status();
    if (!scales.ok()) return scales.status();
    if (!shape.ok()) return shape.status();
    IntegerMatrix m;
    m.name = linear.weight_name();
    m.rows = (*shape)[0];
    m.cols = (*shape)[1];
    if (words->shape.size() != 2 || words->shape[0] != m.rows)
      return linear.corrupt(*words,
                            "has shape " + shape_string(words->shape) +
                                fmt::format(", expected [{}, {} * bits / 32]", m.rows, m.cols));
    const int64_t across = words->shape[1];
    m.parts = {*words, *scales};
    CHIMERA_RETURN_IF_ERROR(fit(linear, *scales, across, m));
    CHIMERA_RETURN_IF_ERROR(read_zeros(linear, m));
    if (linear.has(".weight_g_idx")) {
      const auto order = linear.require(".weight_g_idx", kWordTypes);
      if (!order.ok()) return order.status();
      CHIMERA_RETURN_IF_ERROR(linear.check_shape(*order, std::array{m.cols}));
      m.parts.push_back(*order);
      m.group_of = *order;
    }
    m.codes = [t = *words, cols = m.cols, across, bits = m.bits](int64_t first, int64_t count,
                                                                 uint8_t* out) {
      const int64_t per_word = 32 / bits;
      const uint32_t mask = (1u << bits) - 1;
      for (int64_t row = first; row < first + count; ++row) {
        for (int64_t k = 0; k < cols; ++k)
          *out++ = static_cast<uint8_t>(
              word_at(t, row * across + k / per_word) >> (bits * (k % per_word)) & mask);
      }
    };
    return std::vector{integer_tensor(std::move(m))};
  }

  CompressedForm form_;
  std::vector<CompressedSettings> groups_;  // at least one; FP8: all with the same blocks
};

}  // namespace

Result<std::unique_ptr<Scheme>> read_compressed_tensors(const QuantSection& section) {
  Result<CompressedConfig> config = read_compressed_config(section);
  if (!config.ok()) return config.status();
  return std::unique_ptr<Scheme>(std::make_unique<CompressedTensors>(std::move(*config)));
}

}  // namespace chimera
