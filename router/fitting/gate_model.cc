#include "router/fitting/gate_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "backbone/checkpoint/fingerprint.h"
#include "backbone/language/language.h"
#include "experts/kinds/load.h"
#include "experts/kinds/weights.h"
#include "router/moe.h"

namespace chimera {
namespace {

// Of a window: what gates see settles within some dozens of tokens, and attention stays cheap.
constexpr size_t kWindowTokens = 256;
constexpr size_t kSampledTogether = 32;  // the products of a step are worth it

/// Keeps what it hands on.
class Recorder final : public FeedForward {
 public:
  Recorder(FeedForward& inner, int64_t hidden, std::map<int64_t, std::vector<float>>* inputs)
      : inner_(inner), hidden_(hidden), inputs_(inputs) {}

  Status forward(int64_t layer, const float* x, int64_t rows, float* y) override {
    if (inputs_ != nullptr) {
      std::vector<float>& kept = (*inputs_)[layer];
      // The first row is that of the token before the text.
      kept.insert(kept.end(), x + hidden_, x + rows * hidden_);
    }
    return inner_.forward(layer, x, rows, y);
  }

 private:
  FeedForward& inner_;
  const int64_t hidden_;
  std::map<int64_t, std::vector<float>>* inputs_;
};

std::optional<int32_t> text_start(const Tokenizer& tokenizer, const ModelConfig& config) {
  const auto start = tokenizer.encode("", {.add_special_tokens = true, .match_special = false});
  if (start.ok() && !start->empty()) return start->front();
  if (!config.eos_token_ids.empty()) return config.eos_token_ids.front();
  return std::nullopt;
}

Status check_kinds(const ModelConfig& config, const Module& module) {
  switch (config.gate_kind) {
    case GateKind::kSoftmaxTopK:
    case GateKind::kTopKSoftmax:
      break;
    case GateKind::kTopKSigmoid:
    case GateKind::kGroupedSigmoid:
      return {
          Code::kUnimplemented,
          fmt::format("fit-gate: found the gate of {} (expected one with a softmax: shares of a "
                      "sigmoid gate are no probabilities)",
                      config.model_type)};
  }
  if (module.manifest.kind == ModuleKind::kWeights && module.manifest.attach == Attach::kAppend)
    return {};
  return {Code::kUnimplemented,
          fmt::format("fit-gate: found module {} of kind {}, attach {} (expected weights, append)",
                      module.name(), kModuleKindNames.name(module.manifest.kind),
                      kAttachNames.name(module.manifest.attach))};
}

/// -log softmax(logits)[token].
double nats_of(std::span<const float> logits, int32_t token) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float value : logits) sum += std::exp(double{value} - most);
  return most + std::log(sum) - logits[static_cast<size_t>(token)];
}

/// One token from softmax(logits).
int32_t draw(std::span<const float> logits, std::mt19937_64& rng) {
  const float most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> odds;
  for (const float value : logits) odds.push_back(std::exp(double{value} - most));
  return static_cast<int32_t>(std::discrete_distribution<size_t>(odds.begin(), odds.end())(rng));
}

}  // namespace

double GateReading::bits_per_byte() const {
  return bytes == 0 ? 0 : nats / std::numbers::ln2 / static_cast<double>(bytes);
}

Result<GateModel> GateModel::open(const std::string& backbone_dir, const std::string& module_dir,
                                  Precision precision, int threads) {
  GateModel out;
  const Result<Checkpoint> checkpoint = Checkpoint::open(backbone_dir, Residency::kAutomatic);
  if (!checkpoint.ok()) return checkpoint.status();
  auto backbone = Backbone::load(*checkpoint, precision);
  if (!backbone.ok()) return backbone.status();
  out.backbone_ = std::move(*backbone);
  auto tokenizer = load_tokenizer(*checkpoint);
  if (!tokenizer.ok()) return tokenizer.status();
  if (*tokenizer == nullptr) {
    return Status(Code::kInvalidArgument,
                  backbone_dir + ": found no tokenizer (expected one: gates are fitted on texts)");
  }
  out.tokenizer_ = std::move(*tokenizer);
  auto base = load_base_experts(*checkpoint, out.config(), precision);
  if (!base.ok()) return base.status();
  out.base_ = std::move(*base);
  Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, "");
  if (!fingerprint.ok()) return fingerprint.status();
  out.fingerprint_ = std::move(*fingerprint);
  BackboneInfo info{out.config(), out.fingerprint_, precision};
  auto module = load_module(module_dir, info);
  if (!module.ok()) return module.status();
  CHIMERA_RETURN_IF_ERROR(check_kinds(out.config(), **module));
  out.module_ = std::move(*module);
  out.prefix_ = text_start(*out.tokenizer_, out.config());
  out.pool_ = std::make_unique<ThreadPool>(threads);
  return out;
}

Result<WindowedText> GateModel::windows(const std::string& text, size_t most) const {
  const auto tokens =
      tokenizer_->encode(text, {.add_special_tokens = false, .match_special = false});
  if (!tokens.ok()) return tokens.status();
  WindowedText out;
  for (size_t at = 0; at < tokens->size() && out.windows.size() < most; at += kWindowTokens) {
    const size_t end = std::min(at + kWindowTokens, tokens->size());
    const std::span<const int32_t> part(tokens->data() + at, end - at);
    TokenWindow window;
    // Without a token that starts texts the first one of each window stands in for it.
    if (prefix_) window.push_back(*prefix_);
    window.insert(window.end(), part.begin(), part.end());
    if (window.size() < 2) continue;
    const auto written =
        tokenizer_->decode(prefix_ ? part : part.subspan(1), /*skip_special=*/false);
    if (!written.ok()) return written.status();
    out.windows.push_back(std::move(window));
    out.bytes.push_back(static_cast<int64_t>(written->size()));
  }
  return out;
}

