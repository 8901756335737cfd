// kernels: matmul y = x W^T of expert shapes, one thread.
//
// Columns: GFLOP/s; weight GB/s and its fraction of the read bandwidth measured in the same run
// (the ceiling of decoding, where every weight is read once per token); ratio to Eigen's f32
// product of the same shape.
#include <fmt/format.h>

#include <Eigen/Dense>
#include <cstdint>
#include <random>
#include <vector>

#include "backbone/kernels.h"
#include "bench.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kRepeats = 9;
// Larger than any last-level cache of the machines this runs on, so that reads come from memory.
constexpr int64_t kBandwidthBytes = int64_t{512} << 20;

/// Reads of `kBandwidthBytes` in eight streams, 32 bytes at a time, as the kernels read weights.
double read_bandwidth() {
  using Block = uint64_t __attribute__((vector_size(32)));
  const size_t blocks = kBandwidthBytes / sizeof(Block);
  std::vector<Block> data(blocks, Block{1, 2, 3, 4});
  std::vector<double> rates;
  uint64_t total = 0;
  for (int r = 0; r < kRepeats; ++r) {
    const size_t part = blocks / 8;
    Block sum[8] = {};
    const double start = now_s();
    for (size_t i = 0; i < part; ++i)
      for (size_t s = 0; s < 8; ++s) sum[s] ^= data[s * part + i];
    rates.push_back(static_cast<double>(kBandwidthBytes) / (now_s() - start) / 1e9);
    for (const Block& s : sum) total += s[0];
  }
  if (total == 1) fmt::print("\n");  // the sums are used, so the reads stay
  return spread(rates).median;
}

struct Shape {
  int64_t m, n, k;
};

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> dist(-1.0f, 1.0f);
  std::vector<float> out(n);
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

void run_shape(const Kernels& kernels, const Shape& s, DType dtype, double bandwidth) {
  // Enough distinct matrices that weights come from memory, as in a model, not from cache.
  const int64_t element = dtype == DType::kF32 ? 4 : 2;
  const int64_t copies =
      std::max<int64_t>(1, (int64_t{256} << 20) / (s.n * s.k * element) / (s.m > 1 ? 8 : 1));
  const auto x = random_floats(static_cast<size_t>(s.m * s.k), 1);
  const auto wf = random_floats(static_cast<size_t>(s.n * s.k), 2);
  std::vector<std::vector<uint16_t>> bf16;
  std::vector<std::vector<float>> f32;
  for (int64_t c = 0; c < copies; ++c) {
    if (dtype == DType::kF32) {
      f32.push_back(wf);
    } else {
      std::vector<uint16_t> b(wf.size());
      for (size_t i = 0; i < b.size(); ++i) b[i] = f32_to_bf16(wf[i]);
      bf16.push_back(std::move(b));
    }
  }
  std::vector<float> y(static_cast<size_t>(s.m * s.n));
  const auto times = seconds_of([&] {
    for (int64_t c = 0; c < copies; ++c) {
      Matrix w;
      w.dtype = dtype;
      w.rows = s.n;
      w.cols = s.k;
      w.data = dtype == DType::kF32 ? static_cast<const void*>(f32[static_cast<size_t>(c)].data())
                                    : static_cast<const void*>(bf16[static_cast<size_t>(c)].data());
      kernels.matmul(x.data(), s.m, s.k, w, 0, s.n, y.data(), s.n);
    }
  });
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> ex(x.data(), s.m, s.k);
  const Eigen::Map<const RowMajor> ew(wf.data(), s.n, s.k);
  Eigen::Map<RowMajor> ey(y.data(), s.m, s.n);
  const int64_t peer_copies = std::max<int64_t>(1, copies / 4);
  const auto peer = seconds_of([&] {
    for (int64_t c = 0; c < peer_copies; ++c) ey.noalias() = ex * ew.transpose();
  });
  const double flop = 2.0 * static_cast<double>(s.m * s.n * s.k);
  const double gflops = flop * static_cast<double>(copies) / times.median / 1e9;
  const double peer_gflops = flop * static_cast<double>(peer_copies) / peer.median / 1e9;
  const double gbs = static_cast<double>(s.n * s.k * element * copies) / times.median / 1e9;
  fmt::print("{:>4} {:>5} {:>5} {:>5} {:>9.1f} {:>8.2f}x {:>8.2f} {:>8.0f}% {:>9.2f}x\n", s.m, s.n,
             s.k, dtype_name(dtype), gflops, times.max / times.min, gbs, 100.0 * gbs / bandwidth,
             gflops / peer_gflops);
}

}  // namespace

int run_kernels(const std::vector<std::string>&) {
  const double bandwidth = read_bandwidth();
  const Kernels& kernels = best_kernels();
  fmt::print("isa {}; read bandwidth, one thread, 8 streams: {:.1f} GB/s\n", kernels.name,
             bandwidth);
  fmt::print("{:>4} {:>5} {:>5} {:>5} {:>9} {:>9} {:>8} {:>9} {:>10}\n", "m", "n", "k", "dtype",
             "GFLOP/s", "max/min", "GB/s", "of limit", "vs Eigen");
  for (const Shape& s : {Shape{1, 1024, 2048}, Shape{1, 512, 256}, Shape{16, 1024, 2048},
                         Shape{16, 512, 256}, Shape{128, 1024, 2048}, Shape{128, 512, 256}}) {
    run_shape(kernels, s, DType::kF32, bandwidth);
    run_shape(kernels, s, DType::kBF16, bandwidth);
  }
  return 0;
}

}  // namespace chimera::bench
