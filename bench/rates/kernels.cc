// kernels: matmul y = x W^T of expert shapes, one thread.
//
// Columns: GFLOP/s; weight GB/s; the larger of what they are of the thread's own limits, measured
// in the same run: read bandwidth (the ceiling of decoding, where every weight is read once per
// token) and fused multiply-adds (that of long prompts); ratio to Eigen's f32 product of the same
// shape, compiled for the same instruction set.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "bench.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/float_buffer.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"
#include "kernels_peer.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kRepeats = 9;
// Larger than any last-level cache of the machines this runs on, so that reads come from memory.
constexpr int64_t kBandwidthBytes = int64_t{512} << 20;

/// Reads of `kBandwidthBytes` in `streams` streams, 32 bytes at a time, as the kernels read
/// weights.
double read_bandwidth(size_t streams) {
  using Block = uint64_t __attribute__((vector_size(32)));
  constexpr size_t kMostStreams = 8;
  // Streams a power of two apart would meet in the same few sets of the caches.
  constexpr size_t kSkew = 67;
  const size_t blocks = kBandwidthBytes / sizeof(Block);
  std::vector<Block> data(blocks + kMostStreams * kSkew, Block{1, 2, 3, 4});
  std::vector<double> rates;
  uint64_t total = 0;
  for (int r = 0; r < kRepeats; ++r) {
    const size_t part = blocks / streams;
    Block sum[kMostStreams] = {};
    const double start = now_s();
    for (size_t i = 0; i < part; ++i)
      for (size_t s = 0; s < streams; ++s) sum[s] ^= data[s * (part + kSkew) + i];
    rates.push_back(static_cast<double>(kBandwidthBytes) / (now_s() - start) / 1e9);
    for (const Block& s : sum) total += s[0];
  }
  if (total == 1) fmt::print("\n");  // the sums are used, so the reads stay
  return spread(rates).median;
}

/// GFLOP/s of independent fused multiply-adds that stay in registers.
double multiply_add_rate(const Peer& peer) {
  constexpr int64_t kRounds = 1 << 22;
  std::vector<double> rates;
  for (int r = 0; r < kRepeats; ++r) {
    const double start = now_s();
    peer.multiply_add(kRounds);
    rates.push_back(2.0 * static_cast<double>(kRounds * kPeerChains * peer.lanes) /
                    (now_s() - start) / 1e9);
  }
  return spread(rates).median;
}

/// Null where neither is supported: then there is no ratio to Eigen and no limit of arithmetic.
const Peer* peer_of(Isa isa) {
  if (isa == Isa::kAvx512) return &kPeerAvx512;
  return isa == Isa::kAvx2 ? &kPeerAvx2 : nullptr;
}

struct Limits {
  double gbs, gflops;
};

struct Shape {
  int64_t m, n, k;
};

FloatBuffer random_floats(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> dist(-1.0f, 1.0f);
  FloatBuffer out(n);
  for (float& v : out) v = dist(rng);
  return out;
}

template <class F>
Spread seconds_of(F&& f) {
  f();  // warm-up
  std::vector<double> times;
  for (int r = 0; r < kRepeats; ++r) {
    const double start = now_s();
    f();
    times.push_back(now_s() - start);
  }
  return spread(times);
}

/// `count` matrices of the same numbers in a format, each in memory of its own.
std::vector<Matrix> copies_of(const std::vector<float>& values, const Shape& s, WeightFormat format,
                              int64_t count) {
  Matrix m{values.data(), WeightFormat::kF32, s.n, s.k, nullptr};
  std::vector<uint16_t> narrow;
  std::vector<std::byte> blocks;
  if (is_k_format(format) || is_table_format(format)) {  // the time does not depend on the numbers
    m.format = format;
    blocks.assign(m.bytes(), std::byte{0x2d});
    m.data = blocks.data();
  } else if (is_packed(format)) {
    m = *pack_matrix(m, format);
  }
  if (format == WeightFormat::kBF16) {
    for (const float v : values) narrow.push_back(f32_to_bf16(v));
    m.data = narrow.data();
    m.format = format;
  }
  std::vector<Matrix> out;
  for (int64_t c = 0; c < count; ++c) {
    const std::shared_ptr<std::byte[]> memory = allocate_weights(m.bytes());
    std::memcpy(memory.get(), m.data, m.bytes());
    Matrix copy = m;
    copy.data = memory.get();
    copy.owner = memory;
    out.push_back(std::move(copy));
  }
  return out;
}

