#include "daemon/model/loaded_backbone.h"

#include <chrono>

#include "backbone/checkpoint/fingerprint.h"
#include "backbone/language/language.h"
#include "experts/kinds/evictable_base.h"
#include "experts/kinds/weights.h"

namespace chimera {
namespace {

// A replaced expert that a request excluded its module for stays that long: reading it for each of
// a client's requests would make all of them wait.
constexpr std::chrono::seconds kLinger{30};

}  // namespace

Result<LoadedBackbone> load_backbone(const DeploymentConfig& config, const std::string& cache_dir) {
  LoadedBackbone out;
  Result<Checkpoint> checkpoint = Checkpoint::open(config.backbone.path, Residency::kAutomatic);
  if (!checkpoint.ok()) return checkpoint.status().with_context("backbone.path");
  out.quantization = checkpoint->quantization();
  out.stored_bytes = checkpoint->file_bytes();
  auto backbone = Backbone::load(*checkpoint, config.backbone.precision);
  if (!backbone.ok()) return backbone.status();
  out.backbone = std::move(*backbone);
  out.source = std::make_shared<const BackboneSource>(out.backbone, *checkpoint);
  auto base =
      load_base_experts(*checkpoint, out.backbone->config(), config.backbone.precision.experts);
  if (!base.ok()) return base.status();
  out.base = std::move(*base);
  if (config.memory.evict_replaced) {
    auto evictable = make_evictable(out.base, *checkpoint, out.backbone->config(),
                                    config.backbone.precision.experts, kLinger);
    if (!evictable.ok()) return evictable.status();
    out.base = std::move(*evictable);
  }
  Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, cache_dir);
  if (!fingerprint.ok()) return fingerprint.status();
  out.fingerprint = std::move(*fingerprint);
  if (!checkpoint->has_tokenizer()) return out;
  auto tokenizer = load_tokenizer(*checkpoint);
  if (!tokenizer.ok()) return tokenizer.status();
  out.tokenizer = std::move(*tokenizer);
  if (!config.backbone.chat_template.empty()) {
    auto named = load_chat_template(*checkpoint, config.backbone.chat_template);
    if (!named.ok()) return named.status().with_context("backbone.chat_template");
    out.chat_template = std::move(*named);
    return out;
  }
  // A bad template of the checkpoint's costs the `chat` call only.
  auto chat = load_chat_template(*checkpoint);
  out.chat_template_problem = chat.status();
  if (chat.ok()) out.chat_template = std::move(*chat);
  return out;
}

}  // namespace chimera
