#include "check/instance.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <ctime>

namespace chimera::check {
namespace {

uint64_t round_up(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

uint64_t alignment_of(const chimera_expert_descriptor& d) {
  return d.alignment == 0 ? CHIMERA_ALIGNMENT : std::max<uint64_t>(d.alignment, CHIMERA_ALIGNMENT);
}

uint64_t stride_of(const chimera_expert_descriptor& d, uint64_t padding) {
  return round_up(uint64_t{d.d_model} * sizeof(float), alignment_of(d)) +
         round_up(padding, alignment_of(d));
}

}  // namespace

std::string place(const Shape& shape) {
  return fmt::format("layer {} expert {}", shape.layer, shape.expert);
}

Instance::~Instance() { destroy(); }

bool Instance::create() {
  const std::string id = plugin_.descriptor().id_borrowed;
  Guarded memory("the plugin id", id.size() + 1, 1);
  std::memcpy(memory.data(), id.c_str(), id.size() + 1);
  const CallScope scope(Call::kCreate, &host_);
  guarded_call(plugin_.context(), "create", [&] {
    self_ = plugin_.factory().create(reinterpret_cast<const char*>(memory.data()), host_.abi());
    return CHIMERA_OK;
  });
  return self_ != nullptr;
}

int32_t Instance::prepare(std::string_view config) {
  host_.forget_error();
  Guarded memory("the configuration", config.size(), 1);
  if (!config.empty()) std::memcpy(memory.data(), config.data(), config.size());
  const chimera_text text = {reinterpret_cast<const char*>(memory.data()), config.size()};
  const CallScope scope(Call::kPrepare, &host_);
  const int32_t status =
      guarded_call(plugin_.context(), "prepare", [&] { return self_->prepare(self_, text); });
  host_.revoke_tensors();
  return status;
}

int32_t Instance::prepare() {
  const auto& manifest = plugin_.context().subject.manifest;
  return prepare(manifest ? std::string_view(manifest->config) : std::string_view());
}

int32_t Instance::activate(uint32_t max_rows, uint32_t workers, uint32_t concurrent) {
  host_.forget_error();
  Guarded memory("the limits", sizeof(chimera_expert_limits), 8);
  const chimera_expert_limits limits = {sizeof(chimera_expert_limits), max_rows, workers,
                                        concurrent, host_.memory_cap};
  std::memcpy(memory.data(), &limits, sizeof(limits));
  memory.read_only();
  const auto* lent = reinterpret_cast<const chimera_expert_limits*>(memory.data());
  const CallScope scope(Call::kActivate, &host_);
  const int32_t status =
      guarded_call(plugin_.context(), "activate", [&] { return self_->activate(self_, lent); });
  active_ = status == CHIMERA_OK;
  return status;
}

int32_t Instance::reset() {
  const CallScope scope(Call::kControl, &host_);
  return guarded_call(plugin_.context(), "reset", [&] { return self_->reset(self_); });
}

void Instance::deactivate() {
  if (!active_) return;
  active_ = false;
  const CallScope scope(Call::kControl, &host_);
  guarded_call(plugin_.context(), "deactivate", [&] {
    self_->deactivate(self_);
    return CHIMERA_OK;
  });
  host_.revoke_tensors();
}

void Instance::destroy() {
  deactivate();
  if (self_ == nullptr) return;
  const CallScope scope(Call::kControl, &host_);
  guarded_call(plugin_.context(), "destroy", [&] {
    self_->destroy(self_);
    return CHIMERA_OK;
  });
  self_ = nullptr;
}

Problem Instance::start(uint32_t max_rows, uint32_t workers, uint32_t concurrent) {
  const bool report = plugin_.context().case_number == 26;
  const auto problem = [&](const std::string& text) {
    return report ? fail("{}.", text) : skip("it cannot be started, see case 26: {}.", text);
  };
  if (!create()) return problem("create gave null for its own id");
  const chimera_expert& e = *self_;
  if (e.struct_size < sizeof(e) || e.prepare == nullptr || e.activate == nullptr ||
      e.forward == nullptr || e.reset == nullptr || e.deactivate == nullptr ||
      e.destroy == nullptr || e.get_extension == nullptr) {
    return problem("the instance is too small or has a null function");
  }
  if (const int32_t s = prepare(); s != CHIMERA_OK) {
    return problem("prepare returned " + status_text(s, host_));
  }
  if (const int32_t s = activate(max_rows, workers, concurrent); s != CHIMERA_OK) {
    return problem("activate returned " + status_text(s, host_));
  }
  return std::nullopt;
}

int32_t Instance::forward(const chimera_expert_batch* batch) {
  constexpr unsigned kControlBits = 0xffc0;
  const CallScope scope(Call::kForward, &host_);
  const unsigned before = _mm_getcsr();
  const int32_t status =
      guarded_call(plugin_.context(), "forward", [&] { return self_->forward(self_, batch); });
  if (((_mm_getcsr() ^ before) & kControlBits) != 0) fp_changed_ = true;
  _mm_setcsr(before);
  return status;
}

Outcome Instance::run(const Matrix& x, const Shape& shape) {
  Batch batch(plugin_.descriptor(), x, shape);
  batch.seal();
  host_.workers = shape.workers;
  Outcome out;
  out.status = forward(batch.abi());
  out.y = batch.y();
  return out;
}

Batch::Batch(const chimera_expert_descriptor& d, const Matrix& x, const Shape& shape)
    : rows_(x.rows),
      cols_(x.cols),
      x_stride_(stride_of(d, shape.x_padding)),
      y_stride_(stride_of(d, shape.y_padding)),
      x_("the input x", rows_ * x_stride_, alignment_of(d), shape.flush),
      y_("the output y", rows_ * y_stride_, alignment_of(d), shape.flush),
      epochs_("the row epochs", rows_ * sizeof(uint64_t), 8),
      batch_("the batch", sizeof(chimera_expert_batch), 8) {
  for (uint64_t r = 0; r < rows_; ++r) {
    const uint64_t epoch = 1 + r;
    std::memcpy(epochs_.data() + r * sizeof(epoch), &epoch, sizeof(epoch));
  }
  std::memset(x_.data(), 0, x_.size());
  for (uint32_t r = 0; r < rows_; ++r) {
    std::memcpy(x_.data() + r * x_stride_, x.row(r), uint64_t{cols_} * sizeof(float));
  }
  auto* words = reinterpret_cast<uint32_t*>(y_.data());
  std::fill(words, words + y_.size() / sizeof(uint32_t), shape.fill);
  // Every worker's part ends before a page of its own without access.
  const uint64_t size = round_up(d.scratch_bytes, alignment_of(d));
  const uint64_t part = round_up(std::max<uint64_t>(size, 1), 4096) + 4096;
  scratch_ = std::make_unique<Guarded>("scratch memory", part * shape.workers, 4096, Flush::kBegin);
  scratch_part_ = part;
  scratch_slack_ = part - 4096 - size;
  unsigned char* first = scratch_->data() + scratch_slack_;
  scratch_->protect_gaps(part, shape.workers);
  const chimera_expert_batch batch = {sizeof(chimera_expert_batch),
                                      shape.layer,
                                      shape.expert,
                                      rows_,
                                      x_.data(),
                                      y_.data(),
                                      x_stride_,
                                      y_stride_,
                                      CHIMERA_DTYPE_F32,
                                      CHIMERA_DTYPE_F32,
                                      shape.workers,
                                      0,
                                      first,
                                      size,
                                      part,
                                      shape.deadline_ns,
                                      shape.cancel,
                                      shape.row_epochs && rows_ == 1 ? 1u : 0u,
                                      shape.row_epochs ? epochs() : nullptr};
  std::memcpy(batch_.data(), &batch, sizeof(batch));
}

void Batch::seal() {
  x_.read_only();
  epochs_.read_only();
  batch_.read_only();
}

void Batch::revoke() {
  x_.revoke();
  y_.revoke();
  epochs_.revoke();
  batch_.revoke();
  scratch_->revoke();
}

void Batch::mark_scratch() {
  for (size_t at = 0; at < scratch_->size(); at += scratch_part_) {
    std::memset(scratch_->data() + at, 0xa5, scratch_slack_);
  }
}

bool Batch::scratch_mark_intact() const {
  for (size_t at = 0; at < scratch_->size(); at += scratch_part_) {
    const unsigned char* slack = scratch_->data() + at;
    if (std::any_of(slack, slack + scratch_slack_, [](unsigned char c) { return c != 0xa5; })) {
      return false;
    }
  }
  return true;
}

Matrix Batch::y() const {
  Matrix out{rows_, cols_, std::vector<float>(uint64_t{rows_} * cols_)};
  for (uint32_t r = 0; r < rows_; ++r) {
    std::memcpy(out.row(r), y_.data() + r * y_stride_, uint64_t{cols_} * sizeof(float));
  }
  return out;
}

Matrix random_rows(Context& context, uint32_t rows, uint32_t cols, float scale) {
  std::normal_distribution<float> normal;
  Matrix m{rows, cols, std::vector<float>(uint64_t{rows} * cols)};
  for (float& v : m.values) v = scale * normal(context.random);
  return m;
}

Matrix slice(const Matrix& m, uint32_t begin, uint32_t count) {
  const float* first = m.row(begin);
  return {count, m.cols, std::vector<float>(first, first + uint64_t{count} * m.cols)};
}

uint32_t usable_rows(const chimera_expert_descriptor& d, uint32_t wanted) {
  constexpr uint64_t kBytes = 8u << 20;
  const uint64_t fitting = std::max<uint64_t>(1, kBytes / (uint64_t{d.d_model} * sizeof(float)));
  return static_cast<uint32_t>(std::min<uint64_t>({wanted, d.max_rows, fitting}));
}

std::string difference(const chimera_expert_descriptor& d, const Matrix& a, const Matrix& b) {
  // Up to rounding: a thousand units of the largest output, wide enough for another summation
  // order over any inner dimension, far below what a wrong row gives.
  float largest = 0;
  for (const float v : a.values)
    largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : largest;
  const float tolerance = 1000 * 1.2e-7f * largest;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const float p = a.values[i], q = b.values[i];
    if (std::bit_cast<uint32_t>(p) == std::bit_cast<uint32_t>(q)) continue;
    if (std::isnan(p) && std::isnan(q)) continue;  // which NaN is nobody's business
    if (d.determinism == CHIMERA_DETERMINISM_TOLERANCE && std::fabs(p - q) <= tolerance) continue;
    return fmt::format("row {} column {}: {:.9g} and {:.9g}", i / a.cols, i % a.cols, p, q);
  }
  return {};
}

std::vector<Shape> some_experts(const Context& context, const chimera_expert_descriptor& d) {
  std::vector<Shape> all;
  const auto add = [&](uint64_t layer, uint32_t expert) {
    Shape s;
    s.layer = d.layers_borrowed[layer].layer;
    s.expert = expert;
    all.push_back(s);
  };
  if (context.level != Level::kGate) {
    for (uint64_t l = 0; l < d.layer_count && all.size() <= 16; ++l) {
      const uint32_t experts = std::min(d.layers_borrowed[l].expert_count, 17u);
      for (uint32_t e = 0; e < experts; ++e) add(l, e);
    }
    if (all.size() <= 16) return all;
    all.clear();
  }
  const uint64_t last = d.layer_count - 1;
  add(0, 0);
  if (last > 0 || d.layers_borrowed[last].expert_count > 1) {
    add(last, d.layers_borrowed[last].expert_count - 1);
  }
  return all;
}

std::string status_text(int32_t status, const Host& host) {
  constexpr const char* kNames[] = {"ok",
                                    "invalid_argument",
                                    "not_found",
                                    "already_exists",
                                    "failed_precondition",
                                    "permission_denied",
                                    "resource_exhausted",
                                    "deadline_exceeded",
                                    "cancelled",
                                    "data_corrupt",
                                    "unavailable",
                                    "unimplemented",
                                    "internal"};
  const bool known = status >= CHIMERA_OK && status <= CHIMERA_INTERNAL;
  const std::string error = host.accounts().last_error;
  return fmt::format("status {} ({}){}{}", status,
                     known ? kNames[static_cast<size_t>(status)] : "no status of the ABI",
                     error.empty() ? "" : ": ", error);
}

uint64_t monotonic_ns() {
  timespec t = {};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace chimera::check
