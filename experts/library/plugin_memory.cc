// chimera.memory/1 and chimera.weights/1.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "experts/library/plugin_services.h"

namespace chimera {
namespace {

constexpr uint64_t kLargestAlignment = 2 << 20;

uint32_t dtype_number(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CHIMERA_DTYPE_F32;
    case DType::kBF16:
      return CHIMERA_DTYPE_BF16;
    case DType::kF16:
      return CHIMERA_DTYPE_F16;
    case DType::kI8:
      return CHIMERA_DTYPE_I8;
    case DType::kU8:
      return CHIMERA_DTYPE_U8;
    case DType::kI32:
      return CHIMERA_DTYPE_I32;
    case DType::kI64:
      return CHIMERA_DTYPE_I64;
    default:
      return 0;
  }
}

}  // namespace

/// Adds to the account; false when the cap would be exceeded.
bool PluginHost::charge(uint64_t bytes) {
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (bytes > options_.memory_limit || used > options_.memory_limit - bytes) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

void* PluginHost::allocate(uint64_t size, uint64_t alignment, uint32_t flags) {
  if (alignment == 0) alignment = CHIMERA_ALIGNMENT;
  const bool huge = (flags & CHIMERA_MEMORY_HUGE_PAGES) != 0;
  if (size == 0 || !std::has_single_bit(alignment) || alignment > kLargestAlignment ||
      (flags & ~CHIMERA_MEMORY_HUGE_PAGES) != 0 || size > options_.memory_limit) {
    return nullptr;
  }
  alignment = std::max<uint64_t>(alignment, huge ? kLargestAlignment : CHIMERA_ALIGNMENT);
  // The cap is at most a tebibyte (kMaxMemoryMib), so rounding up cannot wrap.
  const uint64_t bytes = (size + alignment - 1) / alignment * alignment;
  if (!charge(size)) return nullptr;
  void* block = std::aligned_alloc(alignment, bytes);
  if (block == nullptr) {
    used_.fetch_sub(size);
    return nullptr;
  }
  if (huge) (void)::madvise(block, bytes, MADV_HUGEPAGE);  // a hint may be ignored
  std::memset(block, 0, bytes);
  const MutexLock guard(memory_mutex_);
  blocks_.emplace(block, size);
  return block;
}

void PluginHost::release(void* block) {
  if (block == nullptr) return;
  {
    const MutexLock guard(memory_mutex_);
    const auto found = blocks_.find(block);
    if (found != blocks_.end()) {
      used_.fetch_sub(found->second);
      blocks_.erase(found);
      std::free(block);
      return;
    }
  }
  const std::string line = "chimera.memory/1: release of a block that is none";
  write_log(CHIMERA_LOG_PLUGIN_MISBEHAVING, {line.data(), line.size()});
}

PluginHost::~PluginHost() {
  const size_t blocks = blocks_.size(), matrices = matrices_.size();
  if (blocks + matrices != 0) {
    const std::string line = fmt::format(
        "the plugin left {} blocks and {} packed matrices, {} "
        "bytes (expected none after destroy)",
        blocks, matrices, used_bytes());
    options_.runtime->log(LibraryRuntime::Severity::kWarning, options_.module, line);
  }
  for (const auto& [block, size] : blocks_) std::free(block);
  while (!matrices_.empty()) release_matrix(matrices_.begin()->first);
}

void PluginHost::fill(const TensorView& tensor, chimera_tensor* out) const {
  chimera_tensor full{};
  full.struct_size = out->struct_size;
  full.dtype = dtype_number(tensor.dtype);
  full.rank = static_cast<uint32_t>(tensor.shape.size());
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    full.shape[i] = static_cast<uint64_t>(tensor.shape[i]);
  }
  full.data_borrowed = tensor.bytes.data();
  full.byte_size = tensor.bytes.size();
  full.name = {tensor.name.data(), tensor.name.size()};
  std::memcpy(out, &full, std::min<size_t>(out->struct_size, sizeof(full)));
}

void* PluginServices::allocate(const chimera_host* host, uint64_t size, uint64_t alignment,
                               uint32_t flags) {
  return of(host).allocate(size, alignment, flags);
}

void PluginServices::release(const chimera_host* host, void* block) { of(host).release(block); }

uint64_t PluginServices::used_bytes(const chimera_host* host) { return of(host).used_bytes(); }

uint64_t PluginServices::tensor_count(const chimera_host* host) {
  const auto* tensors = of(host).options_.tensors;
  return tensors == nullptr ? 0 : tensors->size();
}

int32_t PluginServices::tensor_at(const chimera_host* host, uint64_t index, chimera_tensor* out) {
  if (out == nullptr || out->struct_size < sizeof(chimera_tensor)) return CHIMERA_INVALID_ARGUMENT;
  if (index >= tensor_count(host)) return CHIMERA_NOT_FOUND;
  const TensorView& tensor = (*of(host).options_.tensors)[index];
  if (tensor.shape.size() > CHIMERA_TENSOR_MAX_RANK || dtype_number(tensor.dtype) == 0) {
    return CHIMERA_UNIMPLEMENTED;
  }
  of(host).fill(tensor, out);
  return CHIMERA_OK;
}

int32_t PluginServices::tensor_find(const chimera_host* host, chimera_text name,
                                    chimera_tensor* out) {
  if (name.data_borrowed == nullptr) return CHIMERA_INVALID_ARGUMENT;
  const auto* tensors = of(host).options_.tensors;
  if (tensors == nullptr) return CHIMERA_NOT_FOUND;
  const std::string_view wanted(name.data_borrowed, name.size);
  const auto at =
      std::lower_bound(tensors->begin(), tensors->end(), wanted,
                       [](const TensorView& t, std::string_view n) { return t.name < n; });
  if (at == tensors->end() || at->name != wanted) return CHIMERA_NOT_FOUND;
  return tensor_at(host, static_cast<uint64_t>(at - tensors->begin()), out);
}

}  // namespace chimera