Result<GateReading> GateModel::read(const WindowedText& text,
                                    const std::shared_ptr<const Module>& module, Keep keep) {
  Composition composition;
  composition.backbone_fingerprint = fingerprint_;
  std::vector<std::shared_ptr<const Module>> modules;
  if (module != nullptr) {
    const Manifest& manifest = module->manifest;
    composition.modules.push_back({manifest.name, manifest.version, manifest.digest, module->dir});
    modules.push_back(module);
  }
  auto table = RoutingTableBuilder(config(), base_).build(0, composition, modules);
  if (!table.ok()) return table.status();
  const std::vector<float> bias((*table)->modules().size(), 0.0f);
  const auto view = make_route_view(*table, (*table)->all(), bias);
  if (!view.ok()) return view.status();

  GateReading out;
  SequenceUsage usage;
  MoeRouter router(config(), best_kernels(), *pool_);
  Recorder recorder(router, config().hidden_size, keep == Keep::kInputs ? &out.inputs : nullptr);
  Workspace workspace;
  const auto vocab = static_cast<size_t>(config().vocab_size);
  for (size_t i = 0; i < text.windows.size(); ++i) {
    const TokenWindow& window = text.windows[i];
    const auto n = static_cast<int64_t>(window.size());
    KvCacheOptions options;
    options.prefix_cache = false;
    options.blocks = (n + options.block_tokens - 1) / options.block_tokens;
    const auto cache = KvCache::create(config(), options);
    if (!cache.ok()) return cache.status();
    KvSequence kv(cache->get());
    CHIMERA_RETURN_IF_ERROR(kv.reserve(n));
    BatchSegment segment{window, 0, &kv, BatchSegment::Logits::kAll};
    RoutedSegment routed;
    routed.view = view->get();
    routed.rows = n;
    routed.usage = &usage;
    router.begin_pass({&routed, 1}, nullptr);
    CHIMERA_RETURN_IF_ERROR(
        backbone_->forward({&segment, 1}, recorder, best_kernels(), *pool_, workspace));
    if (routed.poisoned) return routed.failure;
    for (size_t r = 0; r + 1 < window.size(); ++r) {
      const std::span<const float> logits(workspace.logits.data() + r * vocab, vocab);
      out.nats += nats_of(logits, window[r + 1]);
    }
    out.bytes += text.bytes[i];
  }
  if (module != nullptr) out.share = usage.share(module->name());
  return out;
}

Result<WindowedText> GateModel::sample(size_t count, uint64_t seed) {
  if (!prefix_) {
    return Status(Code::kInvalidArgument,
                  "fit-gate: found no token that begins texts (expected one, or --against)");
  }
  const auto table = RoutingTableBuilder(config(), base_).build(0, {fingerprint_, {}, {}}, {});
  if (!table.ok()) return table.status();
  const auto view = make_route_view(*table, (*table)->all(), {0.0f});
  if (!view.ok()) return view.status();
  WindowedText out;
  std::mt19937_64 rng(seed);
  while (out.windows.size() < count) {
    const size_t together = std::min(kSampledTogether, count - out.windows.size());
    auto written = write_windows(**view, together, rng);
    if (!written.ok()) return written.status();
    for (TokenWindow& window : *written) {
      out.windows.push_back(std::move(window));
      out.bytes.push_back(0);  // nobody asks how likely they are
    }
  }
  return out;
}

Result<std::vector<TokenWindow>> GateModel::write_windows(const RouteView& view, size_t count,
                                                          std::mt19937_64& rng) {
  std::vector<TokenWindow> windows(count, TokenWindow{*prefix_});
  KvCacheOptions options;
  options.prefix_cache = false;
  const auto blocks = static_cast<int64_t>(kWindowTokens) / options.block_tokens + 1;
  options.blocks = blocks * static_cast<int64_t>(count);
  const auto cache = KvCache::create(config(), options);
  if (!cache.ok()) return cache.status();
  std::vector<std::unique_ptr<KvSequence>> kv;
  for (size_t i = 0; i < count; ++i) {
    kv.push_back(std::make_unique<KvSequence>(cache->get()));
    CHIMERA_RETURN_IF_ERROR(kv.back()->reserve(static_cast<int64_t>(kWindowTokens)));
  }
  MoeRouter router(config(), best_kernels(), *pool_);
  Workspace workspace;
  const auto vocab = static_cast<size_t>(config().vocab_size);
  for (size_t at = 0; at + 1 < kWindowTokens; ++at) {
    std::vector<BatchSegment> segments;
    std::vector<RoutedSegment> routed(count);
    for (size_t i = 0; i < count; ++i) {
      segments.push_back({std::span(windows[i]).last(1), static_cast<int64_t>(at), kv[i].get(),
                          BatchSegment::Logits::kLast});
      routed[i].view = &view;
      routed[i].rows = 1;
    }
    router.begin_pass(routed, nullptr);
    CHIMERA_RETURN_IF_ERROR(
        backbone_->forward(segments, router, best_kernels(), *pool_, workspace));
    for (size_t i = 0; i < count; ++i) {
      if (routed[i].poisoned) return routed[i].failure;
      windows[i].push_back(draw({workspace.logits.data() + i * vocab, vocab}, rng));
    }
  }
  return windows;
}

}  // namespace chimera
