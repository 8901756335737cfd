// Every instruction set against the scalar reference, bit for bit, and the scalar reference
// against double precision with bounds derived from the operands.
#include "compute/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "compute/kernels/testing.h"

namespace chimera {
namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();

class KernelsTest : public RandomOperands {};

uint16_t to_bf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

struct Weights {
  std::vector<float> f32;
  std::vector<uint16_t> narrow;  // same values when used
  Matrix matrix;
};
constexpr WeightFormat kRowMajor[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16};

Weights make_weights(std::vector<float> values, int64_t rows, int64_t cols, WeightFormat format) {
  Weights w;
  w.f32 = std::move(values);
  w.matrix.rows = rows;
  w.matrix.cols = cols;
  w.matrix.format = format;
  w.matrix.data = w.f32.data();
  if (format == WeightFormat::kF32) return w;
  const bool half = format == WeightFormat::kF16;
  for (float& v : w.f32) {
    w.narrow.push_back(half ? f32_to_f16(v) : to_bf16(v));
    v = half ? f16_to_f32(w.narrow.back()) : bf16_to_f32(w.narrow.back());
  }
  w.matrix.data = w.narrow.data();
  return w;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Shape {
  int64_t m, n, k;
};

std::vector<Shape> matmul_shapes() {
  std::vector<Shape> shapes;
  for (int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 33})
    for (int64_t n : {1, 2, 3, 4, 7, 13})
      for (int64_t k : {1, 15, 16, 17, 48, 100}) shapes.push_back({m, n, k});
  // Groups of four rows, and what is left of them; weights widened once and for every tile; several
  // tiles of weights, with the next one fetched ahead.
  // Few rows: several outputs of every stream of weight rows, and what is left of them.
  for (int64_t m : {1, 2, 6, 15, 16, 17, 18, 19, 34})
    for (int64_t k : {64, 100, 512}) shapes.push_back({m, 27, k});
  for (int64_t m : {1, 8, 37}) shapes.push_back({m, 9, 1024});  // one depth block exactly
  for (int64_t m : {1, 8, 37}) shapes.push_back({m, 9, 2051});  // three, the last one short
  return shapes;
}

TEST_F(KernelsTest, MatmulIsBitwiseEqualOnEveryInstructionSet) {
  for (const Shape& s : matmul_shapes()) {
    for (WeightFormat format : kRowMajor) {
      const int64_t ldx = s.k + between(0, 5);
      const int64_t ldy = s.n + between(0, 5);
      const std::vector<float> x = normal(s.m * ldx);
      const Weights w = make_weights(normal(s.n * s.k), s.n, s.k, format);
      const int64_t n0 = between(0, s.n - 1);
      const int64_t n1 = between(n0 + 1, s.n);
      const std::vector<float> untouched(static_cast<size_t>(s.m * ldy), -7.0f);
      std::vector<float> expected = untouched;
      kernels_for(Isa::kScalar).matmul(x.data(), s.m, ldx, w.matrix, n0, n1, expected.data(), ldy);
      for (Isa isa : vector_isas()) {
        std::vector<float> y = untouched;
        kernels_for(isa).matmul(x.data(), s.m, ldx, w.matrix, n0, n1, y.data(), ldy);
        ASSERT_TRUE(same_bits(y, expected))
            << kernels_for(isa).name << " m=" << s.m << " n=" << s.n << " k=" << s.k << " [" << n0
            << "," << n1 << ") " << info_of(format).name << " seed " << kSeed;
      }
    }
  }
}

TEST_F(KernelsTest, WeightsOfTwoBytesGiveTheBitsOfTheSameNumbersInFour) {
  std::vector<Isa> isas = vector_isas();
  isas.push_back(Isa::kScalar);
  for (const Shape& s : matmul_shapes()) {
    for (WeightFormat format : {WeightFormat::kBF16, WeightFormat::kF16}) {
      const std::vector<float> x = normal(s.m * s.k);
      // From numbers that are subnormal in half precision to the larger ones of it.
      std::vector<float> values = normal(s.n * s.k);
      for (float& v : values) v = std::ldexp(v, static_cast<int>(between(-24, 13)));
      const Weights w = make_weights(std::move(values), s.n, s.k, format);
      const Matrix wide{w.f32.data(), WeightFormat::kF32, s.n, s.k, nullptr};
      for (Isa isa : isas) {
        std::vector<float> y(static_cast<size_t>(s.m * s.n));
        std::vector<float> expected = y;
        kernels_for(isa).matmul(x.data(), s.m, s.k, w.matrix, 0, s.n, y.data(), s.n);
        kernels_for(isa).matmul(x.data(), s.m, s.k, wide, 0, s.n, expected.data(), s.n);
        ASSERT_TRUE(same_bits(y, expected))
            << kernels_for(isa).name << " m=" << s.m << " n=" << s.n << " k=" << s.k << ' '
            << info_of(format).name << " seed " << kSeed;
      }
    }
  }
}

TEST_F(KernelsTest, MatmulRowDependsOnItsOwnInputsAlone) {
  for (WeightFormat format : kRowMajor) {
    constexpr int64_t kRows = 64, kOut = 13, kIn = 1500;
    const std::vector<float> x = normal(kRows * kIn);
    const Weights w = make_weights(normal(kOut * kIn), kOut, kIn, format);
    std::vector<Isa> isas = vector_isas();
    isas.push_back(Isa::kScalar);
    for (Isa isa : isas) {
      const Kernels& kernels = kernels_for(isa);
      std::vector<float> all(kRows * kOut);
      kernels.matmul(x.data(), kRows, kIn, w.matrix, 0, kOut, all.data(), kOut);
      std::vector<float> one_by_one(kRows * kOut);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t n = 0; n < kOut; ++n)
          kernels.matmul(x.data() + r * kIn, 1, kIn, w.matrix, n, n + 1,
                         one_by_one.data() + r * kOut, kOut);
      EXPECT_TRUE(same_bits(all, one_by_one)) << kernels.name;
    }
  }
}

