#include "backbone/gguf/rearrange.h"

#include <array>
#include <cstring>
#include <string>

#include "base/quote.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"

namespace chimera {
namespace {

Status wrong_shape(const TensorView& t, const std::string& expected) {
  return {Code::kDataCorrupt, "tensor " + quote(t.name) + " has shape " + shape_string(t.shape) +
                                  ", expected " + expected};
}

Status check_shape(const TensorView& t, const std::array<int64_t, 3>& shape) {
  if (std::equal(t.shape.begin(), t.shape.end(), shape.begin(), shape.end())) return {};
  return wrong_shape(t, shape_string(shape));
}

}  // namespace

Result<TensorView> unpermute_heads(const TensorView& t, int64_t heads) {
  const int64_t rows = t.shape[0];
  if (heads < 1 || rows % (2 * heads) != 0)
    return wrong_shape(t, "an even number of rows for each of " + std::to_string(heads) + " heads");
  const int64_t half = rows / heads / 2;
  std::byte* to = nullptr;
  TensorView out = make_unset_tensor(t.name, t.dtype, t.shape, &to);
  const size_t bytes = t.bytes.size() / static_cast<size_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / (2 * half), place = row % (2 * half);
    const int64_t from = head * 2 * half + place % half * 2 + place / half;
    std::memcpy(to + static_cast<size_t>(row) * bytes,
                t.bytes.data() + static_cast<size_t>(from) * bytes, bytes);
  }
  return out;
}

Result<TensorView> widened(const TensorView& t) {
  if (t.dtype == DType::kF32) return t;
  TensorView flat = t;
  flat.shape = {t.elements()};
  const Result<std::vector<float>> values = to_f32(flat, -1);
  if (!values.ok()) return values.status();
  std::byte* to = nullptr;
  TensorView out = make_unset_tensor(t.name, DType::kF32, t.shape, &to);
  std::memcpy(to, values->data(), out.bytes.size());
  return out;
}

Result<TensorView> join_latent(const TensorView& keys, const TensorView& values,
                               const ModelConfig& config) {
  if (!config.mla) return wrong_shape(keys, "no such tensor beside q, k and v");
  const int64_t heads = config.num_heads, rank = config.mla->kv_lora_rank;
  const int64_t nope = config.mla->qk_nope_head_dim, v = config.v_head_dim;
  CHIMERA_RETURN_IF_ERROR(check_shape(keys, {heads, rank, nope}));
  CHIMERA_RETURN_IF_ERROR(check_shape(values, {heads, v, rank}));
  const bool as_stored = keys.dtype == values.dtype && !is_block_type(keys.dtype);
  const Result<TensorView> k = as_stored ? Result<TensorView>(keys) : widened(keys);
  if (!k.ok()) return k.status();
  const Result<TensorView> val = as_stored ? Result<TensorView>(values) : widened(values);
  if (!val.ok()) return val.status();
  const auto unit = static_cast<size_t>(unit_of(k->dtype).bytes);
  std::byte* to = nullptr;
  TensorView out = make_unset_tensor(keys.name, k->dtype, {heads * (nope + v), rank}, &to);
  const size_t value_bytes = static_cast<size_t>(v * rank) * unit;
  for (int64_t h = 0; h < heads; ++h) {
    const std::byte* from = k->bytes.data() + static_cast<size_t>(h * rank * nope) * unit;
    for (int64_t r = 0; r < nope; ++r) {
      for (int64_t c = 0; c < rank; ++c, to += unit)
        std::memcpy(to, from + static_cast<size_t>(c * nope + r) * unit, unit);
    }
    std::memcpy(to, val->bytes.data() + static_cast<size_t>(h) * value_bytes, value_bytes);
    to += value_bytes;
  }
  return out;
}

}  // namespace chimera
