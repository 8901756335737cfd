// limits: what the machine gives, by threads: memory read by the number of streams that each thread
// reads at once, multiply-adds, products of 8-bit integers, and the kernels' own products with
// weights that stay in the caches.
#include "rates/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "bench.h"
#include "compute/tensor/float_buffer.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"
#include "rates/rates.h"
#include "rates/report.h"

namespace chimera::bench {
namespace {

constexpr size_t kReadBytes = size_t{512} << 20;
// Parts of it that threads take by turns: many enough that one that lost its CPU is made up for.
constexpr int64_t kReadParts = 64;
constexpr size_t kPartBytes = kReadBytes / kReadParts;
// How far ahead a stream is asked for: what a read of DRAM takes at 10 GB/s and 200 ns.
constexpr size_t kAheadBytes = 2048;

using Block = uint64_t __attribute__((vector_size(32)));

/// Reads a part in S streams; what it returns depends on all of it.
template <size_t S>
uint64_t read_part(const std::byte* part) {
  constexpr size_t kLine = 64;
  const size_t stream = kPartBytes / S;
  Block sum[S] = {};
  for (size_t at = 0; at < stream; at += kLine)
    for (size_t s = 0; s < S; ++s) {
      const std::byte* line = part + s * stream + at;
      __builtin_prefetch(line + kAheadBytes);
      const auto* blocks = reinterpret_cast<const Block*>(line);
      sum[s] ^= blocks[0] ^ blocks[1];
    }
  for (size_t s = 1; s < S; ++s) sum[0] ^= sum[s];
  return sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3];
}

// A product with weights of at most half a MiB: they and the inputs stay in the second level.
constexpr int64_t kProductRows = 64, kProductOutputs = 128, kProductInputs = 1024;
constexpr double kProductFlop = 2.0 * kProductRows * kProductOutputs * kProductInputs;

}  // namespace

const Peer* peer_of(Isa isa) {
  if (isa == Isa::kAvx512) return &kPeerAvx512;
  return isa == Isa::kAvx2 ? &kPeerAvx2 : nullptr;
}

std::vector<Matrix> copies_of(const std::vector<float>& values, int64_t rows, int64_t cols,
                              WeightFormat format, int64_t count) {
  Matrix m{values.data(), WeightFormat::kF32, rows, cols, nullptr};
  std::vector<uint16_t> narrow;
  std::vector<std::byte> blocks;
  if (is_k_format(format) || is_table_format(format)) {  // the time does not depend on the numbers
    m.format = format;
    blocks.assign(m.bytes(), std::byte{0x2d});
    m.data = blocks.data();
  } else if (is_packed(format)) {
    m = *pack_matrix(m, format);
  }
  if (info_of(format).element_bytes == sizeof(uint16_t)) {
    const bool half = format == WeightFormat::kF16;
    for (const float v : values) narrow.push_back(half ? f32_to_f16(v) : f32_to_bf16(v));
    m.data = narrow.data();
    m.format = format;
  }
  std::vector<Matrix> out;
  for (int64_t c = 0; c < count; ++c) {
    const std::shared_ptr<std::byte[]> memory = allocate_weights(m.bytes());
    if (memory == nullptr) throw std::bad_alloc();
    std::memcpy(memory.get(), m.data, m.bytes());
    Matrix copy = m;
    copy.data = memory.get();
    copy.owner = memory;
    out.push_back(std::move(copy));
  }
  return out;
}

Limits::Limits(ThreadPool& pool)
    : pool_(pool),
      peer_(peer_of(best_kernels().isa)),
      // Prefetches reach beyond the end.
      memory_(allocate_weights(kReadBytes + kAheadBytes)) {
  if (memory_ == nullptr) throw std::bad_alloc();
  std::memset(memory_.get(), 1, kReadBytes + kAheadBytes);
}

