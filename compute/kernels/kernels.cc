// Run-time choice among the kernel tables.
#include "compute/kernels/kernels.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <vector>

#include "compute/kernels/impl.h"
#include "compute/kernels/rank_panels.h"

namespace chimera {

bool isa_supported(Isa isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return false;
}

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kAvx512:
      return kAvx512Kernels;
    case Isa::kScalar:
      break;
  }
  return kScalarKernels;
}

ExpandRanks expand_ranks(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return kAvx2ExpandRanks;
    case Isa::kAvx512:
      return kAvx512ExpandRanks;
    case Isa::kScalar:
      break;
  }
  return kScalarExpandRanks;
}

const Kernels& best_kernels() {
  Isa most = Isa::kAvx512;
  if (const char* wish = std::getenv("CHIMERA_ISA"); wish != nullptr) {
    if (wish == kAvx2Kernels.name) most = Isa::kAvx2;
    if (wish == kScalarKernels.name) most = Isa::kScalar;
  }
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2})
    if (isa <= most && isa_supported(isa)) return kernels_for(isa);
  return kScalarKernels;
}

int64_t attention_scratch(const AttentionArgs& a) {
  const int64_t queries = std::min(a.rows * (a.heads / a.kv_heads), kAttentionQueries);
  const int64_t span = a.visible[a.rows - 1].count - a.visible[0].first;
  return queries * (kernels_impl::score_row(span) + a.head_dim + a.v_dim) +
         kernels_impl::attention_step(a) * std::max(a.head_dim, a.v_dim);
}

namespace {

/// Of this thread; 0: its rows are nobody else's.
thread_local uint64_t input_loop = 0;

}  // namespace

SharedInputs::SharedInputs(uint64_t loop) { input_loop = loop; }
SharedInputs::~SharedInputs() { input_loop = 0; }

uint64_t SharedInputs::next_loop() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

kernels_impl::PackedScratch kernels_impl::packed_scratch(const InputRows& rows, int64_t inputs) {
  // Grow to the largest product of the thread.
  thread_local std::vector<int8_t> codes;
  thread_local std::vector<float> row_scales, scales;
  thread_local std::vector<int32_t> offsets;
  thread_local std::vector<int16_t> k_sums;
  thread_local InputRows made;
  thread_local uint64_t made_in = 0;
  const bool kept = input_loop != 0 && made_in == input_loop && made == rows;
  made = rows;
  made_in = input_loop;
  const auto count = static_cast<size_t>(rows.rows * inputs);
  if (codes.size() < count) {
    codes.resize(count);
    row_scales.resize(count / kBlockInputs);
    scales.resize(count / kBlockInputs);
    offsets.resize(count / kBlockInputs);
    k_sums.resize(count / kLeastGroup);
  }
  return {codes.data(), row_scales.data(), scales.data(), offsets.data(), k_sums.data(), kept};
}

}  // namespace chimera
