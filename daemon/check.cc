#include "daemon/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/language/language.h"
#include "base/bytes.h"
#include "clients/keys/certificate.h"
#include "clients/wire/endpoints.h"
#include "daemon/memory_plan.h"
#include "daemon/places.h"
#include "daemon/security/clients_file.h"
#include "daemon/security/module_trust.h"
#include "daemon/startup.h"
#include "experts/kinds/assembly_module.h"
#include "experts/kinds/bundle_module.h"
#include "experts/kinds/library_module.h"
#include "experts/kinds/lora.h"
#include "experts/kinds/size.h"
#include "experts/module/checkpoint_check.h"
#include "experts/module/payload.h"
#include "router/top_k.h"

namespace chimera {
namespace {

std::string budget_text(const MemoryBudget& budget) {
  if (budget.bytes == 0) return "no limit is known";
  const std::string less =
      budget.reserve == 0
          ? std::string()
          : fmt::format(", {} less {}", bytes_text(budget.limit), bytes_text(budget.reserve));
  return fmt::format("{} ({}{})", bytes_text(budget.bytes), budget.source, less);
}

class DeploymentCheck {
 public:
  DeploymentCheck(const DeploymentConfig& config, std::string* summary)
      : config_(config), summary_(*summary) {}

  Status run() {
    backbone();
    line("precision", config_.backbone.precision.name());
    if (model_) context();
    trust();
    modules();
    if (model_) memory();
    if (model_) top_k();
    endpoint("serve", config_.serve.endpoint, wire::default_serve_endpoint());
    endpoint("control", config_.control.endpoint, wire::default_control_endpoint());
    security();
    state();
    watched();
    if (problems_.empty()) return {};
    return {Code::kInvalidArgument, fmt::format("{}", fmt::join(problems_, "\n"))};
  }

 private:
  void line(const char* label, const std::string& text) {
    summary_ += fmt::format("{:<12} {}\n", label, text);
  }
  /// Notes the problem under the name of what the deployment says; true when there was none.
  bool good(const std::string& where, const Status& status) {
    if (status.ok()) return true;
    problems_.push_back(where.empty() ? status.to_string() : where + ": " + status.to_string());
    return false;
  }

  void backbone() {
    const std::string& dir = config_.backbone.path;
    const auto checkpoint = Checkpoint::open(dir, Residency::kMapped);
    if (!good("backbone.path", checkpoint.status())) return;
    const Result<ModelConfig> model = read_model_config(*checkpoint);
    if (!good("backbone.path", model.status())) return;
    line("backbone",
         fmt::format("{} ({}, {} layers, hidden {}, {} experts)", dir, model->model_type,
                     model->num_layers, model->hidden_size, model->num_experts));
    if (!checkpoint->quantization().empty()) line("weights", checkpoint->quantization());
    const std::string& named = config_.backbone.chat_template;
    const auto chat =
        named.empty() ? load_chat_template(*checkpoint) : load_chat_template(*checkpoint, named);
    if (!named.empty()) good("backbone.chat_template", chat.status());
    line("chat", !chat.ok()         ? chat.status().to_string()
                 : *chat == nullptr ? "no template"
                 : named.empty()    ? "by the checkpoint's template"
                                    : "by " + named);
    if (checkpoint->packed()) line("packed", "of " + checkpoint->packed()->source);
    if (!good("backbone.precision", checkpoint->check_packed_for(config_.backbone.precision)) ||
        !good("backbone.path", check_checkpoint_tensors(*checkpoint, *model)) ||
        !good("backbone.path", check_checkpoint_numbers(*checkpoint, *model)))
      return;
    good("backbone.path", load_tokenizer(*checkpoint).status());
    model_ = *model;
    model_bytes_ = least_model_bytes(*checkpoint, config_.backbone.precision);
    // Without a cache: nothing is to be created.
    Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, "");
    if (good("backbone.path", fingerprint.status())) fingerprint_ = std::move(*fingerprint);
  }

  void context() {
    const int64_t asked = config_.serve.max_context;
    const int64_t most = model_->max_position_embeddings;
    line("context", asked <= most
                        ? fmt::format("{} tokens", asked)
                        : fmt::format("{} tokens: as many as the model takes (serve.max_context is "
                                      "{})",
                                      most, asked));
  }

