#include "router/routing_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "base/io/digest.h"

namespace chimera {

int RoutingTable::module_index(const std::string& name) const {
  for (size_t i = 0; i < modules_.size(); ++i) {
    if (modules_[i]->name() == name) return static_cast<int>(i);
  }
  return -1;
}

ModuleMask RoutingTable::all() const {
  return modules_.size() >= 64 ? ~ModuleMask{0} : (ModuleMask{1} << modules_.size()) - 1;
}

std::vector<std::vector<uint8_t>> RoutingTable::active(ModuleMask mask) const {
  mask |= 1;
  std::vector<std::vector<uint8_t>> result;
  result.reserve(layers_.size());
  for (const LayerTable& layer : layers_) {
    const auto count = static_cast<size_t>(layer.candidates);
    std::vector<uint8_t> on(count, 0);
    const int32_t slots =
        count == 0 ? 0 : *std::max_element(layer.slot.begin(), layer.slot.end()) + 1;
    std::vector<int64_t> last(static_cast<size_t>(slots), -1);
    for (size_t c = 0; c < count; ++c) {
      if ((mask >> layer.owner[c] & 1) != 0) {
        last[static_cast<size_t>(layer.slot[c])] = static_cast<int64_t>(c);
      }
    }
    for (const int64_t c : last) {
      if (c >= 0) on[static_cast<size_t>(c)] = 1;
    }
    result.push_back(std::move(on));
  }
  return result;
}

std::string RoutingTable::scope(ModuleMask mask, std::span<const float> request_bias) const {
  mask |= 1;
  Sha256 hash;
  hash.update_field("chimera scope/1");
  hash.update_field(composition_.backbone_fingerprint);
  hash.update_u64(static_cast<uint64_t>(top_k(mask)));
  for (size_t i = 0; i < modules_.size(); ++i) {
    if ((mask >> i & 1) == 0) continue;
    const CompositionModule* entry = composition_.find(modules_[i]->name());
    const float bias = entry == nullptr ? 0.0f : entry->bias;
    const float extra = i < request_bias.size() ? request_bias[i] : 0.0f;
    hash.update_field(modules_[i]->name());
    hash.update_field(entry == nullptr ? "" : entry->digest);
    hash.update_u64(std::bit_cast<uint32_t>(bias + 0.0f));  // -0 and +0 are the same bias
    hash.update_u64(std::bit_cast<uint32_t>(extra + 0.0f));
  }
  return hash.finish();
}

int64_t RoutingTable::top_k(ModuleMask mask) const {
  return effective_top_k(composition_.top_k, fitted(mask), default_top_k_);
}

std::vector<std::string> RoutingTable::notes(ModuleMask mask) const {
  return top_k_notes(composition_.top_k, fitted(mask), default_top_k_);
}

std::vector<FittedModule> RoutingTable::fitted(ModuleMask mask) const {
  std::vector<FittedModule> out;
  for (size_t i = 1; i < modules_.size(); ++i) {
    if ((mask >> i & 1) != 0)
      out.push_back({modules_[i]->name(), modules_[i]->manifest.fitted_top_k()});
  }
  return out;
}

RoutingTableBuilder::RoutingTableBuilder(const ModelConfig& config,
                                         std::shared_ptr<const Module> base)
    : config_(config), base_(std::move(base)) {}

Result<std::shared_ptr<const RoutingTable>> RoutingTableBuilder::build(
    uint64_t epoch, const Composition& composition,
    std::span<const std::shared_ptr<const Module>> loaded) const {
  CHIMERA_RETURN_IF_ERROR(check(composition, loaded));
  auto table = std::make_shared<RoutingTable>();
  table->epoch_ = epoch;
  table->digest_ = composition.digest();
  table->composition_ = composition;
  table->default_top_k_ = default_top_k(config_);
  table->gate_rule_ = gate_rule(config_);
  table->modules_.push_back(base_);
  std::vector<float> bias{0.0f};
  for (size_t i = 0; i < loaded.size(); ++i) {
    if (!composition.modules[i].enabled) continue;
    table->modules_.push_back(loaded[i]);
    bias.push_back(composition.modules[i].bias);
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    table->layers_.push_back(build_layer(layer, table->modules_, bias));
  }
  return std::shared_ptr<const RoutingTable>(std::move(table));
}

Status RoutingTableBuilder::check(const Composition& composition,
                                  std::span<const std::shared_ptr<const Module>> loaded) const {
  if (base_ == nullptr || loaded.size() != composition.modules.size()) {
    return {Code::kInternal,
            fmt::format("routing table: {} loaded modules (expected {}, one per entry of the "
                        "composition, and the backbone's experts)",
                        loaded.size(), composition.modules.size())};
  }
  if (config_.n_group < 1 || config_.n_group > kMaxGateGroups) {
    return {Code::kUnimplemented,
            fmt::format("n_group: {} (supported: 1 to {})", config_.n_group, kMaxGateGroups)};
  }
  if (composition.top_k && (*composition.top_k < 1 || *composition.top_k > kMaxTopK)) {
    return {Code::kInvalidArgument,
            fmt::format("composition top_k: {} (expected 1 to {})", *composition.top_k, kMaxTopK)};
  }
  std::set<std::string> names{base_->name()};
  int enabled = 0;
  for (size_t i = 0; i < loaded.size(); ++i) {
    const CompositionModule& entry = composition.modules[i];
    if (!names.insert(entry.name).second) {
      return {Code::kAlreadyExists,
              fmt::format("module {}: named twice in the composition", entry.name),
              "Give every module of a composition its own name."};
    }
    if (!std::isfinite(entry.bias)) {
      return {Code::kInvalidArgument,
              fmt::format("module {}: bias {} (expected a finite number)", entry.name, entry.bias)};
    }
    if (!entry.enabled) continue;
    if (loaded[i] == nullptr || loaded[i]->name() != entry.name) {
      return {Code::kInternal,
              fmt::format("module {}: found {} in its place", entry.name,
                          loaded[i] == nullptr ? "nothing loaded" : loaded[i]->name())};
    }
    CHIMERA_RETURN_IF_ERROR(check_module(*loaded[i]));
    ++enabled;
  }
  if (enabled > kMaxModules) {
    return {
        Code::kResourceExhausted,
        fmt::format("composition: {} enabled modules (expected at most {})", enabled, kMaxModules),
        "Disable modules that are not used."};
  }
  return {};
}

Status RoutingTableBuilder::check_module(const Module& module) const {
  const bool replace = module.manifest.attach == Attach::kReplace;
  std::vector<int64_t> moe_layers;
  for (const auto& [layer, part] : base_->layers) moe_layers.push_back(layer);
  for (const auto& [layer, part] : module.layers) {
    const std::string where = fmt::format("module {}, layer {}", module.name(), layer);
    const auto base = base_->layers.find(layer);
    if (base == base_->layers.end()) {
      return {Code::kFailedPrecondition,
              fmt::format("{}: no such MoE layer in the backbone (expected one of {})", where,
                          fmt::join(moe_layers, ", "))};
    }
    CHIMERA_RETURN_IF_ERROR(check_gate(where, module, part));
    const auto base_slots = static_cast<int64_t>(base->second.experts.size());
    for (const int64_t slot : part.slots) {
      if (replace && (slot < 0 || slot >= base_slots)) {
        return {Code::kFailedPrecondition,
                fmt::format("{}: replaces slot {} (expected 0 to {}, the backbone's experts)",
                            where, slot, base_slots - 1)};
      }
    }
  }
  return {};
}

Status RoutingTableBuilder::check_gate(const std::string& where, const Module& module,
                                       const ModuleLayer& part) const {
  const bool replace = module.manifest.attach == Attach::kReplace;
  const size_t n = part.experts.size();
  const size_t row = static_cast<size_t>(config_.hidden_size);
  const bool gate_ok = part.gate_weight.size() == n * row || (replace && part.gate_weight.empty());
  const bool slots_ok = !replace || part.slots.size() == n;
  const auto fits = [n](const auto& values) { return values.empty() || values.size() == n; };
  if (gate_ok && slots_ok && fits(part.gate_bias) && fits(part.gate_correction) &&
      fits(part.gate_group)) {
    return {};
  }
  return {Code::kInvalidArgument,
          fmt::format("{}: gate rows or slots do not fit its {} experts", where, n)};
}

/// Appends the gate of expert `e` of `part`, which answers for `slot`, to the columns of a table.
void RoutingTableBuilder::add_gate(const ModuleLayer& part, size_t e, int64_t slot,
                                   const ModuleLayer* base, std::vector<float>& gate,
                                   LayerTable& table) const {
  const auto hidden = static_cast<ptrdiff_t>(config_.hidden_size);
  const bool own_row = !part.gate_weight.empty();
  const auto at = static_cast<size_t>(slot);
  const std::vector<float>& rows = own_row ? part.gate_weight : base->gate_weight;
  const auto row = rows.begin() + static_cast<ptrdiff_t>(own_row ? e : at) * hidden;
  gate.insert(gate.end(), row, row + hidden);
  // A replaced expert keeps the checkpoint's gate bias together with its row.
  const bool own_bias = own_row || !part.gate_bias.empty();
  const std::vector<float>& biases = own_bias ? part.gate_bias : base->gate_bias;
  table.bias.push_back(biases.empty() ? 0.0f : biases[own_bias ? e : at]);
  if (config_.gate_kind != GateKind::kGroupedSigmoid) return;
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
  table.correction.push_back(correction);
  table.group.push_back(group);
}

LayerTable RoutingTableBuilder::build_layer(int64_t layer,
                                            std::span<const std::shared_ptr<const Module>> modules,
                                            std::span<const float> module_bias) const {
  LayerTable table;
  auto gate = std::make_shared<std::vector<float>>();
  const auto found_base = base_->layers.find(layer);
  const ModuleLayer* base = found_base == base_->layers.end() ? nullptr : &found_base->second;
  int32_t next_slot = base == nullptr ? 0 : static_cast<int32_t>(base->experts.size());

  for (size_t m = 0; m < modules.size(); ++m) {
    const auto found = modules[m]->layers.find(layer);
    if (found == modules[m]->layers.end()) continue;
    const ModuleLayer& part = found->second;
    const bool shares_slots = m == 0 || modules[m]->manifest.attach == Attach::kReplace;
    for (size_t e = 0; e < part.experts.size(); ++e) {
      const int64_t slot = shares_slots ? (m == 0 ? static_cast<int64_t>(e) : part.slots[e])
                                        : static_cast<int64_t>(next_slot++);
      add_gate(part, e, slot, base, *gate, table);
      table.bias.back() += module_bias[m];
      table.experts.push_back(part.experts[e]);
      table.owner.push_back(static_cast<int32_t>(m));
      table.slot.push_back(static_cast<int32_t>(slot));
      table.index.push_back(static_cast<int32_t>(e));
    }
  }
  table.candidates = static_cast<int64_t>(table.experts.size());
  table.gate = {gate->data(), WeightFormat::kF32, table.candidates, config_.hidden_size, gate,
                1.0f};
  return table;
}

}  // namespace chimera
