#include "router/routing_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <string_view>

#include "base/io/digest.h"

namespace chimera {
namespace {

/// -0 and +0 are the same bias.
uint32_t bias_bits(float bias) { return std::bit_cast<uint32_t>(bias + 0.0f); }

}  // namespace

std::string RoutingTable::scope(const ModuleMask& mask, std::span<const float> request_bias) const {
  Sha256 hash;
  hash.update_field("chimera scope/1");
  hash.update_field(composition_.backbone_fingerprint);
  hash.update_u64(static_cast<uint64_t>(top_k(mask)));
  const auto add = [&](size_t i) {
    const float extra = i < request_bias.size() ? request_bias[i] : 0.0f;
    hash.update_field(modules()[i]->name());
    hash.update_field(i == 0 ? "" : composition_.modules[entry_[i]].digest);
    hash.update_u64(bias_bits(module_bias_[i]));
    hash.update_u64(bias_bits(extra));
    if (i != 0) composition_.modules[entry_[i]].hash_options(hash);
  };
  add(0);
  mask.for_each([&](size_t i) {
    if (i != 0 && i < modules().size()) add(i);
  });
  return hash.finish();
}

bool RoutingTable::same_scope(const RoutingTable& other, const ModuleMask& mask) const {
  if (layout_ != other.layout_ || top_k(mask) != other.top_k(mask) ||
      composition_.backbone_fingerprint != other.composition_.backbone_fingerprint) {
    return false;
  }
  bool same = true;
  mask.for_each([&](size_t i) {
    if (i == 0 || i >= modules().size()) return;
    same = same && same_outputs(composition_.modules[entry_[i]],
                                other.composition_.modules[other.entry_[i]]);
  });
  return same;
}

int64_t RoutingTable::top_k(const ModuleMask& mask) const {
  if (composition_.top_k) return *composition_.top_k;
  int64_t largest = 0;
  mask.for_each([&](size_t i) {
    if (i == 0 || i >= modules().size()) return;
    largest = std::max(largest, modules()[i]->manifest.fitted_top_k().value_or(0));
  });
  return largest > 0 ? largest : default_top_k_;
}

std::vector<std::string> RoutingTable::notes(const ModuleMask& mask) const {
  std::vector<FittedModule> fitted;
  mask.for_each([&](size_t i) {
    if (i == 0 || i >= modules().size()) return;
    const std::optional<int64_t> stated = modules()[i]->manifest.fitted_top_k();
    if (stated) fitted.push_back({modules()[i]->name(), stated});
  });
  return top_k_notes(composition_.top_k, fitted, default_top_k_);
}

RoutingTableBuilder::RoutingTableBuilder(const ModelConfig& config,
                                         std::shared_ptr<const Module> base,
                                         LayoutCache::Account account, Averages::Make average)
    : config_(config),
      base_(std::move(base)),
      averages_(std::make_shared<Averages>(std::move(average))),
      layouts_(std::make_shared<LayoutCache>(std::move(account))) {}

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
  table->module_bias_.push_back(0.0f);
  table->entry_.push_back(composition.modules.size());
  RoutingLayout::Modules modules{base_};
  for (size_t i = 0; i < loaded.size(); ++i) {
    if (!composition.modules[i].enabled) continue;
    modules.push_back(loaded[i]);
    table->module_bias_.push_back(composition.modules[i].bias);
    table->entry_.push_back(i);
  }
  table->layout_ = layouts_->find(modules);
  if (table->layout_ == nullptr) {
    for (size_t m = 1; m < modules.size(); ++m) CHIMERA_RETURN_IF_ERROR(check_module(*modules[m]));
    table->layout_ = layouts_->get(config_, std::move(modules), averages_);
  }
  table->all_ = ModuleMask::first(table->modules().size());
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
  std::set<std::string_view> names{base_->name()};
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
  for (const auto& [layer, part] : module.layers) {
    CHIMERA_RETURN_IF_ERROR(check_layer(module, layer, part));
  }
  return {};
}

Status RoutingTableBuilder::check_layer(const Module& module, int64_t layer,
                                        const ModuleLayer& part) const {
  const auto where = [&] { return fmt::format("module {}, layer {}", module.name(), layer); };
  const auto base = base_->layers.find(layer);
  if (base == base_->layers.end()) {
    std::vector<int64_t> moe_layers;
    for (const auto& [known, unused] : base_->layers) moe_layers.push_back(known);
    return {Code::kFailedPrecondition,
            fmt::format("{}: no such MoE layer in the backbone (expected one of {})", where(),
                        fmt::join(moe_layers, ", "))};
  }
  const bool replace = module.manifest.attach == Attach::kReplace;
  const size_t n = part.experts.size();
  const size_t row = static_cast<size_t>(config_.hidden_size);
  const bool gate_ok = part.gate_weight.size() == n * row || (replace && part.gate_weight.empty());
  const bool slots_ok = !replace || part.slots.size() == n;
  const auto fits = [n](const auto& values) { return values.empty() || values.size() == n; };
  if (!gate_ok || !slots_ok || !fits(part.gate_bias) || !fits(part.gate_correction) ||
      !fits(part.gate_group)) {
    return {Code::kInvalidArgument,
            fmt::format("{}: gate rows or slots do not fit its {} experts", where(), n)};
  }
  const auto base_slots = static_cast<int64_t>(base->second.experts.size());
  for (const int64_t slot : part.slots) {
    if (replace && (slot < 0 || slot >= base_slots)) {
      return {Code::kFailedPrecondition,
              fmt::format("{}: replaces slot {} (expected 0 to {}, the backbone's experts)",
                          where(), slot, base_slots - 1)};
    }
  }
  return {};
}

}  // namespace chimera