TEST_F(KernelsTest, MatmulWithinTheErrorOfItsSummation) {
  constexpr int64_t kOut = 5;
  for (int64_t k : {1, 16, 31, 256, 3000}) {
    const std::vector<float> x = normal(k);
    const Weights w = make_weights(normal(kOut * k), kOut, k, WeightFormat::kBF16);
    std::vector<float> y(kOut);
    kernels_for(Isa::kScalar).matmul(x.data(), 1, k, w.matrix, 0, kOut, y.data(), kOut);
    for (int64_t n = 0; n < kOut; ++n) {
      double exact = 0;
      double magnitude = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double term = static_cast<double>(x[static_cast<size_t>(i)]) *
                            static_cast<double>(w.f32[static_cast<size_t>(n * k + i)]);
        exact += term;
        magnitude += std::fabs(term);
      }
      // k/16 additions per lane and 4 folds, each rounding by at most eps/2 of the running sum.
      const double bound = (static_cast<double>(k) / 16 + 5) * kEps / 2 * magnitude;
      EXPECT_NEAR(y[static_cast<size_t>(n)], exact, bound) << "k=" << k;
    }
  }
}

TEST_F(KernelsTest, RmsNorm) {
  for (int64_t n : {1, 7, 16, 64, 100, 2048}) {
    const std::vector<float> x = normal(n, 3.0f);
    const std::vector<float> weight = normal(n);
    constexpr float kNormEps = 1e-5f;
    std::vector<float> expected(x.size());
    const Kernels& scalar = kernels_for(Isa::kScalar);
    scalar.rms_norm(x.data(), weight.data(), n, kNormEps, expected.data());
    double squares = 0;
    for (float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = static_cast<double>(weight[i]) * static_cast<double>(x[i]) * scale;
      EXPECT_NEAR(expected[i], exact, std::fabs(exact) * kEps * (8 + static_cast<double>(n) / 32));
    }
    for (Isa isa : vector_isas()) {
      std::vector<float> y = x;  // in place
      kernels_for(isa).rms_norm(y.data(), weight.data(), n, kNormEps, y.data());
      EXPECT_TRUE(same_bits(y, expected)) << kernels_for(isa).name << " n=" << n;
      std::vector<float> bare(x.size()), bare_scalar(x.size());
      kernels_for(isa).rms_norm(x.data(), nullptr, n, kNormEps, bare.data());
      scalar.rms_norm(x.data(), nullptr, n, kNormEps, bare_scalar.data());
      EXPECT_TRUE(same_bits(bare, bare_scalar)) << kernels_for(isa).name << " n=" << n;
    }
  }
}

