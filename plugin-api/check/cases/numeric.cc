// Group D, continued: the numbers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check/cases/case.h"
#include "check/instance.h"

namespace chimera::check {
namespace {

struct Input {
  const char* name;
  bool must_be_finite;
  Matrix x;
};

/// Rows all of one kind. Large: what hidden states of real models reach; huge: close to the end of
/// the format, where an overflow in the middle is nobody's mistake.
std::vector<Input> inputs(Context& context, uint32_t rows, uint32_t cols) {
  std::vector<Input> all;
  all.push_back({"random", true, random_rows(context, rows, cols)});
  all.push_back({"zero", true, random_rows(context, rows, cols, 0.0f)});
  all.push_back({"large (1e3)", true, random_rows(context, rows, cols, 1e3f)});
  all.push_back({"denormal", true, random_rows(context, rows, cols, 1e-40f)});
  all.push_back({"huge (1e37)", false, random_rows(context, rows, cols, 1e37f)});
  Matrix odd = random_rows(context, rows, cols);
  constexpr float kOdd[] = {
      std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
      -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max()};
  for (size_t i = 0; i < odd.values.size(); i += 3) odd.values[i] = kOdd[i / 3 % 4];
  all.push_back({"NaN and Inf", false, std::move(odd)});
  return all;
}

/// A NaN in one row must not reach another.
Problem odd_neighbour(Context& context, Instance& instance, const Shape& shape, uint32_t rows) {
  const auto& d = instance.plugin().descriptor();
  if (rows < 2) return std::nullopt;
  Matrix x = random_rows(context, rows, d.d_model);
  const Matrix clean = instance.run(x, shape).y;
  std::fill_n(x.row(rows / 2), d.d_model, std::numeric_limits<float>::quiet_NaN());
  const Matrix dirty = instance.run(x, shape).y;
  for (uint32_t r = 0; r < rows; ++r) {
    if (r == rows / 2) continue;
    if (auto text = difference(d, slice(clean, r, 1), slice(dirty, r, 1)); !text.empty()) {
      return fail("{}: NaN in row {} changes row {}.", place(shape), rows / 2, r);
    }
  }
  return std::nullopt;
}

/// Each row alone, shuffled, with other neighbours and workers: the same outputs.
std::string depends_on(Context& context, Instance& instance, const Shape& base, const Matrix& x,
                       const Matrix& want) {
  const auto& d = instance.plugin().descriptor();
  Host& host = instance.host();
  for (uint32_t r = 0; r < x.rows; ++r) {
    const Matrix alone = instance.run(slice(x, r, 1), base).y;
    if (auto text = difference(d, slice(want, r, 1), alone); !text.empty()) {
      return fmt::format("row {} alone and in a batch of {}: {}", r, x.rows, text);
    }
  }
  std::vector<uint32_t> order(x.rows);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), context.random);
  Matrix mixed = x, mixed_want = want;
  for (uint32_t r = 0; r < x.rows; ++r) {
    std::copy_n(x.row(order[r]), x.cols, mixed.row(r));
    std::copy_n(want.row(order[r]), x.cols, mixed_want.row(r));
  }
  if (auto text = difference(d, mixed_want, instance.run(mixed, base).y); !text.empty()) {
    return "rows in another order: " + text;
  }
  Matrix other = random_rows(context, x.rows, x.cols);
  std::copy_n(x.row(0), x.cols, other.row(0));
  if (auto text = difference(d, slice(want, 0, 1), slice(instance.run(other, base).y, 0, 1));
      !text.empty()) {
    return "row 0 with other neighbours: " + text;
  }
  for (const uint32_t workers : {2u, 3u, 4u}) {
    Shape shape = base;
    shape.workers = workers;
    host.parallel = workers == 3 ? Parallel::kReversed : Parallel::kInline;
    const Matrix y = instance.run(x, shape).y;
    host.parallel = Parallel::kInline;
    if (auto text = difference(d, want, y); !text.empty()) {
      return fmt::format("1 and {} workers: {}", workers, text);
    }
  }
  return {};
}

// ---- case 32 ----

struct Reference {
  const TensorFile* file;
  const FileTensor *gate, *up, *down;
};

/// The three matrices of an expert, null when the file lacks one or its shape is wrong.
Reference reference_of(const TensorFile& file, const Shape& s, uint32_t d_model) {
  const auto find = [&](const char* which) -> const FileTensor* {
    const auto* t =
        file.find(fmt::format("layers.{}.experts.{}.{}.weight", s.layer, s.expert, which));
    const bool fits = t != nullptr && t->shape.size() == 2 && t->dtype != 0 && t->dtype <= 3;
    return fits ? t : nullptr;
  };
  Reference r{&file, find("gate_proj"), find("up_proj"), find("down_proj")};
  const bool complete = r.gate != nullptr && r.up != nullptr && r.down != nullptr &&
                        r.gate->shape[1] == d_model && r.up->shape == r.gate->shape &&
                        r.down->shape[0] == d_model && r.down->shape[1] == r.gate->shape[0];
  return complete ? r : Reference{&file, nullptr, nullptr, nullptr};
}

double dot(const std::vector<double>& w, const double* x) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += w[i] * x[i];
  return sum;
}

