// MLX's affine quantisation, which mlx-lm writes: per group of inputs a scale and an offset.
//
//   weight U32 [outputs, inputs * bits / 32]    codes one after another in the bits of the words,
//                                               low bits first
//   scales, biases [outputs, groups]
//
//   W[n, k] = code * scales[n, k / group] + biases[n, k / group]
//
// The experts of a layer stand in stacks [experts, ...] under "switch_mlp".
#include <fmt/format.h>

#include <map>

#include "backbone/checkpoint/quantized/integer_matrix.h"
#include "backbone/checkpoint/quantized/scheme.h"

namespace chimera {
namespace {

constexpr std::string_view kMlxTails[] = {".scales", ".biases", ".weight"};
constexpr std::string_view kStack = ".switch_mlp.";

struct Kind {
  int64_t bits = 0;
  int64_t group = 0;
};

/// Rows `e` of a stack [experts, ...].
TensorView slice(const TensorView& stack, int64_t e) {
  TensorView view = stack;
  const size_t bytes = stack.bytes.size() / static_cast<size_t>(stack.shape[0]);
  view.shape.erase(view.shape.begin());
  view.bytes = stack.bytes.subspan(static_cast<size_t>(e) * bytes, bytes);
  return view;
}

/// The name of expert `e`'s matrix in a Hugging Face checkpoint.
std::string expert_name(const std::string& stem, int64_t e) {
  const size_t at = stem.find(kStack);
  std::string projection = stem.substr(at + kStack.size());
  if (stem.find(".block_sparse_moe.") != std::string::npos) {  // mixtral
    if (projection == "gate_proj") projection = "w1";
    if (projection == "down_proj") projection = "w2";
    if (projection == "up_proj") projection = "w3";
  }
  return fmt::format("{}.experts.{}.{}.weight", stem.substr(0, at), e, projection);
}

class Mlx final : public Scheme {
 public:
  Mlx(Kind kind, std::map<std::string, Kind> others) : kind_(kind), others_(std::move(others)) {}

  std::string description() const override {
    return fmt::format("MLX, {} bits, groups of {}", kind_.bits, kind_.group);
  }
  std::span<const std::string_view> tails() const override { return kMlxTails; }

  Result<std::vector<TensorView>> native(const StoredLinear& linear) const override {
    constexpr DType kWords[] = {DType::kU32};
    const auto words = linear.require(".weight", kWords);
    const auto scales = linear.require(".scales", kNumberTypes);
    const auto biases = linear.require(".biases", kNumberTypes);
    for (const auto* part : {&words, &scales, &biases}) {
      if (!part->ok()) return part->status();
    }
    const auto other = others_.find(linear.stem());
    const Kind kind = other == others_.end() ? kind_ : other->second;
    const bool stack = linear.stem().find(kStack) != std::string::npos;
    std::vector<int64_t> shape = words->shape;
    if (shape.size() != (stack ? 3u : 2u) || words->elements() < 1 || shape.back() > kWholeSide ||
        shape.back() * 32 % kind.bits != 0)
      return linear.corrupt(*words, "has shape " + shape_string(words->shape) + ", expected " +
                                        (stack ? "[experts, outputs, " : "[outputs, ") +
                                        fmt::format("inputs * {} / 32]", kind.bits));
    const int64_t cols = shape.back() * 32 / kind.bits;
    shape.back() = cols / kind.group;
    if (cols % kind.group != 0)
      return linear.corrupt(
          *words, fmt::format("has {} inputs, expected a multiple of {}", cols, kind.group));
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*scales, shape));
    CHIMERA_RETURN_IF_ERROR(linear.check_shape(*biases, shape));
    if (!stack) return std::vector{tensor(linear.weight_name(), kind, *words, *scales, *biases)};
    std::vector<TensorView> out;
    for (int64_t e = 0; e < shape[0]; ++e)
      out.push_back(tensor(expert_name(linear.stem(), e), kind, slice(*words, e), slice(*scales, e),
                           slice(*biases, e)));
    return out;
  }

 private:
  static TensorView tensor(std::string name, Kind kind, const TensorView& words,
                           const TensorView& scales, const TensorView& biases) {
    IntegerMatrix m;
    m.name = std::move(name);
    m.bits = static_cast<int>(kind.bits);
    m.rows = words.shape[0];
    m.cols = words.shape[1] * 32 / kind.bits;
    m.group = kind.group;
    m.narrow_scales = is_narrow(scales.dtype);
    m.parts = {words, scales, biases};
    const int64_t across = words.shape[1];
    m.codes = [t = words, cols = m.cols, bits = m.bits, across](int64_t first, int64_t count,
                                                                uint8_t* out) {
      const uint32_t mask = (1u << bits) - 1;
      for (int64_t row = first; row < first + count; ++row) {
        for (int64_t k = 0; k < cols; ++k, ++out) {
          const int64_t bit = k * bits;
          const int64_t at = row * across + bit / 32;
          uint32_t code = word_at(t, at) >> (bit % 32);
          if (bit % 32 + bits > 32) code |= word_at(t, at + 1) << (32 - bit % 32);
          *out = static_cast<uint8_t>(code & mask);
        }
      }
    };
    const int64_t groups = m.groups();
    m.scale = [t = scales, groups](int64_t row, int64_t g) {
      return number_at(t, row * groups + g);
    };
    m.offset = [t = biases, groups](int64_t row, int64_t g) {
      return number_at(t, row * groups + g);
    };
    return integer_tensor(std::move(m));
  }

  Kind kind_;
  std::map<std::string, Kind> others_;  // by the matrix's name
};

Kind read_kind(ConfigReader& r, Kind fallback) {
  Kind kind;
  kind.bits =
      fallback.bits > 0 ? r.integer("bits", fallback.bits, 1, 32) : r.required("bits", 1, 32);
  kind.group = fallback.group > 0 ? r.integer("group_size", fallback.group, 1, kWholeSide)
                                  : r.required("group_size", 1, kWholeSide);
  const bool known = kind.bits == 2 || kind.bits == 3 || kind.bits == 4 || kind.bits == 5 ||
                     kind.bits == 6 || kind.bits == 8;
  if (r.ok() && !known) r.refuse("bits", "2, 3, 4, 5, 6 and 8");
  if (r.ok() && kind.group % 32 != 0) r.refuse("group_size", "32, 64 and 128");
  r.refuse_unless("mode", {"\"affine\""}, "affine");
  return kind;
}

}  // namespace

Result<std::unique_ptr<Scheme>> read_mlx(const QuantSection& section) {
  const auto r = section.reader();
  const Kind kind = read_kind(*r, {});
  if (!r->ok()) return r->status();
  // Further keys are names of matrices: true, false (plain numbers), or settings of their own.
  std::map<std::string, Kind> others;
  for (const std::string& key : r->keys()) {
    if (key == "bits" || key == "group_size" || key == "mode" || !r->is_object(key)) continue;
    r->ignore(key);
    const auto inner = section.reader({key});
    others.emplace(key, read_kind(*inner, kind));
    inner->refuse_unknown();
    if (!inner->ok()) return inner->status();
  }
  for (const std::string& key : r->keys()) {
    if (r->is_boolean(key)) r->ignore(key);
  }
  r->refuse_unknown();
  if (!r->ok()) return r->status();
  return std::unique_ptr<Scheme>(std::make_unique<Mlx>(kind, std::move(others)));
}

}  // namespace chimera