void run_shape(const Kernels& kernels, const Peer* peer, const Shape& s, WeightFormat format,
               const Limits& limits) {
  // Enough distinct matrices that weights come from memory, as in a model, not from cache.
  const int64_t bytes = weight_bytes(format, s.n, s.k);
  const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / bytes / (s.m > 1 ? 8 : 1));
  const auto x = random_floats(static_cast<size_t>(s.m * s.k), 1);
  const auto wf = random_floats(static_cast<size_t>(s.n * s.k), 2);
  const std::vector<Matrix> weights =
      copies_of(std::vector<float>(wf.begin(), wf.end()), s, format, copies);
  // The peer's weights are F32: as many of them as stay within the same memory.
  const int64_t peer_copies =
      std::max<int64_t>(1, copies * bytes / weight_bytes(WeightFormat::kF32, s.n, s.k));
  const std::vector<FloatBuffer> f32(static_cast<size_t>(peer_copies), wf);
  FloatBuffer y(static_cast<size_t>(s.m * s.n));
  const auto times = seconds_of([&] {
    for (const Matrix& w : weights) kernels.matmul(x.data(), s.m, s.k, w, 0, s.n, y.data(), s.n);
  });
  const auto peer_times = seconds_of([&] {
    for (size_t c = 0; c < f32.size() && peer != nullptr; ++c)
      peer->matmul(x.data(), f32[c].data(), y.data(), s.m, s.n, s.k);
  });
  const double flop = 2.0 * static_cast<double>(s.m * s.n * s.k);
  const double gflops = flop * static_cast<double>(copies) / times.median / 1e9;
  const double gbs = static_cast<double>(bytes * copies) / times.median / 1e9;
  const double share = std::max(gbs / limits.gbs, gflops / limits.gflops);
  const double peer_gflops = flop * static_cast<double>(peer_copies) / peer_times.median / 1e9;
  fmt::print("{:>4} {:>5} {:>5} {:>6} {:>9.1f} {:>8.2f}x {:>8.2f} {:>8.0f}% {:>10}\n", s.m, s.n,
             s.k, info_of(format).name, gflops, times.max / times.min, gbs, 100.0 * share,
             peer != nullptr ? fmt::format("{:.2f}x", gflops / peer_gflops) : "-");
}

}  // namespace

int run_kernels(const std::vector<std::string>&) {
  const Kernels& kernels = best_kernels();
  const Peer* peer = peer_of(kernels.isa);
  const Limits limits{
      std::max({read_bandwidth(1), read_bandwidth(4), read_bandwidth(8)}),
      peer != nullptr ? multiply_add_rate(*peer) : std::numeric_limits<double>::infinity()};
  fmt::print("isa {}; one thread reads {:.1f} GB/s", kernels.name, limits.gbs);
  if (peer != nullptr) fmt::print(" and multiplies and adds {:.1f} GFLOP/s", limits.gflops);
  fmt::print("\n");
  fmt::print("{:>4} {:>5} {:>5} {:>6} {:>9} {:>9} {:>8} {:>9} {:>10}\n", "m", "n", "k", "format",
             "GFLOP/s", "max/min", "GB/s", "of limit", "vs Eigen");
  for (const int64_t m : {1, 4, 16, 128}) {
    for (const Shape& s : {Shape{m, 1024, 2048}, Shape{m, 512, 256}}) {
      for (const WeightFormatInfo& info : kWeightFormats)
        run_shape(kernels, peer, s, info.format, limits);
    }
  }
  return 0;
}

}  // namespace chimera::bench
