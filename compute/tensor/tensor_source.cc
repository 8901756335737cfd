#include "compute/tensor/tensor_source.h"

#include "base/quote.h"
#include "compute/tensor/memory.h"

namespace chimera {

TensorView unmade_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                         std::shared_ptr<const TensorSource> source) {
  TensorView out;
  const auto bytes = static_cast<size_t>(dense_bytes(dtype, shape).value_or(0));
  out.name = std::move(name);
  out.dtype = dtype;
  out.shape = std::move(shape);
  // Sizes are asked for everywhere; who reads without loading first is to be noticed at once.
  out.bytes = {static_cast<const std::byte*>(nullptr), bytes};
  out.source = std::move(source);
  return out;
}

Result<TensorView> loaded(const TensorView& t) {
  if (t.source == nullptr) return t;
  const std::shared_ptr<std::byte[]> memory = allocate_weights(t.bytes.size());
  if (memory == nullptr) return no_memory("tensor " + quote(t.name), t.bytes.size());
  CHIMERA_RETURN_IF_ERROR(t.source->make(memory.get()));
  TensorView out = t;
  out.source = nullptr;
  out.bytes = {memory.get(), t.bytes.size()};
  out.owner = memory;
  return out;
}

}  // namespace chimera