  void trust() {
    const TrustConfig& trust = config_.trust;
    auto opened = ModuleTrust::open({trust.roots, trust.keys, trust.require_signed, trust.minimum});
    if (good("", opened.status())) trust_ = std::move(*opened);
  }

  /// Whether the daemon would let the module in.
  void let_in(const std::string& where, const std::string& dir, const Manifest& manifest) {
    if (trust_) good(where, trust_->check(dir, manifest));
    if (manifest.library) {
      good(where, library_runtime(config_)->check_demands(manifest.name, *manifest.library));
    }
    if (!manifest.library || manifest.library->isolation != Isolation::kInProcess ||
        config_.libraries.in_process) {
      return;
    }
    problems_.push_back(
        fmt::format("{}: found isolation: in-process (expected process, or "
                    "libraries.in_process: allow in the deployment)",
                    where));
  }

  void modules() {
    for (size_t i = 0; i < config_.composition.modules.size(); ++i) {
      const CompositionSpec::ModuleSpec& module = config_.composition.modules[i];
      const std::string where = fmt::format("composition.modules[{}]", i);
      const Result<Manifest> manifest = read_manifest(module.path);
      if (!good(where, manifest.status())) continue;
      let_in(where, module.path, *manifest);
      const auto precision = module.precision ? module.precision : manifest->precision;
      line("module", fmt::format("{} {}{}{} ({})", manifest->name, manifest->version,
                                 precision ? ", " + kPrecisionNames.text(*precision) : "",
                                 module.enabled ? "" : ", disabled", module.path));
      if (module.enabled) fitted_.push_back({manifest->name, manifest->fitted_top_k()});
      if (!model_) continue;
      const auto info = with_precision({*model_, fingerprint_, config_.backbone.precision.experts},
                                       *manifest, module.precision);
      if (!good(where, info.status())) continue;
      if (!good(where, check_weight(*manifest, module.weight))) continue;
      const Result<ModuleSize> size = module_size(module.path, *manifest, *info);
      if (size.ok()) count(where, *manifest, size->resident);  // else told below
      if (fingerprint_.empty()) continue;
      if (good(where, check_payload(module, *manifest, *info))) good(where, size.status());
    }
  }

  void count(const std::string& where, const Manifest& manifest, uint64_t bytes) {
    const std::optional<uint64_t>& adapters = config_.memory.adapters;
    if (!adapters || manifest.kind != ModuleKind::kLora) {
      module_bytes_ += bytes;
    } else if (bytes > *adapters) {
      problems_.push_back(
          fmt::format("{}: found an adapter of {} (expected {} at most, memory.adapters)", where,
                      bytes_text(bytes), bytes_text(*adapters)));
    }
  }

  Status check_payload(const CompositionSpec::ModuleSpec& module, const Manifest& manifest,
                       const BackboneInfo& info) {
    switch (manifest.kind) {
      case ModuleKind::kWeights:
        return open_module_payload(module.path, *model_, fingerprint_).status();
      case ModuleKind::kLibrary:
        return open_library_package(module.path, *model_, fingerprint_).status();
      case ModuleKind::kLora:
        return open_lora_payload(module.path, *model_, fingerprint_).status();
      case ModuleKind::kBundle:
        return verify_bundle(module.path, manifest, *model_, fingerprint_, &*model_);
      case ModuleKind::kAssembly:
        break;
    }
    const auto source = AssemblySource::open(module.path, manifest);
    if (!source.ok()) return source.status();
    CHIMERA_RETURN_IF_ERROR(
        complete_lambdas((*source)->recipe(), (*source)->lambdas(), module.lambda).status());
    CHIMERA_RETURN_IF_ERROR(check_assembly_outline(**source, manifest, info));
    return (*source)->verify();
  }

