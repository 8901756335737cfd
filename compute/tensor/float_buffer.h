// Scratch memory of forward passes: vectors of floats that begin at a cache line.
//
// Thread safety: as std::vector.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace chimera {

/// Allocates at multiples of 64 bytes, a cache line and an AVX-512 register: a load of 16 floats
/// that crosses a line takes two, which cost matrix products up to a fifth of their speed.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};

  LineAllocator() = default;
  template <class U>
  explicit LineAllocator(const LineAllocator<U>&) {}

  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kAlignment)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kAlignment); }
  bool operator==(const LineAllocator&) const = default;
};

using FloatBuffer = std::vector<float, LineAllocator<float>>;

}  // namespace chimera
