// Group D: forward and the memory it is lent.
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "check/cases/case.h"
#include "check/instance.h"

namespace chimera::check {
namespace {

/// An open plugin with a started instance.
struct Setup {
  explicit Setup(Context& context) : plugin(context), host(context), instance(plugin, host) {}
  Problem start(uint32_t wanted_rows, uint32_t workers = 4) {
    if (auto problem = plugin.open()) return problem;
    rows = usable_rows(plugin.descriptor(), wanted_rows);
    experts = some_experts(plugin.context(), plugin.descriptor());
    return instance.start(rows, workers);
  }
  Matrix input(uint32_t n) { return random_rows(plugin.context(), n, plugin.descriptor().d_model); }

  Plugin plugin;
  Host host;
  Instance instance;
  uint32_t rows = 0;
  std::vector<Shape> experts;
};

/// forward with a count of rows that must work.
Problem must_compute(Setup& s, const Shape& shape, uint32_t n) {
  const Outcome out = s.instance.run(s.input(n), shape);
  if (out.status == CHIMERA_OK) return std::nullopt;
  return fail("{}, {} rows: forward returned {} (expected ok).", place(shape), n,
              status_text(out.status, s.host));
}

/// forward that must be refused with invalid_argument.
Problem must_refuse(Setup& s, const Shape& shape, uint32_t n, const std::string& what) {
  const Outcome out = s.instance.run(s.input(n), shape);
  if (out.status == CHIMERA_INVALID_ARGUMENT) return std::nullopt;
  return fail("{}: forward returned {} (expected 1, invalid_argument).", what,
              status_text(out.status, s.host));
}

Problem refusals(Setup& s) {
  const auto& d = s.plugin.descriptor();
  const Shape known = s.experts.front();
  if (auto problem = must_refuse(
          s, known, s.rows + 1, fmt::format("{} rows where {} is the limit", s.rows + 1, s.rows))) {
    return problem;
  }
  std::vector<uint32_t> layers;
  for (uint64_t i = 0; i < d.layer_count; ++i) layers.push_back(d.layers_borrowed[i].layer);
  uint32_t unknown = 0;
  while (std::find(layers.begin(), layers.end(), unknown) != layers.end()) ++unknown;
  for (const uint32_t layer : {unknown, UINT32_MAX}) {
    Shape shape = known;
    shape.layer = layer;
    if (auto p =
            must_refuse(s, shape, 1, fmt::format("layer {}, which it does not serve", layer))) {
      return p;
    }
  }
  for (const uint32_t expert : {d.layers_borrowed[0].expert_count, UINT32_MAX}) {
    Shape shape = known;
    shape.layer = d.layers_borrowed[0].layer;
    shape.expert = expert;
    if (auto p = must_refuse(s, shape, 1,
                             fmt::format("expert {} of {} in layer {}", expert,
                                         d.layers_borrowed[0].expert_count, shape.layer))) {
      return p;
    }
  }
  return std::nullopt;
}

/// The first value of y that still has the bits `fill`; SIZE_MAX: none.
size_t unwritten(const Matrix& y, uint32_t fill) {
  for (size_t i = 0; i < y.values.size(); ++i) {
    if (std::bit_cast<uint32_t>(y.values[i]) == fill) return i;
  }
  return SIZE_MAX;
}

/// Bounds and overwriting for one expert and row count: guard pages on either side, two fills.
Problem output_of(Setup& s, const Shape& base, uint32_t n) {
  constexpr uint32_t kFills[] = {0x7fa5a5a5, 0x3f9d70a4};  // a NaN, 1.23
  const Matrix x = s.input(n);
  Matrix first;
  for (const uint32_t fill : kFills) {
    for (const Flush flush : {Flush::kEnd, Flush::kBegin}) {
      Shape shape = base;
      shape.fill = fill;
      shape.flush = flush;
      const Outcome out = s.instance.run(x, shape);
      if (out.status != CHIMERA_OK) return skip("forward failed, see case 26.");
      const size_t at = unwritten(out.y, fill);
      if (at != SIZE_MAX) {
        return fail("{}, {} rows: row {} column {} is not written.", place(base), n, at / x.cols,
                    at % x.cols);
      }
      if (first.values.empty()) first = out.y;
      if (auto text = difference(s.plugin.descriptor(), first, out.y); !text.empty()) {
        return fail("{}: the output depends on what was in y before: {}.", place(base), text);
      }
    }
  }
  return std::nullopt;
}

/// Rows of y behind the last must stay as they were, although they are not guarded.
Problem rows_behind(Setup& s, const Shape& shape) {
  const uint32_t n = std::max(1u, s.rows / 2);
  if (n == s.rows) return std::nullopt;
  const Matrix x = s.input(s.rows);
  Batch batch(s.plugin.descriptor(), x, shape);
  chimera_expert_batch fewer = *batch.abi();
  fewer.n_rows = n;
  if (s.instance.forward(&fewer) != CHIMERA_OK) return skip("forward failed, see case 26.");
  const Matrix y = batch.y();
  for (size_t i = uint64_t{n} * y.cols; i < y.values.size(); ++i) {
    if (std::bit_cast<uint32_t>(y.values[i]) != shape.fill) {
      return fail("{}: {} rows were asked for and row {} was written.", place(shape), n,
                  i / y.cols);
    }
  }
  return std::nullopt;
}

}  // namespace

Finding check_row_counts(Context& context) {
  Setup s(context);
  if (auto problem = s.start(UINT32_MAX)) return *problem;
  const uint32_t odd = s.rows > 2 ? (s.rows / 2) | 1u : 1u;
  for (const Shape& shape : s.experts) {
    for (const uint32_t n : {0u, 1u}) {
      if (auto problem = must_compute(s, shape, n)) return *problem;
    }
  }
  for (const uint32_t n : {std::min(odd, s.rows), s.rows}) {
    if (auto problem = must_compute(s, s.experts.front(), n)) return *problem;
  }
  if (auto problem = refusals(s)) return *problem;
  return pass("0, 1, {} and {} rows, {} experts; refused {} rows and unknown layers and experts.",
              std::min(odd, s.rows), s.rows, s.experts.size(), s.rows + 1);
}

Finding check_output_bounds(Context& context) {
  Setup s(context);
  if (auto problem = s.start(33)) return *problem;
  for (const Shape& shape : s.experts) {
    for (const uint32_t n : {1u, std::min(2u, s.rows), s.rows}) {
      if (auto problem = output_of(s, shape, n)) return *problem;
    }
  }
  if (auto problem = rows_behind(s, s.experts.front())) return *problem;
  return pass("{} experts: every value written, nothing before or behind, in up to {} rows.",
              s.experts.size(), s.rows);
}

Finding check_input_intact(Context& context) {
  Setup s(context);
  if (auto problem = s.start(17)) return *problem;
  for (const Shape& shape : s.experts) {
    // x and batch lie in read-only pages: a write would have ended the case.
    if (s.instance.run(s.input(s.rows), shape).status != CHIMERA_OK) {
      return skip("forward failed, see case 26.");
    }
  }
  return pass("{} experts computed from read-only input.", s.experts.size());
}

Finding check_pointers_kept(Context& context) {
  Setup s(context);
  if (auto problem = s.start(9)) return *problem;
  std::vector<std::unique_ptr<Batch>> earlier;
  for (const Shape& shape : s.experts) {
    for (int i = 0; i < 4; ++i) {
      auto batch = std::make_unique<Batch>(s.plugin.descriptor(), s.input(s.rows), shape);
      batch->seal();
      if (s.instance.forward(batch->abi()) != CHIMERA_OK)
        return skip("forward failed, see case 26.");
      batch->revoke();
      earlier.push_back(std::move(batch));
    }
    if (earlier.size() > 16) earlier.erase(earlier.begin(), earlier.begin() + 4);
  }
  context.phase("after forward");
  usleep(20000);  // for a thread of the plugin that writes later
  s.instance.reset();
  s.instance.deactivate();
  s.instance.destroy();
  return pass("batches, rows, scratch, limits, texts and tensors revoked after each call.");
}

Finding check_strides(Context& context) {
  Setup s(context);
  if (auto problem = s.start(5)) return *problem;
  const Matrix x = s.input(s.rows);
  int tried = 0;
  for (const Shape& base : s.experts) {
    const Outcome want = s.instance.run(x, base);
    if (want.status != CHIMERA_OK) return skip("forward failed, see case 26.");
    for (const auto& [x_padding, y_padding] :
         {std::pair{64u, 0u}, std::pair{0u, 64u}, std::pair{192u, 320u}, std::pair{4096u, 64u}}) {
      for (const Flush flush : {Flush::kEnd, Flush::kBegin}) {
        Shape shape = base;
        shape.x_padding = x_padding;
        shape.y_padding = y_padding;
        shape.flush = flush;
        const Outcome got = s.instance.run(x, shape);
        ++tried;
        if (got.status != CHIMERA_OK) {
          return fail("{}: strides with {} and {} bytes of padding give {}.", place(base),
                      x_padding, y_padding, status_text(got.status, s.host));
        }
        if (auto text = difference(s.plugin.descriptor(), want.y, got.y); !text.empty()) {
          return fail("{}: strides with {} and {} bytes of padding change the output: {}.",
                      place(base), x_padding, y_padding, text);
        }
      }
    }
  }
  return pass("{} combinations of strides and least alignment give the same outputs.", tried);
}

Finding check_scratch(Context& context) {
  Setup s(context);
  if (auto problem = s.start(UINT32_MAX)) return *problem;
  const uint64_t declared = s.plugin.descriptor().scratch_bytes;
  for (Shape shape : s.experts) {
    for (const uint32_t workers : {1u, 3u}) {
      shape.workers = workers;
      Batch batch(s.plugin.descriptor(), s.input(s.rows), shape);
      batch.mark_scratch();
      batch.seal();
      s.host.workers = workers;
      s.host.parallel = workers == 1 ? Parallel::kInline : Parallel::kReversed;
      if (s.instance.forward(batch.abi()) != CHIMERA_OK)
        return skip("forward failed, see case 26.");
      if (!batch.scratch_mark_intact()) {
        return fail("{}: wrote before its scratch memory.", place(shape));
      }
    }
  }
  return pass("no access beyond {} bytes per worker, with {} rows.", declared, s.rows);
}

}  // namespace chimera::check
