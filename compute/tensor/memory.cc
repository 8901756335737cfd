#include "backbone/weight_memory.h"

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

}  // namespace chimera