TEST_F(KernelsTest, SwigluOverTheWholeRange) {
  std::vector<float> gate;
  for (float v = -95.0f; v <= 95.0f; v += 0.0137f) gate.push_back(v);
  for (float v : normal(501)) gate.push_back(v);
  for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f, -87.3365f, 88.7228f, -88.7229f})
    gate.push_back(v);
  const std::vector<float> up = normal(static_cast<int64_t>(gate.size()));
  std::vector<float> expected = gate;
  const int64_t n = static_cast<int64_t>(gate.size());
  kernels_for(Isa::kScalar).swiglu(expected.data(), up.data(), n);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = static_cast<double>(gate[i]);
    const double exact = g / (1.0 + std::exp(-g)) * static_cast<double>(up[i]);
    // 2 ulp of e^-x, one of each other operation; below e^-87 the engine gives 0.
    EXPECT_NEAR(expected[i], exact, std::fabs(exact) * kEps * 3 + 1e-34) << "gate " << gate[i];
  }
  for (Isa isa : vector_isas()) {
    for (int64_t offset : {0, 1, 5}) {  // other positions within a vector, short tails
      std::vector<float> y(gate.begin() + offset, gate.end());
      const std::vector<float> tail(expected.begin() + offset, expected.end());
      kernels_for(isa).swiglu(y.data(), up.data() + offset, n - offset);
      EXPECT_TRUE(same_bits(y, tail)) << kernels_for(isa).name << " offset " << offset;
    }
  }
}

TEST_F(KernelsTest, SwigluPassesNonFiniteValuesOn) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!isa_supported(isa)) continue;
    std::vector<float> gate(9, 1.0f);
    std::vector<float> up(9, 1.0f);
    gate[3] = std::numeric_limits<float>::quiet_NaN();
    gate[8] = std::numeric_limits<float>::infinity();
    kernels_for(isa).swiglu(gate.data(), up.data(), 9);
    EXPECT_TRUE(std::isnan(gate[3]));
    EXPECT_TRUE(std::isinf(gate[8]));
    EXPECT_TRUE(std::isfinite(gate[4]));
  }
}

TEST_F(KernelsTest, AxpyIsOneFusedMultiplyAdd) {
  for (int64_t n : {1, 8, 17, 100}) {
    const std::vector<float> x = normal(n);
    const std::vector<float> y = normal(n);
    std::vector<float> expected = y;
    for (size_t i = 0; i < y.size(); ++i) expected[i] = std::fma(0.37f, x[i], y[i]);
    for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      if (!isa_supported(isa)) continue;
      std::vector<float> out = y;
      kernels_for(isa).axpy(0.37f, x.data(), out.data(), n);
      EXPECT_TRUE(same_bits(out, expected)) << kernels_for(isa).name << " n=" << n;
    }
  }
}

struct AttentionCase {
  int64_t block_tokens, first, count, heads, kv_heads, head_dim;
  int64_t v_dim;
  bool sinks = false;
  bool latent = false;  // values are the first v_dim channels of the keys

  int64_t k_row() const { return kv_heads * head_dim; }
  int64_t v_row() const { return latent ? k_row() : kv_heads * v_dim; }
};

/// Keys or values by position, copied into blocks of any size.
struct Blocks {
  std::vector<std::vector<float>> memory;
  std::vector<const float*> ptr;
};

Blocks make_blocks(const AttentionCase& c, const std::vector<float>& values, int64_t row) {
  const int64_t blocks = (c.count + c.block_tokens - 1) / c.block_tokens;
  Blocks out;
  for (int64_t b = 0; b < blocks; ++b) {
    const float nan = std::numeric_limits<float>::quiet_NaN();  // reading past `count` shows
    out.memory.emplace_back(static_cast<size_t>(c.block_tokens * row), nan);
    for (int64_t t = 0; t < c.block_tokens && b * c.block_tokens + t < c.count; ++t)
      std::memcpy(out.memory.back().data() + t * row,
                  values.data() + (b * c.block_tokens + t) * row,
                  static_cast<size_t>(row) * sizeof(float));
  }
  for (const auto& block : out.memory) out.ptr.push_back(block.data());
  return out;
}

/// q [heads, head_dim], k [count, k_row], v [count, v_row], sinks [heads].
struct AttentionData {
  std::vector<float> q, k, v, sinks;
};

float case_scale(const AttentionCase& c) {
  return 1.0f / std::sqrt(static_cast<float>(c.head_dim));
}