/// down(silu(gate x) * up x) for all rows, in double precision.
std::vector<double> swiglu_expert(const Reference& ref, const Matrix& x) {
  const uint64_t inner = ref.gate->shape[0];
  const std::vector<double> in(x.values.begin(), x.values.end());
  std::vector<double> hidden(x.rows * inner), out(in.size());
  for (uint64_t i = 0; i < inner; ++i) {
    const auto gate = tensor_row(*ref.file, *ref.gate, i), up = tensor_row(*ref.file, *ref.up, i);
    for (uint32_t r = 0; r < x.rows; ++r) {
      const double* row = in.data() + uint64_t{r} * x.cols;
      const double g = dot(gate, row);
      hidden[r * inner + i] = g / (1.0 + std::exp(-g)) * dot(up, row);
    }
  }
  for (uint32_t i = 0; i < x.cols; ++i) {
    const auto down = tensor_row(*ref.file, *ref.down, i);
    for (uint32_t r = 0; r < x.rows; ++r) {
      out[uint64_t{r} * x.cols + i] = dot(down, hidden.data() + r * inner);
    }
  }
  return out;
}

/// The largest ||y - want|| / ||want|| of a row.
double worst_error(const Matrix& y, const std::vector<double>& want) {
  double worst = 0;
  for (uint32_t r = 0; r < y.rows; ++r) {
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < y.cols; ++i) {
      const double w = want[uint64_t{r} * y.cols + i];
      const double e = static_cast<double>(y.row(r)[i]) - w;
      error += e * e;
      norm += w * w;
    }
    const double relative = norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
    worst = std::isnan(relative) ? INFINITY : std::max(worst, relative);
  }
  return worst;
}

}  // namespace

Finding check_finite(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, 7);
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  auto experts = some_experts(context, d);
  for (Shape& shape : experts) {
    shape.fill = 0;  // what is not written is the business of case 27
    for (const Input& input : inputs(context, rows, d.d_model)) {
      const Outcome out = instance.run(input.x, shape);
      if (!input.must_be_finite) continue;
      if (out.status != CHIMERA_OK) {
        return fail("{}: {} input gives {}.", place(shape), input.name,
                    status_text(out.status, host));
      }
      const auto& v = out.y.values;
      const auto bad = std::find_if(v.begin(), v.end(), [](float f) { return !std::isfinite(f); });
      if (bad != v.end()) {
        return fail("{}: {} input gives {} in row {}.", place(shape), input.name, *bad,
                    (bad - v.begin()) / d.d_model);
      }
    }
    if (auto problem = odd_neighbour(context, instance, shape, rows)) return *problem;
  }
  if (instance.fp_changed()) return fail("forward changes rounding, flushing or masks in MXCSR.");
  return pass("finite where it must be; NaN and Inf stay in their row; MXCSR is untouched.");
}

Finding check_repeatable(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, context.amount(8u, 16u, 33u, 64u));
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  for (const Shape& shape : some_experts(context, d)) {
    const Matrix x = random_rows(context, rows, d.d_model);
    const Outcome want = instance.run(x, shape);
    if (want.status != CHIMERA_OK) return skip("forward failed, see case 26.");
    for (int i = 0; i < context.amount(3, 5, 20, 200) && (i == 0 || !context.late()); ++i) {
      if (auto text = difference(d, want.y, instance.run(x, shape).y); !text.empty()) {
        return fail("{}: the same batch gives another output: {}.", place(shape), text);
      }
    }
    Shape on_no_table = shape;
    on_no_table.row_epochs = false;
    if (auto text = difference(d, want.y, instance.run(x, on_no_table).y); !text.empty()) {
      return fail("{}: the output depends on the epochs of the rows: {}.", place(shape), text);
    }
    if (auto text = depends_on(context, instance, shape, x, want.y); !text.empty()) {
      return fail("{}: {}.", place(shape), text);
    }
  }
  const bool bitwise = d.determinism == CHIMERA_DETERMINISM_BITWISE;
  return pass(
      "alone, in a batch, in another order, on any epoch, with 1 to 4 workers: the same {}.",
      bitwise ? "to the bit" : "up to rounding, as declared");
}

Finding check_reference(Context& context) {
  if (!context.subject.reference) return skip("no reference was given (--reference).");
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, context.amount(0u, 8u, 32u, 128u));
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  double worst = 0;
  const auto experts = some_experts(context, d);
  for (const Shape& shape : experts) {
    const Reference ref = reference_of(*context.subject.reference, shape, d.d_model);
    if (ref.gate == nullptr) {
      return fail("{}: the reference has no fitting gate_proj, up_proj and down_proj.",
                  place(shape));
    }
    const Matrix x = random_rows(context, rows, d.d_model);
    const Outcome out = instance.run(x, shape);
    if (out.status != CHIMERA_OK) return skip("forward failed, see case 26.");
    const double error = worst_error(out.y, swiglu_expert(ref, x));
    if (error > context.subject.tolerance) {
      return fail("{}: a row is {:.2e} of its length away from the reference (expected {:.2e}).",
                  place(shape), error, context.subject.tolerance);
    }
    worst = std::max(worst, error);
  }
  return pass("{} experts: rows at most {:.2e} of their length away from the reference.",
              experts.size(), worst);
}

}  // namespace chimera::check
