#include "compute/tensor/memory.h"

#include <sys/mman.h>

#include <new>

namespace chimera {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

std::shared_ptr<std::byte[]> allocate_weights(size_t bytes) {
  // Gigabytes in pages of 4 KiB take longer to fault in than to fill.
  const bool large = bytes >= 2 * kHugePage;
  const std::align_val_t alignment{large ? kHugePage : kCacheLine};
  auto* memory = static_cast<std::byte*>(::operator new[](bytes, alignment, std::nothrow));
  if (memory == nullptr) return nullptr;
  if (large) (void)::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {memory, [alignment](std::byte* p) { ::operator delete[](p, alignment); }};
}

Status no_memory(const std::string& what, size_t bytes) {
  return {Code::kResourceExhausted, what + ": no memory for " + std::to_string(bytes) + " bytes",
          "Free memory and retry."};
}

TensorView make_unset_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                             std::byte** bytes) {
  TensorView view;
  view.name = std::move(name);
  view.dtype = dtype;
  view.shape = std::move(shape);
  const std::optional<int64_t> dense = dense_bytes(dtype, view.shape);
  if (!dense) throw std::bad_alloc();
  const auto size = static_cast<size_t>(*dense);
  const std::shared_ptr<std::byte[]> memory = allocate_weights(size);
  if (memory == nullptr) throw std::bad_alloc();
  *bytes = memory.get();
  view.bytes = {memory.get(), size};
  view.owner = memory;
  return view;
}

TensorView make_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                       std::byte** bytes) {
  TensorView view = make_unset_tensor(std::move(name), dtype, std::move(shape), bytes);
  std::fill_n(*bytes, view.bytes.size(), std::byte{0});
  return view;
}

}  // namespace chimera
