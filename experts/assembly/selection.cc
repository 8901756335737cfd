#include "experts/assembly/selection.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <charconv>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/quote.h"

namespace chimera {
namespace {

// What one match may cost; names are short, and a pattern that needs more is a mistake.
constexpr uint32_t kMatchLimit = 1'000'000;

/// Takes a number off the front of `text`.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()));
  return value;
}

/// The number that `text` has where `pattern` ("model.layers.{L}.") has its braces; the text after
/// the pattern remains.
std::optional<int64_t> strip(std::string_view pattern, std::string_view& text) {
  const size_t open = pattern.find('{');
  const size_t close = pattern.find('}');
  if (open == std::string_view::npos || close == std::string_view::npos) return std::nullopt;
  std::string_view rest = text;
  if (!rest.starts_with(pattern.substr(0, open))) return std::nullopt;
  rest.remove_prefix(open);
  const auto number = take_number(rest);
  if (!number || !rest.starts_with(pattern.substr(close + 1))) return std::nullopt;
  rest.remove_prefix(pattern.size() - close - 1);
  text = rest;
  return number;
}

void add(TensorTraits& traits, TensorSet set) { traits.sets |= 1u << static_cast<uint32_t>(set); }

bool inside(const std::optional<IndexRanges>& ranges, int64_t value) {
  if (!ranges) return true;
  return std::any_of(ranges->begin(), ranges->end(), [&](const auto& range) {
    return value >= range.first && value <= range.second;
  });
}

void sort_layer_tensor(const ModelConfig& config, std::string_view tail, TensorTraits& traits) {
  const TensorNames& names = tensor_names(config);
  const auto starts = [&](const std::string& prefix) {
    return !prefix.empty() && tail.starts_with(prefix);
  };
  std::string_view rest = tail;
  const auto slot = strip(names.expert_prefix, rest);
  const bool stack = (!names.fused_gate_up.empty() && tail.starts_with(names.fused_gate_up)) ||
                     (!names.fused_down.empty() && tail.starts_with(names.fused_down));
  if (config.dense_base && starts(names.expert_prefix)) {
    traits.slot = 0;
    add(traits, TensorSet::kRoutedExperts);
  } else if (slot || stack) {
    traits.slot = slot.value_or(-1);
    add(traits, TensorSet::kRoutedExperts);
  } else if (is_expert_tensor(config, traits.stored)) {
    add(traits, TensorSet::kGate);  // what the router stores per expert
  } else if (starts(names.shared_prefix) || tail == names.shared_gate) {
    add(traits, TensorSet::kSharedExperts);
  } else if (tail.find("attn.") != std::string_view::npos) {
    add(traits, TensorSet::kAttention);
  } else if (starts(names.dense_prefix)) {
    add(traits, TensorSet::kDense);
  }
  if (tail.find("norm") != std::string_view::npos) add(traits, TensorSet::kNorms);
}

}  // namespace

TensorTraits traits_of(const ModelConfig& config, std::string_view name) {
  TensorTraits traits;
  traits.name = traits.stored = std::string(name);
  add(traits, TensorSet::kAll);
  std::string_view tail = name;
  if (tail.starts_with(config.tensor_prefix)) tail.remove_prefix(config.tensor_prefix.size());
  if (const auto layer = strip(tensor_names(config).layer_prefix, tail)) {
    traits.layer = *layer;
    sort_layer_tensor(config, tail, traits);
    // The fused layout of transformers 5 renames mixtral's gate.
    const TensorNames& names = tensor_names(config);
    if (!names.gate.empty() && tail == names.fused_gate) {
      traits.name = layer_tensor(config, traits.layer, names.gate);
    }
  } else if (tail.find("norm") != std::string_view::npos) {
    add(traits, TensorSet::kNorms);
  } else if (tail.find("embed") != std::string_view::npos || tail.starts_with("lm_head.")) {
    add(traits, TensorSet::kEmbeddings);
  }
  return traits;
}

TensorTraits module_traits_of(std::string_view name) {
  TensorTraits traits;
  traits.name = traits.stored = std::string(name);
  add(traits, TensorSet::kAll);
  std::string_view tail = name;
  traits.layer = strip("layers.{L}.", tail).value_or(-1);
  if (const auto slot = strip("experts.{e}.", tail)) {
    traits.slot = *slot;
    add(traits, TensorSet::kRoutedExperts);
  } else if (tail.starts_with("gate.")) {
    add(traits, TensorSet::kGate);
  }
  return traits;
}

struct RuleMatcher::Pattern {
  std::optional<TensorSet> set;
  std::string glob;
  std::shared_ptr<pcre2_code> expression;
  std::optional<IndexRanges> layers, experts;

  bool matches(const std::string& name) const {
    if (!expression) return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0;
    const std::shared_ptr<pcre2_match_data> data(
        pcre2_match_data_create_from_pattern(expression.get(), nullptr), pcre2_match_data_free);
    const std::shared_ptr<pcre2_match_context> context(pcre2_match_context_create(nullptr),
                                                       pcre2_match_context_free);
    pcre2_set_match_limit(context.get(), kMatchLimit);
    const auto* text = reinterpret_cast<PCRE2_SPTR>(name.data());
    return pcre2_match(expression.get(), text, name.size(), 0, 0, data.get(), context.get()) >= 0;
  }
};

Result<RuleMatcher> RuleMatcher::create(const Recipe& recipe) {
  RuleMatcher out;
  for (const MergeRule& rule : recipe.rules) {
    auto pattern = std::make_shared<Pattern>();
    pattern->layers = rule.layers;
    pattern->experts = rule.experts;
    pattern->glob = rule.tensors;
    pattern->set = kTensorSetNames.find(rule.tensors);
    if (rule.tensors.size() > 2 && rule.tensors.front() == '/' && rule.tensors.back() == '/') {
      const std::string text = rule.tensors.substr(1, rule.tensors.size() - 2);
      int error = 0;
      PCRE2_SIZE at = 0;
      pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                       &error, &at, nullptr);
      if (code == nullptr) {
        return Status(Code::kInvalidArgument,
                      fmt::format("{}: rules.tensors: found {} (expected a regular expression: "
                                  "broken at character {})",
                                  recipe.label, quote(rule.tensors), at + 1));
      }
      pattern->expression.reset(code, pcre2_code_free);
    }
    out.patterns_.push_back(std::move(pattern));
  }
  return out;
}

std::optional<size_t> RuleMatcher::match(const TensorTraits& traits) const {
  for (size_t i = 0; i < patterns_.size(); ++i) {
    const Pattern& pattern = *patterns_[i];
    if (pattern.layers && (traits.layer < 0 || !inside(pattern.layers, traits.layer))) continue;
    if (pattern.experts && (traits.slot < 0 || !inside(pattern.experts, traits.slot))) continue;
    const bool taken = pattern.set ? traits.in(*pattern.set)
                                   : pattern.matches(traits.name) || pattern.matches(traits.stored);
    if (taken) return i;
  }
  return std::nullopt;
}

}  // namespace chimera