  /// What a daemon of this file would hold, and whether its budget bears it.
  void memory() {
    const EngineOptions options = engine_options(config_);
    const MemoryBudget budget = memory_budget(config_.memory.budget, memory_limit());
    const uint64_t rest = scratch_bytes(*model_, options) + queue_bytes(config_);
    const uint64_t fixed =
        model_bytes_ + rest + module_bytes_ + config_.memory.adapters.value_or(0);
    const uint64_t left = budget.bytes == 0 ? std::numeric_limits<uint64_t>::max()
                                            : budget.bytes - std::min(budget.bytes, fixed);
    const uint64_t cache = planned_kv_bytes(config_, *model_, options, left);
    line("memory", budget_text(budget));
    line("", fmt::format(
                 "{}: checkpoint {}, modules {}, {}scratch and queues {}, key/value cache {}",
                 bytes_text(fixed + cache), bytes_text(model_bytes_), bytes_text(module_bytes_),
                 config_.memory.adapters ? "adapters " + bytes_text(*config_.memory.adapters) + ", "
                                         : std::string(),
                 bytes_text(rest), kv_text(*model_, options, cache)));
    const uint64_t least = least_kv_bytes(*model_, options);
    if (cache < least) {
      problems_.push_back(fmt::format(
          "memory.kv: found {} (expected {} at least, one context of serve.max_context)",
          bytes_text(cache), bytes_text(least)));
    }
    if (budget.bytes > 0 && fixed + cache > budget.bytes) {
      problems_.push_back(fmt::format("memory: found {} (expected {} at most, {})",
                                      bytes_text(fixed + cache), bytes_text(budget.bytes),
                                      budget.source));
    }
  }

  void top_k() {
    const std::optional<int64_t> stated = config_.composition.top_k;
    const int64_t fallback = default_top_k(*model_);
    const int64_t used = effective_top_k(stated, fitted_, fallback);
    const bool by_modules = std::any_of(fitted_.begin(), fitted_.end(),
                                        [](const FittedModule& m) { return m.top_k.has_value(); });
    line("top_k",
         fmt::format("{} ({})", used,
                     stated       ? "composition.top_k"
                     : by_modules ? "what the modules were fitted for"
                                  : "the checkpoint's, until modules that state one are loaded"));
    for (const std::string& note : top_k_notes(stated, fitted_, fallback)) line("note", note);
  }

  void endpoint(const char* key, const std::string& stated, const std::string& fallback) {
    const std::string& endpoint = stated.empty() ? fallback : stated;
    line(key, endpoint);
    if (stated.empty() && !good(std::string(key) + ".endpoint", check_runtime_dir())) return;
    good(std::string(key) + ".endpoint", check_endpoint_place(endpoint));
  }

  void security() {
    if (!config_.security.key.empty()) {
      const auto key = keys::read_secret(config_.security.key);
      if (good("security.key", key.status())) line("public key", key->public_key);
    }
    if (config_.security.clients.empty()) return;
    const auto clients = read_clients(config_.security.clients);
    if (!good("security.clients", clients.status())) return;
    line("clients",
         fmt::format("{} by key, {} by user", clients->by_key.size(), clients->by_uid.size()));
  }

  void state() {
    std::string dir = config_.state_dir;
    if (dir.empty()) {
      Result<std::string> fallback = default_state_dir();
      if (!good("", fallback.status())) return;
      dir = std::move(*fallback);
    }
    line("state", dir);
    good("state", check_directory_place(dir));
  }

  void watched() {
    for (size_t i = 0; i < config_.watch.size(); ++i) {
      line("watch", config_.watch[i]);
      if (std::error_code none; std::filesystem::is_directory(config_.watch[i], none)) continue;
      problems_.push_back(
          fmt::format("watch[{}]: found no directory {} (expected one)", i, config_.watch[i]));
    }
  }

  const DeploymentConfig& config_;
  std::string& summary_;
  std::vector<std::string> problems_;
  std::unique_ptr<ModuleTrust> trust_;
  std::optional<ModelConfig> model_;  // set: the checkpoint is good
  std::string fingerprint_;
  uint64_t model_bytes_ = 0;          // least_model_bytes()
  uint64_t module_bytes_ = 0;         // of all modules
  std::vector<FittedModule> fitted_;  // of the enabled modules
};

}  // namespace

Status check_deployment(const DeploymentConfig& config, std::string* summary) {
  return DeploymentCheck(config, summary).run();
}

}  // namespace chimera