/// Calls of attention: all rows [data.q.size() / (heads * head_dim)], of which row r sees
/// [visible[r]).
struct AttentionCall {
  const Kernels& kernels;
  std::vector<VisibleRange> visible;
  int64_t rows_together;
};

std::vector<float> run_attention(const AttentionCall& call, const AttentionCase& c,
                                 const AttentionData& data) {
  const Blocks k = make_blocks(c, data.k, c.k_row());
  const Blocks v = make_blocks(c, data.v, c.v_row());
  const auto rows = static_cast<int64_t>(call.visible.size());
  std::vector<float> out(static_cast<size_t>(rows * c.heads * c.v_dim));
  AttentionArgs args{};
  args.k = k.ptr.data();
  args.v = c.latent ? k.ptr.data() : v.ptr.data();
  args.block_tokens = c.block_tokens;
  args.heads = c.heads;
  args.kv_heads = c.kv_heads;
  args.head_dim = c.head_dim;
  args.v_dim = c.v_dim;
  args.k_stride = c.k_row();
  args.v_stride = c.v_row();
  args.scale = case_scale(c);
  args.sinks = c.sinks ? data.sinks.data() : nullptr;
  for (int64_t r = 0; r < rows; r += call.rows_together) {
    args.rows = std::min(call.rows_together, rows - r);
    args.q = data.q.data() + r * c.heads * c.head_dim;
    args.visible = call.visible.data() + r;
    args.out = out.data() + r * c.heads * c.v_dim;
    const int64_t half = c.heads / 2;
    // Exactly as much as is asked for, so that checkers of memory see what goes beyond.
    std::vector<float> scratch(static_cast<size_t>(attention_scratch(args)));
    args.scratch = scratch.data();
    call.kernels.attention(args, 0, half);
    call.kernels.attention(args, half, c.heads);
  }
  return out;
}

/// One row.
std::vector<float> run_attention(const Kernels& kernels, const AttentionCase& c,
                                 const AttentionData& data) {
  return run_attention({kernels, {{c.first, c.count}}, 1}, c, data);
}

/// Softmax attention of one head in double precision.
std::vector<double> exact_head(const AttentionCase& c, const AttentionData& data, int64_t h) {
  const int64_t kv = h / (c.heads / c.kv_heads);
  std::vector<double> p;
  double top = c.sinks ? static_cast<double>(data.sinks[static_cast<size_t>(h)]) : -1e300;
  const double sink = top;
  for (int64_t pos = c.first; pos < c.count; ++pos) {
    double s = 0;
    for (int64_t d = 0; d < c.head_dim; ++d)
      s += static_cast<double>(data.q[static_cast<size_t>(h * c.head_dim + d)]) *
           static_cast<double>(data.k[static_cast<size_t>(pos * c.k_row() + kv * c.head_dim + d)]);
    p.push_back(s * static_cast<double>(case_scale(c)));
    top = std::max(top, p.back());
  }
  double total = c.sinks ? std::exp(sink - top) : 0.0;
  for (double& s : p) total += s = std::exp(s - top);
  std::vector<double> out(static_cast<size_t>(c.v_dim), 0.0);
  for (int64_t d = 0; d < c.v_dim; ++d)
    for (int64_t pos = c.first; pos < c.count; ++pos)
      out[static_cast<size_t>(d)] +=
          p[static_cast<size_t>(pos - c.first)] / total *
          static_cast<double>(data.v[static_cast<size_t>(pos * c.v_row() + kv * c.v_dim + d)]);
  return out;
}

