// AWQ as AutoAWQ stores it in version "gemm" (arXiv 2306.00978): 4 bits with zero points.
//
//   qweight I32 [inputs, outputs / 8]    a word holds 8 outputs, in the order 0 2 4 6 1 3 5 7
//   qzeros  I32 [groups, outputs / 8]    likewise
//   scales  [groups, outputs]
//
//   W[n, k] = (qweight[k, n] - qzeros[k / group, n]) * scales[k / group, n]
#include <fmt/format.h>

#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kAwqTails[] = {".qweight", ".qzeros", ".scales"};
constexpr std::string_view kAwqIgnored[] = {
    "quant_method",          "backend",          "do_fuse",
    "exllama_config",        "fuse_max_seq_len", "modules_to_fuse",
    "modules_to_not_convert"};
constexpr int kBits = 4;
constexpr int64_t kPerWord = 8;
/// Bits of output n % 8 begin at this.
constexpr int kShift[kPerWord] = {0, 16, 4, 20, 8, 24, 12, 28};

int nibble(uint32_t word, int64_t output) {
  return static_cast<int>(word >> kShift[output % kPerWord] & 15);
}

class Awq final : public Scheme {
 public:
  explicit Awq(int64_t group) : group_(group) {}

  std::string description() const override {
    return group_ < 0 ? "AWQ, 4 bits, one group per output"
                      : fmt::format("AWQ, 4 bits, groups of {}", group_);
  }
  std::span<const std::string_view> tails() const override { return kAwqTails; }

  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    const auto words = linear.require(".qweight", kWordTypes);
    const auto zeros = linear.require(".qzeros", kWordTypes);
    const auto scales = linear.require(".scales", kNumberTypes);
    for (const auto* part : {&words, &zeros, &scales}) {
      if (!part->ok()) return part->status();
    }
    if (words->shape.size() != 2 || words->shape[0] < 1 || words->shape[1] < 1 ||
        words->shape[0] > kWholeSide || words->shape[1] > kWholeSide)
      return linear.corrupt(
          *words, "has shape " + shape_string(words->shape) + ", expected [inputs, outputs / 8]");
    IntegerMatrix m;
    m.name = linear.weight_name();
    m.bits = kBits;
    m.cols = words->shape[0];
    m.rows = words->shape[1] * kPerWord;
    m.group = group_ < 0 ? m.cols : group_;
    const int64_t across = words->shape[1];
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*scales, std::array{m.groups(), m.rows}));
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*zeros, std::array{m.groups(), across}));
    m.narrow_scales = is_narrow(scales->dtype);
    m.parts = {*words, *zeros, *scales};
    m.codes = [t = *words, cols = m.cols, across](int64_t first, int64_t count, uint8_t* out) {
      for (int64_t k = 0; k < cols; ++k) {
        for (int64_t n = 0; n < count; ++n)
          out[n * cols + k] = static_cast<uint8_t>(
              nibble(word_at(t, k * across + (first + n) / kPerWord), first + n));
      }
    };
    m.scale = [t = *scales, rows = m.rows](int64_t row, int64_t g) {
      return number_at(t, g * rows + row);
    };
    m.zero = [t = *zeros, across](int64_t row, int64_t g) {
      return nibble(word_at(t, g * across + row / kPerWord), row);
    };
    return std::vector{integer_tensor(std::move(m))};
  }

 private:
  int64_t group_;  // -1: all inputs
};

}  // namespace

Result<std::unique_ptr<Scheme>> read_awq(const QuantSection& section) {
  const auto r = section.reader();
  const char* bits = r->has("w_bit") ? "w_bit" : "bits";
  if (r->required(bits, 1, 32) != kBits && r->ok()) r->refuse(bits, "4");
  const char* size = r->has("q_group_size") ? "q_group_size" : "group_size";
  const int64_t group = r->required(size, -1, kWholeSide);
  if (group == 0 && r->ok()) r->refuse(size, "-1 (one group per output) and positive numbers");
  r->refuse_unless("version", {"\"gemm\"", "\"GEMM\""}, "gemm");
  if (!r->boolean("zero_point", true)) r->refuse("zero_point", "true");
  for (const std::string_view key : kAwqIgnored) r->ignore(key);
  r->refuse_unknown();
  if (!r->ok()) return r->status();
  return std::unique_ptr<Scheme>(std::make_unique<Awq>(group));
}

}  // namespace chimera
