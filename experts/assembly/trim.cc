// Assembler::trim_threshold: the k-th largest magnitude of a difference, without sorting or keeping
// it. The bits of a double that is not negative are ordered as the number is; the wanted one is
// found 16 bits at a time, by counting.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/threads/mutex.h"
#include "experts/assembly/assembler.h"

namespace chimera {
namespace {

constexpr int kDigitBits = 16;
constexpr size_t kDigits = size_t{1} << kDigitBits;
constexpr int kLevels = 64 / kDigitBits;

}  // namespace

double Assembler::trim_threshold(const PlannedTensor& tensor, size_t parent, double density) const {
  const TensorData& base = tensor.base();
  const TensorData& other = *tensor.parents[parent];
  const int64_t rows = base.rows(), step = chunk_rows(base);
  const auto cols = static_cast<size_t>(base.cols());
  const int64_t chunks = (rows + step - 1) / step;
  // Each share of the work has counters of its own: one share per thread.
  const int64_t share = (chunks + pool_.threads() - 1) / pool_.threads();
  const auto wanted = static_cast<uint64_t>(density * static_cast<double>(base.elements()));
  uint64_t left = std::max<uint64_t>(1, wanted);
  uint64_t prefix = 0;
  for (int level = 0; level < kLevels; ++level) {
    const int shift = 64 - kDigitBits * (level + 1);
    std::vector<uint64_t> counts(kDigits, 0);
    Mutex mutex;
    pool_.parallel_for(chunks, share, [&](int64_t begin, int64_t end) {
      std::vector<uint64_t> own(kDigits, 0);
      std::vector<float> x(static_cast<size_t>(step) * cols), y(x.size());
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t first = chunk * step, last = std::min(rows, first + step);
        base.widen(first, last, x.data());
        other.widen(first, last, y.data());
        for (size_t i = 0; i < static_cast<size_t>(last - first) * cols; ++i) {
          const double tau = std::fabs(static_cast<double>(y[i]) - static_cast<double>(x[i]));
          const auto bits = std::bit_cast<uint64_t>(tau);
          if (level > 0 && bits >> (shift + kDigitBits) != prefix) continue;
          ++own[bits >> shift & (kDigits - 1)];
        }
        release(tensor, first, last);
      }
      const MutexLock lock(mutex);
      for (size_t digit = 0; digit < kDigits; ++digit) counts[digit] += own[digit];
    });
    size_t digit = kDigits - 1;
    while (digit > 0 && counts[digit] < left) left -= counts[digit--];
    prefix = prefix << kDigitBits | digit;
  }
  return std::bit_cast<double>(prefix);
}

}  // namespace chimera
