#include "bench/synth/random_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/quote.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/tensor_source.h"

namespace chimera::bench {
namespace {

static_assert(std::endian::native == std::endian::little);

// Root mean square of 1.m for a mantissa m that is anything: sqrt(7 / 3).
constexpr double kMantissaSize = 1.5275;

/// SplitMix64 (Steele, Lea, Flood 2014).
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
  }

 private:
  uint64_t state_;
};

/// Every number of a word of 64 bits: the bits that are random, and those that are the same.
struct Pattern {
  uint64_t random, fixed;
};

Pattern pattern_of(DType dtype, int exponent) {
  const auto everywhere = [](uint64_t bits, int width) {
    return width == 32 ? bits * 0x0000000100000001ull : bits * 0x0001000100010001ull;
  };
  const auto biased = [&](int bias) {
    return static_cast<uint64_t>(std::clamp(exponent + bias, 1, 2 * bias));
  };
  if (dtype == DType::kF32) return {everywhere(0x807fffffu, 32), everywhere(biased(127) << 23, 32)};
  if (dtype == DType::kBF16) return {everywhere(0x807fu, 16), everywhere(biased(127) << 7, 16)};
  return {everywhere(0x83ffu, 16), everywhere(biased(15) << 10, 16)};
}

void fill(Generator& generator, Pattern pattern, std::byte* to, size_t bytes) {
  for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
    const uint64_t word = (generator.next() & pattern.random) | pattern.fixed;
    std::memcpy(to + at, &word, std::min(sizeof(word), bytes - at));
  }
}

void put_half(double value, std::byte* to) {
  const uint16_t half = f32_to_f16(static_cast<float>(value));
  std::memcpy(to, &half, sizeof(half));
}

/// Puts scales into a block of random codes so that its weights have the root mean square `size`.
/// The divisors are that of the codes: of n equally likely integers around zero sqrt((n^2 - 1) /
/// 12), times the group scales below.
void set_scales(DType dtype, double size, std::byte* block) {
  constexpr std::byte kGroup{32};  // of 6 or 8 bits
  switch (dtype) {
    case DType::kQ8_0:
      return put_half(size / 73.9, block);
    case DType::kQ4_0:
      return put_half(size / 4.61, block);
    case DType::kQ4_K:
      // Scales and minima of 6 bits, the upper two of the last four beside those of the first.
      std::fill_n(block + 4, 8, kGroup | std::byte{0x80});
      std::fill_n(block + 12, 4, std::byte{0});
      put_half(size / 4.61 / 32, block);
      return put_half(7.5 * size / 4.61 / 32, block + 2);
    case DType::kQ6_K:
      std::fill_n(block + 192, 16, kGroup);
      return put_half(size / 18.5 / 32, block + 208);
    default:  // MXFP4: a power of two; E2M1 has the root mean square 2.93
      *block = static_cast<std::byte>(127 + static_cast<int>(std::lround(std::log2(size / 2.93))));
  }
}

class RandomSource final : public TensorSource {
 public:
  /// `size`: root mean square of the numbers.
  RandomSource(DType dtype, std::vector<uint64_t> seeds, int64_t elements, double size)
      : dtype_(dtype), seeds_(std::move(seeds)), elements_(elements), size_(size) {}

  Status make(std::byte* to) const override {
    const DTypeUnit unit = unit_of(dtype_);
    const auto bytes = static_cast<size_t>(elements_ / unit.elements * unit.bytes);
    const bool blocks = is_block_type(dtype_);
    const Pattern pattern =
        blocks
            ? Pattern{~uint64_t{0}, 0}
            : pattern_of(dtype_, static_cast<int>(std::lround(std::log2(size_ / kMantissaSize))));
    for (const uint64_t seed : seeds_) {
      Generator generator(seed);
      fill(generator, pattern, to, bytes);
      for (size_t at = 0; blocks && at < bytes; at += static_cast<size_t>(unit.bytes))
        set_scales(dtype_, size_, to + at);
      to += bytes;
    }
    return {};
  }
  std::span<const TensorView> parts() const override { return {}; }

 private:
  const DType dtype_;
  const std::vector<uint64_t> seeds_;
  const int64_t elements_;  // of one
  const double size_;
};

class OnesSource final : public TensorSource {
 public:
  OnesSource(DType dtype, int64_t n) : dtype_(dtype), n_(n) {}

  Status make(std::byte* to) const override {
    const float one = 1.0f;
    const uint16_t narrow = dtype_ == DType::kF16 ? f32_to_f16(one) : f32_to_bf16(one);
    for (int64_t i = 0; i < n_; ++i) {
      if (dtype_ == DType::kF32)
        std::memcpy(to + i * 4, &one, 4);
      else
        std::memcpy(to + i * 2, &narrow, 2);
    }
    return {};
  }
  std::span<const TensorView> parts() const override { return {}; }

 private:
  const DType dtype_;
  const int64_t n_;
};

}  // namespace

DType dtype_of(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return DType::kF32;
    case StoredType::kF16:
      return DType::kF16;
    case StoredType::kBF16:
      return DType::kBF16;
    case StoredType::kQ8_0:
      return DType::kQ8_0;
    case StoredType::kQ4_0:
      return DType::kQ4_0;
    case StoredType::kQ4_K:
      return DType::kQ4_K;
    case StoredType::kQ6_K:
      return DType::kQ6_K;
    case StoredType::kMXFP4:
      return DType::kMXFP4;
  }
  return DType::kF32;
}

namespace {

Result<TensorView> random_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                                 std::vector<uint64_t> seeds, double size) {
  const int64_t rows = shape[shape.size() - 2], cols = shape.back();
  if (!dense_bytes(dtype, shape)) {
    return Status(Code::kInvalidArgument,
                  "tensor " + quote(name) + ": rows of " + std::to_string(cols) +
                      " weights (expected a multiple of " +
                      std::to_string(unit_of(dtype).elements) + " for " +
                      std::string(dtype_name(dtype)) + ")",
                  "Choose another --type, or another shape.");
  }
  return unmade_tensor(std::move(name), dtype, std::move(shape),
                       std::make_shared<RandomSource>(dtype, std::move(seeds), rows * cols, size));
}

}  // namespace

double even_size(int64_t inputs) { return 1.0 / std::sqrt(static_cast<double>(inputs)); }

Result<TensorView> random_matrix(std::string name, DType dtype, uint64_t seed, int64_t rows,
                                 int64_t cols, double size) {
  return random_tensor(std::move(name), dtype, {rows, cols}, {seed}, size);
}

Result<TensorView> random_stack(std::string name, DType dtype, std::vector<uint64_t> seeds,
                                int64_t rows, int64_t cols, double size) {
  const auto count = static_cast<int64_t>(seeds.size());
  return random_tensor(std::move(name), dtype, {count, rows, cols}, std::move(seeds), size);
}

TensorView ones(std::string name, DType dtype, int64_t n) {
  return unmade_tensor(std::move(name), dtype, {n}, std::make_shared<OnesSource>(dtype, n));
}

TensorView random_vector(std::string name, DType dtype, uint64_t seed, int64_t n) {
  constexpr double kBiasSize = 0.02;
  return unmade_tensor(
      std::move(name), dtype, {n},
      std::make_shared<RandomSource>(dtype, std::vector<uint64_t>{seed}, n, kBiasSize));
}

uint64_t seed_of(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull ^ seed;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace chimera::bench
