#include "router/shadow/gate_sampler.h"

#include <algorithm>

#include "compute/tensor/tensor.h"
#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

bool leaves_choice_to_gates(const RouteView& view) {
  if (!view.request_bias.empty()) return false;
  const ModuleMask& unnamed = view.table->layout()->unnamed();
  return (view.mask() & unnamed) == unnamed;
}

}  // namespace

GateSampler::GateSampler(const ModelConfig& config, MoeRouter* router, GateSamples* samples)
    : router_(router), samples_(samples) {
  for (const int64_t layer : moe_layers(config)) moe_layers_.push_back(static_cast<int32_t>(layer));
}

void GateSampler::begin_pass(std::span<RoutedSegment> segments, RouterStats* stats) {
  router_->begin_pass(segments, stats);
  segments_ = segments;
  picks_.clear();
  if (samples_ != nullptr && samples_->capacity() > 0 && !moe_layers_.empty()) pick(segments);
}

void GateSampler::pick(std::span<const RoutedSegment> segments) {
  const size_t every = samples_->full() ? GateSamples::kEvery : 1;
  int64_t row = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t end = row + segments[s].rows;
    if (segments[s].provisional || !leaves_choice_to_gates(*segments[s].view)) row = end;
    for (; row < end && picks_.size() < kMostOfPass; ++row) {
      if (every > 1 && draw_.below(every) != 0) continue;
      picks_.push_back({moe_layers_[draw_.below(moe_layers_.size())], row, s});
    }
    row = end;
  }
  staged_.resize(picks_.size() * static_cast<size_t>(samples_->hidden()));
}

Status GateSampler::forward(int64_t layer, const float* x, int64_t rows, float* y) {
  for (size_t i = 0; i < picks_.size(); ++i) {
    if (picks_[i].layer != layer || picks_[i].row >= rows) continue;
    const auto hidden = static_cast<size_t>(samples_->hidden());
    const float* const from = x + static_cast<size_t>(picks_[i].row) * hidden;
    std::transform(from, from + hidden, staged_.begin() + static_cast<ptrdiff_t>(i * hidden),
                   f32_to_bf16);
  }
  return router_->forward(layer, x, rows, y);
}

void GateSampler::end_pass() {
  if (picks_.empty()) return;
  const auto hidden = static_cast<ptrdiff_t>(samples_->hidden());
  layers_.clear();
  for (size_t i = 0; i < picks_.size(); ++i) {
    if (segments_[picks_[i].segment].poisoned) continue;
    const auto to = staged_.begin() + static_cast<ptrdiff_t>(layers_.size()) * hidden;
    const auto from = staged_.begin() + static_cast<ptrdiff_t>(i) * hidden;
    if (to != from) std::copy_n(from, hidden, to);
    layers_.push_back(picks_[i].layer);
  }
  samples_->add(layers_, std::span(staged_).first(layers_.size() * static_cast<size_t>(hidden)));
  picks_.clear();
}

}  // namespace chimera