TEST_F(KernelsTest, AttentionEqualsSoftmaxAndIgnoresBlocksAndInstructionSet) {
  const std::vector<AttentionCase> cases = {{16, 0, 1, 4, 4, 16, 16},
                                            {16, 0, 70, 4, 2, 16, 16},
                                            {16, 3, 70, 4, 1, 64, 64},
                                            {8, 0, 129, 8, 2, 72, 72},
                                            {16, 17, 18, 2, 2, 8, 8},
                                            {16, 100, 333, 2, 1, 6, 6},
                                            {4, 0, 47, 3, 1, 128, 128},
                                            {16, 0, 512, 1, 1, 66, 66},
                                            {16, 0, 40, 4, 2, 16, 24},
                                            {8, 5, 61, 2, 2, 24, 10},
                                            {16, 0, 1, 4, 2, 16, 16, true},
                                            {16, 9, 75, 4, 2, 20, 12, true},
                                            {16, 0, 1, 3, 1, 24, 16, false, true},
                                            {8, 2, 99, 4, 1, 48, 32, false, true}};
  for (const AttentionCase& c : cases) {
    AttentionData data{normal(c.heads * c.head_dim, 2.0f), normal(c.count * c.k_row()),
                       normal(c.count * c.v_row()), normal(c.heads, 2.0f)};
    if (c.latent) data.v = data.k;
    const std::vector<float> expected = run_attention(kernels_for(Isa::kScalar), c, data);
    for (int64_t h = 0; h < c.heads; ++h) {
      const std::vector<double> exact = exact_head(c, data, h);
      for (int64_t d = 0; d < c.v_dim; ++d)
        EXPECT_NEAR(expected[static_cast<size_t>(h * c.v_dim + d)], exact[static_cast<size_t>(d)],
                    2e-5);
    }

    AttentionCase other = c;
    other.block_tokens = c.block_tokens == 16 ? 5 : 16;
    std::vector<Isa> isas = vector_isas();
    isas.push_back(Isa::kScalar);
    for (Isa isa : isas) {
      EXPECT_TRUE(same_bits(run_attention(kernels_for(isa), c, data), expected))
          << kernels_for(isa).name << " count " << c.count << " head_dim " << c.head_dim;
      EXPECT_TRUE(same_bits(run_attention(kernels_for(isa), other, data), expected))
          << kernels_for(isa).name << " other blocks, count " << c.count;
    }
  }
}

TEST_F(KernelsTest, AttentionOfManyRowsHasTheBitsOfEachAlone) {
  // block_tokens, first of the last row, count of the last row, heads, …; rows before the last see
  // one position less each. Windows of `width` positions (0: all), or chunks of them.
  struct Rows {
    AttentionCase c;
    int64_t rows, width;
    bool chunks = false;
  };
  const std::vector<Rows> cases = {{{16, 0, 70, 4, 4, 16, 16}, 70, 0},
                                   {{16, 0, 150, 4, 2, 64, 64}, 37, 0},
                                   {{8, 0, 129, 8, 2, 72, 72}, 5, 0},
                                   {{16, 0, 61, 2, 2, 24, 10}, 25, 7},
                                   {{16, 0, 333, 2, 1, 6, 6, true}, 50, 40},
                                   {{5, 0, 99, 2, 2, 128, 128}, 30, 20, true},
                                   {{16, 0, 90, 4, 2, 20, 12, true}, 3, 0},
                                   {{16, 0, 130, 60, 1, 24, 16, false, true}, 3, 0},
                                   {{8, 0, 99, 4, 1, 600, 512, false, true}, 13, 0}};
  for (const auto& [c, rows, width, chunks] : cases) {
    AttentionData data{normal(rows * c.heads * c.head_dim, 2.0f), normal(c.count * c.k_row()),
                       normal(c.count * c.v_row()), normal(c.heads, 2.0f)};
    if (c.latent) data.v = data.k;
    std::vector<VisibleRange> visible;
    for (int64_t count = c.count - rows + 1; count <= c.count; ++count) {
      int64_t first = width == 0 ? 0 : std::max<int64_t>(0, count - width);
      if (chunks) first = (count - 1) / width * width;
      visible.push_back({first, count});
    }
    const std::vector<float> expected =
        run_attention({kernels_for(Isa::kScalar), visible, 1}, c, data);
    std::vector<Isa> isas = vector_isas();
    isas.push_back(Isa::kScalar);
    for (Isa isa : isas) {
      for (int64_t together : {rows, int64_t{1}, int64_t{4}, int64_t{7}}) {
        EXPECT_TRUE(
            same_bits(run_attention({kernels_for(isa), visible, together}, c, data), expected))
            << kernels_for(isa).name << " " << together << " of " << rows << " rows, count "
            << c.count << " head_dim " << c.head_dim << " seed " << kSeed;
      }
    }
  }
}

TEST(KernelChoice, EnvironmentLowersIt) {
  ::setenv("CHIMERA_ISA", "scalar", 1);
  EXPECT_EQ(best_kernels().isa, Isa::kScalar);
  ::setenv("CHIMERA_ISA", "avx2", 1);
  EXPECT_EQ(best_kernels().isa, isa_supported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar);
  ::unsetenv("CHIMERA_ISA");
  EXPECT_TRUE(isa_supported(best_kernels().isa));
}

}  // namespace
}  // namespace chimera
