// GPTQ as AutoGPTQ and GPTQModel store it (arXiv 2210.17323): 4 or 8 bits.
//
//   qweight I32 [inputs * bits / 32, outputs]            a word holds 32 / bits inputs, low bits
//   first qzeros  I32 [groups, outputs * bits / 32]            likewise, outputs; stored less one
//   in files
//                                                        of format "gptq" (version 1)
//   scales  [groups, outputs]
//   g_idx   I32 [inputs]                                 the group of every input (desc_act)
//
//   W[n, k] = (qweight[k, n] - zero[g(k), n]) * scales[g(k), n]
#include <fmt/format.h>

#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kGptqTails[] = {".qweight", ".qzeros", ".scales", ".g_idx"};
// How the weights were made, and how other engines are to run them.
constexpr std::string_view kGptqIgnored[] = {"quant_method",
                                             "backend",
                                             "batch_size",
                                             "block_name_to_quantize",
                                             "cache_block_outputs",
                                             "damp_auto_increment",
                                             "damp_percent",
                                             "dataset",
                                             "disable_exllama",
                                             "exllama_config",
                                             "lm_head",
                                             "max_input_length",
                                             "meta",
                                             "model_file_base_name",
                                             "model_name_or_path",
                                             "model_seqlen",
                                             "module_name_preceding_first_block",
                                             "modules_in_block_to_quantize",
                                             "modules_to_not_convert",
                                             "mse",
                                             "pad_token_id",
                                             "static_groups",
                                             "tokenizer",
                                             "true_sequential",
                                             "use_cuda_fp16",
                                             "use_exllama"};

class Gptq final : public Scheme {
 public:
  Gptq(int bits, int64_t group, bool symmetric, bool act_order, int zero_offset)
      : bits_(bits),
        group_(group),
        symmetric_(symmetric),
        act_order_(act_order),
        zero_offset_(zero_offset) {}

  std::string description() const override {
    return fmt::format("GPTQ, {} bits, {}{}{}", bits_,
                       group_ < 0 ? "one group per output" : fmt::format("groups of {}", group_),
                       symmetric_ ? "" : ", zero points", act_order_ ? ", desc_act" : "");
  }
  std::span<const std::string_view> tails() const override { return kGptqTails; }

  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    const auto words = linear.require(".qweight", kWordTypes);
    const auto zeros = linear.require(".qzeros", kWordTypes);
    const auto scales = linear.require(".scales", kNumberTypes);
    for (const auto* part : {&words, &zeros, &scales}) {
      if (!part->ok()) return part->status();
    }
    const int64_t per_word = 32 / bits_;
    if (words->shape.size() != 2 || words->shape[0] < 1 || words->shape[1] < 1 ||
        words->shape[0] > kWholeSide || words->shape[1] > kWholeSide)
      return linear.corrupt(*words, "has shape " + shape_string(words->shape) +
                                        ", expected [inputs * bits / 32, outputs]");
    IntegerMatrix m;
    m.name = linear.weight_name();
    m.bits = bits_;
    m.rows = words->shape[1];
    m.cols = words->shape[0] * per_word;
    m.group = group_ < 0 ? m.cols : group_;
    if (m.rows % per_word != 0)
      return linear.corrupt(
          *words, fmt::format("has {} outputs, expected a multiple of {}", m.rows, per_word));
    const int64_t zero_words = m.rows / per_word;
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*scales, std::array{m.groups(), m.rows}));
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*zeros, std::array{m.groups(), zero_words}));
    CHIMERA_RETURN_IF_ERROR(read_order(linear, m));
    m.symmetric = symmetric_;
    m.narrow_scales = is_narrow(scales->dtype);
    m.parts.insert(m.parts.end(), {*words, *zeros, *scales});
    const int bits = bits_, add = zero_offset_;
    const uint32_t mask = (1u << bits) - 1;
    m.codes = [t = *words, cols = m.cols, rows = m.rows, bits, per_word, mask](
                  int64_t first, int64_t count, uint8_t* out) {
      for (int64_t k = 0; k < cols; k += per_word) {
        for (int64_t n = 0; n < count; ++n) {
          const uint32_t word = word_at(t, k / per_word * rows + first + n);
          for (int64_t i = 0; i < per_word; ++i)
            out[n * cols + k + i] = static_cast<uint8_t>(word >> (bits * i) & mask);
        }
      }
    };
    m.scale = [t = *scales, rows = m.rows](int64_t row, int64_t g) {
      return number_at(t, g * rows + row);
    };
    m.zero = [t = *zeros, zero_words, bits, per_word, mask, add](int64_t row, int64_t g) {
      const uint32_t word = word_at(t, g * zero_words + row / per_word);
      return static_cast<int>(word >> (bits * (row % per_word)) & mask) + add;
    };
    return std::vector{integer_tensor(std::move(m))};
  }

 private:
  /// g_idx counts whether desc_act is stated or not; in the plain order it says nothing new.
  Status read_order(const StoredLinear& linear, IntegerMatrix& m) const {
    if (!linear.has(".g_idx")) {
      if (!act_order_) return {};
      return linear.require(".g_idx", kWordTypes).status();
    }
    const auto order = linear.require(".g_idx", kWordTypes);
    if (!order.ok()) return order.status();
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*order, std::array{m.cols}));
    m.parts.push_back(*order);
    bool plain = true;
    for (int64_t k = 0; k < m.cols && plain; ++k)
      plain = static_cast<int64_t>(word_at(*order, k)) == k / m.group;
    if (!plain) m.group_of = *order;
    return {};
  }

  int bits_;
  int64_t group_;  // -1: all inputs
  bool symmetric_;
  bool act_order_;
  int zero_offset_;
};

}  // namespace

Result<std::unique_ptr<Scheme>> read_gptq(const QuantSection& section) {
  const auto r = section.reader();
  const int64_t bits = r->required("bits", 1, 32);
  if (r->ok() && bits != 4 && bits != 8) r->refuse("bits", "4 and 8");
  const int64_t group = r->has("group_size") ? r->integer("group_size", 0, -1, kWholeSide) : -1;
  if (r->ok() && group == 0)
    r->refuse("group_size", "-1 (one group per output) and positive numbers");
  const bool symmetric = r->boolean("sym", true);
  const bool act_order = r->boolean("desc_act", false);
  const std::string format = r->text("checkpoint_format", r->text("format", "gptq"));
  (void)r->text("format", "");
  if (format != "gptq" && format != "gptq_v2")
    r->refuse(r->has("checkpoint_format") ? "checkpoint_format" : "format", "gptq and gptq_v2");
  r->refuse_unless("is_marlin_format", {}, "false");
  r->refuse_unless("pack_dtype", {"\"int32\""}, "int32");
  r->refuse_unless("dynamic", {"{}"}, "one number of bits for all matrices");
  for (const std::string_view key : kGptqIgnored) r->ignore(key);
  r->refuse_unknown();
  if (!r->ok()) return r->status();
  return std::unique_ptr<Scheme>(std::make_unique<Gptq>(static_cast<int>(bits), group, symmetric,
                                                        act_order, format == "gptq" ? 1 : 0));
}

}  // namespace chimera
