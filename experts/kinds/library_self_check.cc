// self_test: what a library module must do before anybody's tokens reach it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "experts/kinds/library_module.h"

namespace chimera {
namespace {

// A few rows: enough to see a row depend on its neighbours.
constexpr int64_t kRows = 5;

/// Values as hidden states have them: both signs, around 1. A fixed sequence (PCG's multiplier).
std::vector<float> test_rows(int64_t count) {
  std::vector<float> rows(static_cast<size_t>(count));
  uint64_t state = 42;
  for (float& v : rows) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<int32_t>(state >> 32)) / 1073741824.0f;
  }
  return rows;
}

class SelfTest {
 public:
  SelfTest(LibraryBackend& backend, const LibrarySource& source)
      : backend_(backend),
        hidden_(source.hidden_size),
        label_("module " + source.module + ": self-test"),
        x_(test_rows(kRows * hidden_)),
        context_{best_kernels(), pool_, scratch_} {}

  Status run(int64_t layer, int64_t expert) {
    const std::string where = fmt::format("{}, layer {}, expert {}", label_, layer, expert);
    std::vector<float> first, again, alone;
    CHIMERA_RETURN_IF_ERROR(forward(layer, expert, kRows, &first).with_context(where));
    // NaN marks what was not written, so this is also the check that all of y was.
    if (!std::all_of(first.begin(), first.end(), [](float v) { return std::isfinite(v); })) {
      return {Code::kDataCorrupt,
              where +
                  ": found outputs that are not finite, or not written (expected numbers in "
                  "every value of y)"};
    }
    if (!backend_.info().bitwise) return {};
    CHIMERA_RETURN_IF_ERROR(forward(layer, expert, kRows, &again).with_context(where));
    if (!same(first, again, first.size())) {
      return {Code::kDataCorrupt,
              where +
                  ": found another result on repetition (expected the same bits, as it "
                  "declares determinism bitwise)"};
    }
    CHIMERA_RETURN_IF_ERROR(forward(layer, expert, 1, &alone).with_context(where));
    if (!same(first, alone, alone.size())) {
      return {Code::kDataCorrupt,
              where +
                  ": found a row that depends on its neighbours (expected the same bits alone "
                  "and in a batch, as it declares determinism bitwise)"};
    }
    return {};
  }

  Status too_long(int64_t layer, int64_t expert) const {
    return {Code::kDeadlineExceeded,
            fmt::format("{}: found it at layer {}, expert {} when the time to load was up "
                        "(expected an end within libraries.max_load_ms of the deployment)",
                        label_, layer, expert)};
  }

 private:
  Status forward(int64_t layer, int64_t expert, int64_t rows, std::vector<float>* y) {
    y->assign(static_cast<size_t>(rows * hidden_), std::numeric_limits<float>::quiet_NaN());
    return backend_.forward(layer, expert, x_.data(), rows, y->data(), context_);
  }

  static bool same(const std::vector<float>& a, const std::vector<float>& b, size_t n) {
    return std::memcmp(a.data(), b.data(), n * sizeof(float)) == 0;
  }

  LibraryBackend& backend_;
  const int64_t hidden_;
  const std::string label_;
  const std::vector<float> x_;
  ThreadPool pool_{1};
  FloatBuffer scratch_;
  ExpertContext context_;
};

}  // namespace

Status self_test(LibraryBackend& backend, const LibrarySource& source,
                 std::chrono::steady_clock::time_point limit) {
  SelfTest test(backend, source);
  for (const auto& [layer, count] : source.experts) {
    for (int64_t expert = 0; expert < count; ++expert) {
      CHIMERA_RETURN_IF_ERROR(test.run(layer, expert));
      if (std::chrono::steady_clock::now() > limit) return test.too_long(layer, expert);
    }
  }
  return {};
}

}  // namespace chimera