template <class Body>
double Limits::timed(int64_t shares, Body body) {
  const double start = now_s();
  pool_.parallel_for(shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
  return now_s() - start;
}

double Limits::read_gbs(int streams) {
  const double seconds = timed(kReadParts, [&](int64_t part) {
    const std::byte* from = memory_.get() + static_cast<size_t>(part) * kPartBytes;
    uint64_t sum = 0;
    switch (streams) {
      case 1:
        sum = read_part<1>(from);
        break;
      case 2:
        sum = read_part<2>(from);
        break;
      case 4:
        sum = read_part<4>(from);
        break;
      default:
        sum = read_part<8>(from);
    }
    asm volatile("" ::"r"(sum));  // used, so read
  });
  return static_cast<double>(kReadBytes) / seconds / 1e9;
}

double Limits::read_gbs() {
  if (best_streams_ == 0) {
    double best = 0;
    for (const int streams : kStreams) {
      const double rate = std::max(read_gbs(streams), read_gbs(streams));
      if (rate <= best) continue;
      best = rate;
      best_streams_ = streams;
    }
  }
  return read_gbs(best_streams_);
}

double Limits::multiply_add_gflops() {
  if (peer_ == nullptr) return 0;
  constexpr int64_t kRounds = 1 << 19;
  const int64_t shares = 4 * pool_.threads();
  const double seconds = timed(shares, [&](int64_t) { peer_->multiply_add(kRounds); });
  return 2.0 * static_cast<double>(shares * kRounds * kPeerChains * peer_->lanes) / seconds / 1e9;
}

double Limits::int8_gops() {
  if (peer_ == nullptr) return 0;
  constexpr int64_t kRounds = 1 << 19;
  const int64_t shares = 4 * pool_.threads();
  const double seconds = timed(shares, [&](int64_t) { peer_->multiply_add_int8(kRounds); });
  return 2.0 * 4.0 * static_cast<double>(shares * kRounds * kPeerChains * peer_->lanes) / seconds /
         1e9;
}

double Limits::kernel_gflops(WeightFormat format) {
  constexpr int64_t kRepeats = 8;
  const std::vector<float> values(kProductOutputs * kProductInputs, 0.25f);
  const int threads = pool_.threads();
  const std::vector<Matrix> weights =
      copies_of(values, kProductOutputs, kProductInputs, format, threads);
  const FloatBuffer x(kProductRows * kProductInputs, 0.5f);
  std::vector<FloatBuffer> y(static_cast<size_t>(threads),
                             FloatBuffer(kProductRows * kProductOutputs));
  const auto run = [&](int64_t share) {
    const auto i = static_cast<size_t>(share);
    for (int64_t r = 0; r < kRepeats; ++r)
      best_kernels().matmul(x.data(), kProductRows, kProductInputs, weights[i], 0, kProductOutputs,
                            y[i].data(), kProductOutputs);
  };
  (void)timed(threads, run);
  return static_cast<double>(threads * kRepeats) * kProductFlop / timed(threads, run) / 1e9;
}

double Limits::eigen_gflops() {
  constexpr int64_t kRepeats = 8;
  const int threads = pool_.threads();
  const FloatBuffer x(kProductRows * kProductInputs, 0.5f), w(kProductOutputs * kProductInputs);
  std::vector<FloatBuffer> y(static_cast<size_t>(threads),
                             FloatBuffer(kProductRows * kProductOutputs));
  const auto run = [&](int64_t share) {
    for (int64_t r = 0; r < kRepeats; ++r)
      peer_->matmul(x.data(), w.data(), y[static_cast<size_t>(share)].data(), kProductRows,
                    kProductOutputs, kProductInputs);
  };
  (void)timed(threads, run);
  return static_cast<double>(threads * kRepeats) * kProductFlop / timed(threads, run) / 1e9;
}

double Limits::product_gflops(WeightFormat format) {
  const double own = kernel_gflops(format);
  return is_packed(format) || peer_ == nullptr ? own : std::max(own, eigen_gflops());
}

int run_limits(const std::vector<std::string>& args) {
  RateOptions o;
  if (const auto exit = parse_rates(args, Takes::kMachine, &o)) return *exit;
  ThreadPool pool(o.threads > 0 ? o.threads : auto_threads());
  Report report("limits", pool.threads());
  Limits limits(pool);
  const auto measure = [&](const std::string& name, const char* unit, auto once) {
    Figure figure{name, unit, {}, "", "", {}, {}};
    for (int r = 0; r < o.rounds; ++r) figure.samples.push_back(once());
    report.add(std::move(figure));
  };
  for (const int streams : Limits::kStreams)
    measure(fmt::format("memory read, streams {}", streams), "GB/s",
            [&] { return limits.read_gbs(streams); });
  measure("f32 multiply-add", "GFLOP/s", [&] { return limits.multiply_add_gflops(); });
  measure("int8 multiply-add", "GOP/s", [&] { return limits.int8_gops(); });
  for (const WeightFormatInfo& info : kWeightFormats)
    measure(fmt::format("product in cache, {}", info.name), "GFLOP/s",
            [&] { return limits.product_gflops(info.format); });
  report.print(o.json);
  return 0;
}

}  // namespace chimera::bench
