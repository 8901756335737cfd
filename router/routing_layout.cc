#include "router/routing_layout.h"

#include <algorithm>
#include <memory>
#include <string>

#include "compute/tensor/float_buffer.h"

namespace chimera {
namespace {

const float* rows_of(const Matrix& gate) { return static_cast<const float*>(gate.data); }

/// Adds the gate row of candidate `next` to the block before it if it lies right behind that.
void add_row(const float* row, int64_t hidden, size_t next, std::vector<GateBlock>& blocks) {
  if (!blocks.empty()) {
    Matrix& last = blocks.back().gate;
    if (rows_of(last) + last.rows * hidden == row) {
      ++last.rows;
      return;
    }
  }
  blocks.push_back({static_cast<int32_t>(next), {row, WeightFormat::kF32, 1, hidden, nullptr}});
}

/// The rows of very many modules lie all over memory, a row each: products with one row at a time
/// wait for every one of them. From so many blocks on a layer has a copy of its rows that lies
/// together; it costs as much again as the rows, a thousandth of their experts.
constexpr size_t kManyBlocks = 16;

/// Gives the bytes of the copy.
uint64_t gather_rows(int64_t hidden, LayerTable& table) {
  if (table.blocks.size() < kManyBlocks) return 0;
  auto rows = std::make_shared<FloatBuffer>();
  rows->reserve(table.owner.size() * static_cast<size_t>(hidden));
  for (const GateBlock& block : table.blocks)
    rows->insert(rows->end(), rows_of(block.gate), rows_of(block.gate) + block.gate.rows * hidden);
  const auto count = static_cast<int64_t>(table.owner.size());
  table.blocks = {{0, {rows->data(), WeightFormat::kF32, count, hidden, rows}}};
  return rows->size() * sizeof(float);
}

/// Puts the gate of expert `e` of `part`, which answers for `slot`, behind those of `table`.
void add_gate(const ModelConfig& config, const ModuleLayer& part, size_t e, int64_t slot,
              const ModuleLayer* base, LayerTable& table) {
  const auto hidden = static_cast<size_t>(config.hidden_size);
  const bool own_row = !part.gate_weight.empty();
  const auto at = static_cast<size_t>(slot);
  const std::vector<float>& rows = own_row ? part.gate_weight : base->gate_weight;
  add_row(rows.data() + (own_row ? e : at) * hidden, config.hidden_size, table.owner.size(),
          table.blocks);
  // A replaced expert keeps the checkpoint's gate bias together with its row.
  const bool own_bias = own_row || !part.gate_bias.empty();
  const std::vector<float>& biases = own_bias ? part.gate_bias : base->gate_bias;
  table.bias.push_back(biases.empty() ? 0.0f : biases[own_bias ? e : at]);
  const bool corrects = config.gate_kind == GateKind::kGroupedSigmoid;
  if (!corrects && config.n_group <= 1) return;
  // The correction balances the load of a slot, and the group is where the slot stands: a replacing
  // expert takes both over.
  const bool takes_over = base != nullptr && at < base->experts.size();
  float correction = 0.0f;
  if (!part.gate_correction.empty()) {
    correction = part.gate_correction[e];
  } else if (takes_over && !base->gate_correction.empty()) {
    correction = base->gate_correction[at];
  }
  int32_t group = -1;
  if (takes_over && !base->gate_group.empty()) {
    group = base->gate_group[at];
  } else if (!part.gate_group.empty()) {
    group = part.gate_group[e];
  }
  if (corrects) table.correction.push_back(correction);
  table.group.push_back(group);
}

/// The candidates of a layer that answer for their slot under `mask`, ascending.
std::vector<int32_t> active_candidates(const LayerTable& layer, const ModuleMask& mask) {
  std::vector<int32_t> last;  // permitted candidate of every slot
  for (size_t c = 0; c < layer.owner.size(); ++c) {
    if (!mask.has(static_cast<size_t>(layer.owner[c]))) continue;
    const auto slot = static_cast<size_t>(layer.slot[c]);
    if (last.size() <= slot) last.resize(slot + 1, -1);
    last[slot] = static_cast<int32_t>(c);
  }
  std::erase(last, -1);
  std::sort(last.begin(), last.end());
  return last;
}

ActiveLayer make_active(const LayerTable& layer, const ModuleMask& mask) {
  ActiveLayer out;
  out.candidates = active_candidates(layer, mask);
  auto block = layer.blocks.begin();
  for (size_t i = 0; i < out.candidates.size(); ++i) {
    const int32_t c = out.candidates[i];
    while (block->first + block->gate.rows <= c) ++block;
    const int64_t hidden = block->gate.cols;
    add_row(rows_of(block->gate) + (c - block->first) * hidden, hidden, i, out.blocks);
    if (!layer.correction.empty())
      out.correction.push_back(layer.correction[static_cast<size_t>(c)]);
    if (!layer.group.empty()) out.group.push_back(layer.group[static_cast<size_t>(c)]);
  }
  return out;
}

}  // namespace

const float* LayerTable::gate_row(int64_t candidate) const {
  const auto after =
      std::upper_bound(blocks.begin(), blocks.end(), candidate,
                       [](int64_t c, const GateBlock& block) { return c < block.first; });
  const GateBlock& block = *std::prev(after);
  return rows_of(block.gate) + (candidate - block.first) * block.gate.cols;
}

bool ActiveSet::ready() const {
  return (lease == nullptr || lease->ready()) && (average == nullptr || average->ready());
}

void ActiveSet::begin(AverageFor whom) const {
  if (lease != nullptr) lease->begin();
  if (average != nullptr) average->begin(whom);
}

Status ActiveSet::wait() const {
  begin(AverageFor::kComposition);  // both, before the first is waited for
  if (lease != nullptr) CHIMERA_RETURN_IF_ERROR(lease->wait());
  return average != nullptr ? average->wait(AverageFor::kComposition) : Status();
}

std::optional<Status> ActiveSet::failure() const {
  std::optional<Status> why;
  if (lease != nullptr) why = lease->failure();
  if (!why && average != nullptr) why = average->failure();
  return why;
}

RoutingLayout::RoutingLayout(const ModelConfig& config, Modules modules,
                             std::shared_ptr<Averages> averages)
    : modules_(std::move(modules)), averages_(std::move(averages)) {
  for (size_t i = 0; i < modules_.size(); ++i) {
    index_.emplace(modules_[i]->name(), static_cast<int>(i));
    if (!modules_[i]->is_adapter()) unnamed_.add(i);
  }
  layers_.reserve(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    layers_.push_back(build_layer(config, layer));
    gathered_bytes_ += gather_rows(config.hidden_size, layers_.back());
  }
}

LayerTable RoutingLayout::build_layer(const ModelConfig& config, int64_t layer) const {
  LayerTable table;
  const Module& backbone = *modules_.front();
  const auto found_base = backbone.layers.find(layer);
  const ModuleLayer* base = found_base == backbone.layers.end() ? nullptr : &found_base->second;
  int32_t next_slot = base == nullptr ? 0 : static_cast<int32_t>(base->experts.size());
  for (size_t m = 0; m < modules_.size(); ++m) {
    const auto found = modules_[m]->layers.find(layer);
    if (found == modules_[m]->layers.end()) continue;
    const ModuleLayer& part = found->second;
    const bool shares_slots = m == 0 || modules_[m]->manifest.attach == Attach::kReplace;
    for (size_t e = 0; e < part.experts.size(); ++e) {
      const int64_t slot = shares_slots ? (m == 0 ? static_cast<int64_t>(e) : part.slots[e])
                                        : static_cast<int64_t>(next_slot++);
      add_gate(config, part, e, slot, base, table);
      table.experts.push_back(part.experts[e]);
      table.owner.push_back(static_cast<int32_t>(m));
      table.slot.push_back(static_cast<int32_t>(slot));
      table.index.push_back(static_cast<int32_t>(e));
    }
  }
  table.candidates = static_cast<int64_t>(table.experts.size());
  return table;
}

int RoutingLayout::module_index(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? -1 : found->second;
}

void RoutingLayout::set_backbone(const ModuleMask& mask, ActiveSet* made) const {
  std::vector<std::shared_ptr<const Module>> bundles;
  mask.for_each([&](size_t i) {
    if (i < modules_.size() && modules_[i]->bundle != nullptr) bundles.push_back(modules_[i]);
  });
  if (bundles.size() == 1) made->single = bundles.front()->bundle->backbone();
  if (bundles.size() > 1) made->average = averages_->of(bundles);
}

std::shared_ptr<const ActiveSet> RoutingLayout::active(const ModuleMask& mask) const {
  const MutexLock lock(mutex_);
  std::erase_if(active_, [](const auto& known) { return known.second.expired(); });
  for (const auto& [known, set] : active_) {
    if (known != mask) continue;
    if (auto found = set.lock()) return found;
  }
  auto made = std::make_shared<ActiveSet>();
  made->layout = shared_from_this();
  made->mask = mask;
  made->layers.reserve(layers_.size());
  for (const LayerTable& layer : layers_) {
    made->layers.push_back(make_active(layer, mask));
    made->most = std::max(made->most, static_cast<int64_t>(made->layers.back().candidates.size()));
  }
  mask.for_each([&](size_t i) {
    if (i < modules_.size() && modules_[i]->is_adapter())
      made->adapters.push_back(modules_[i].get());
  });
  if (const auto& residency = modules_.front()->residency)
    made->lease = residency->lease(backbone_experts(*made));
  set_backbone(mask, made.get());
  active_.emplace_back(mask, made);
  return made;
}

std::vector<ExpertPlace> backbone_experts(const ActiveSet& active) {
  std::vector<ExpertPlace> places;
  for (size_t layer = 0; layer < active.layers.size(); ++layer) {
    const LayerTable& table = active.layout->layers()[layer];
    for (const int32_t c : active.layers[layer].candidates) {
      const auto candidate = static_cast<size_t>(c);
      if (table.owner[candidate] == 0)
        places.push_back({static_cast<int64_t>(layer), int64_t{table.index[candidate]}});
    }
  }
  return places;
}

std::shared_ptr<const RoutingLayout> LayoutCache::find_locked(
    const RoutingLayout::Modules& modules) const {
  const auto same = [](const Module* a, const std::shared_ptr<const Module>& b) {
    return a == b.get();
  };
  for (const Known& known : known_) {
    if (!std::equal(known.modules.begin(), known.modules.end(), modules.begin(), modules.end(),
                    same)) {
      continue;
    }
    // Another module may have come to the address of one that is gone; then this is gone as well.
    if (auto layout = known.layout.lock()) return layout;
  }
  return nullptr;
}

std::shared_ptr<const RoutingLayout> LayoutCache::find(
    const RoutingLayout::Modules& modules) const {
  const MutexLock lock(mutex_);
  return find_locked(modules);
}

std::shared_ptr<const RoutingLayout> LayoutCache::get(const ModelConfig& config,
                                                      RoutingLayout::Modules modules,
                                                      std::shared_ptr<Averages> averages) {
  if (auto known = find(modules)) return known;
  Known made;
  for (const auto& module : modules) made.modules.push_back(module.get());
  auto layout = std::make_shared<RoutingLayout>(config, std::move(modules), std::move(averages));
  if (account_ && layout->gathered_bytes() > 0) layout->hold(account_(layout->gathered_bytes()));
  made.layout = layout;
  const MutexLock lock(mutex_);
  if (auto known = find_locked(layout->modules())) return known;  // another thread was quicker
  std::erase_if(known_, [](const Known& known) { return known.layout.expired(); });
  known_.push_back(std::move(made));
  return layout;
}

}  // namespace chimera
