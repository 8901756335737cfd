// kernels: matmul y = x W^T of expert shapes, on one thread or on several.
//
// Columns: GFLOP/s; weight GB/s; the larger of what they are of these threads' own limits, the best
// of several measurements in the same run: read bandwidth (the ceiling of decoding, where every
// weight is read once per token) and f32 multiply-adds (that of long prompts; products with
// integers pass it); on one thread the ratio to Eigen's f32 product of the same shape, compiled for
// the same instruction set.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "bench.h"
#include "compute/kernels/kernels.h"
#include "compute/linear.h"
#include "compute/tensor/float_buffer.h"
#include "rates/kernels_peer.h"
#include "rates/limits.h"
#include "rates/rates.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kRepeats = 9;

struct Ceilings {
  double gbs, gflops;
};

struct ProductShape {
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

void run_shape(ThreadPool& pool, const Kernels& kernels, const Peer* peer, const ProductShape& s,
               WeightFormat format, const Ceilings& limits) {
  // Enough distinct matrices that weights come from memory, as in a model, not from cache.
  const int64_t bytes = weight_bytes(format, s.n, s.k);
  const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / bytes / (s.m > 1 ? 8 : 1));
  const auto x = random_floats(static_cast<size_t>(s.m * s.k), 1);
  const auto wf = random_floats(static_cast<size_t>(s.n * s.k), 2);
  const std::vector<Matrix> weights =
      copies_of(std::vector<float>(wf.begin(), wf.end()), s.n, s.k, format, copies);
  // The peer's weights are F32: as many of them as stay within the same memory.
  const int64_t peer_copies =
      std::max<int64_t>(1, copies * bytes / weight_bytes(WeightFormat::kF32, s.n, s.k));
  const std::vector<FloatBuffer> f32(static_cast<size_t>(peer_copies), wf);
  FloatBuffer y(static_cast<size_t>(s.m * s.n));
  const auto times = seconds_of([&] {
    for (const Matrix& w : weights) linear(kernels, pool, s.m, {{x.data(), &w, y.data()}});
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

int run_kernels(const std::vector<std::string>& args) {
  RateOptions o;
  o.threads = 1;
  if (const auto exit = parse_rates(args, Takes::kKernels, &o)) return *exit;
  ThreadPool pool(o.threads > 0 ? o.threads : auto_threads());
  const Kernels& kernels = best_kernels();
  // Eigen's product runs on one thread.
  const Peer* peer = pool.threads() == 1 ? peer_of(kernels.isa) : nullptr;
  Limits measured(pool);
  Ceilings limits{0, 0};
  for (int r = 0; r < kRepeats; ++r) {
    limits.gbs = std::max(limits.gbs, measured.read_gbs());
    limits.gflops = std::max(limits.gflops, measured.multiply_add_gflops());
  }
  if (limits.gflops == 0) limits.gflops = std::numeric_limits<double>::infinity();
  fmt::print("isa {}, {} threads: read {:.1f} GB/s, multiply and add {:.1f} GFLOP/s\n",
             kernels.name, pool.threads(), limits.gbs, limits.gflops);
  fmt::print("{:>4} {:>5} {:>5} {:>6} {:>9} {:>9} {:>8} {:>9} {:>10}\n", "m", "n", "k", "format",
             "GFLOP/s", "max/min", "GB/s", "of limit", "vs Eigen");
  for (const int64_t m : {1, 4, 16, 128}) {
    for (const ProductShape& s : {ProductShape{m, 1024, 2048}, ProductShape{m, 512, 256}}) {
      for (const WeightFormatInfo& info : kWeightFormats)
        run_shape(pool, kernels, peer, s, info.format, limits);
    }
  }
  return 0;
}

}  // namespace chimera::bench
