#include "daemon/config/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/io/env.h"
#include "base/limits.h"
#include "base/yaml/tree.h"
#include "daemon/config/canary.h"
#include "daemon/config/endpoint.h"
#include "daemon/config/keys.h"
#include "daemon/config/reader.h"
#include "daemon/config/security.h"
#include "daemon/config/values.h"
#include "router/routing_table.h"

namespace chimera {

namespace {

constexpr size_t kMaxBytes = 1u << 20;  // of the file
constexpr size_t kMaxWatch = 64;

// Reads the sections of one file. Each method notes problems and goes on.
class Reader {
 public:
  Reader(YamlProblems& problems, std::string base_dir)
      : problems_(problems), values_(problems, std::move(base_dir)) {}

  void deployment(const YamlNode& root, DeploymentConfig* out) {
    const MapReader top(root, "", kDeploymentKeys, problems_);
    if (!top.valid()) return;
    format(top);
    backbone(top, out);
    if (const YamlNode* node = top.find("composition"))
      composition(*node, "composition", &out->composition);
    read_security(top, values_, problems_, &out->security);
    read_trust(top, values_, problems_, &out->trust);
    serve(top, out);
    values_.path(top, "state", "a directory", &out->state_dir);
    watch(top, out);
    read_libraries(top, values_, problems_, &out->libraries);
    threads(top, out);
    memory(top, out);
    read_canary(top, problems_, &out->canary);
  }

  void composition(const YamlNode& node, const std::string& name, CompositionSpec* out) {
    const MapReader map(node, name, kCompositionKeys, problems_);
    if (!map.valid()) return;
    if (map.find("top_k") != nullptr) {
      int64_t top_k = 0;
      map.integer("top_k", 1, kMaxTopK, &top_k);
      if (top_k > 0) out->top_k = top_k;
    }
    const YamlNode* list = map.find("modules");
    if (list == nullptr) return;
    if (list->kind != YamlNode::Kind::kList) {
      // `modules:` with every entry commented out means none.
      if (list->kind != YamlNode::Kind::kNull) map.bad("modules", *list, "a list of modules");
      return;
    }
    if (list->items.size() > static_cast<size_t>(kMaxModules)) {
      problems_.add(*list, fmt::format("{}: found {} modules (expected at most {})",
                                       map.path_of("modules"), list->items.size(), kMaxModules));
      return;
    }
    std::set<std::string> seen;
    for (size_t i = 0; i < list->items.size(); ++i) {
      module(list->items[i], fmt::format("{}[{}]", map.path_of("modules"), i), &seen, out);
    }
  }

 private:
  void format(const MapReader& top) {
    std::string format;
    if (top.string("chimera", "deployment/1", &format) && format != "deployment/1") {
      top.bad("chimera", *top.find("chimera"), "deployment/1");
    }
  }

  void backbone(const MapReader& top, DeploymentConfig* out) {
    const YamlNode* node = top.find("backbone");
    if (node == nullptr) {
      problems_.add(top.at(), "backbone.path: missing (expected the directory of a checkpoint)");
      return;
    }
    const MapReader map(*node, "backbone", kBackboneKeys, problems_);
    if (!map.valid()) return;
    if (map.find("path") == nullptr) {
      problems_.add(map.at(), "backbone.path: missing (expected the directory of a checkpoint)");
    }
    values_.path(map, "path", "the directory of a checkpoint", &out->backbone.path);
    precisions(map, &out->backbone.precision);
    values_.path(map, "chat_template", "a file with a chat template", &out->backbone.chat_template);
  }

  /// A name, or a map from classes of tensors to names.
  void precisions(const MapReader& backbone, PrecisionPlan* out) {
    const YamlNode* node = backbone.find("precision");
    if (node == nullptr) return;
    if (node->kind != YamlNode::Kind::kMap) {
      Precision all{};
      if (values_.precision(backbone, "precision", &all)) *out = all;
      return;
    }
    const MapReader map(*node, "backbone.precision", kPrecisionKeys, problems_);
    values_.precision(map, "experts", &out->experts);
    values_.precision(map, "attention", &out->attention);
    values_.precision(map, "head", &out->head);
  }

  void module(const YamlNode& node, const std::string& name, std::set<std::string>* seen,
              CompositionSpec* out) {
    const MapReader map(node, name, kModuleKeys, problems_);
    if (!map.valid()) return;
    CompositionSpec::ModuleSpec spec;
    if (map.find("path") == nullptr) {
      problems_.add(map.at(), name + ".path: missing (expected the directory of a module)");
    }
    if (values_.path(map, "path", "the directory of a module", &spec.path) &&
        !seen->insert(spec.path).second) {
      map.bad("path", *map.find("path"), "a module that is not listed above");
    }
    map.boolean("enabled", &spec.enabled);
    map.number("bias", kMaxBias, &spec.bias);
    map.numbers("lambda", kMaxLambda, &spec.lambda);
    Precision precision{};
    if (values_.precision(map, "precision", &precision)) spec.precision = precision;
    map.above_zero("weight", kMaxBundleWeight, &spec.weight);
    out->modules.push_back(std::move(spec));
  }

  void speculative(const MapReader& map, DeploymentConfig* out) {
    std::string text;
    constexpr std::string_view kExpected = "none or ngram";
    if (!map.string("speculative", kExpected, &text)) return;
    out->serve.ngram_speculation = text == "ngram";
    if (text != "none" && text != "ngram")
      map.bad("speculative", *map.find("speculative"), kExpected);
  }

  void serve(const MapReader& top, DeploymentConfig* out) {
    if (const YamlNode* node = top.find("serve")) {
      const MapReader map(*node, "serve", kServeKeys, problems_);
      values_.endpoint(map, &out->serve.endpoint);
      insecure(map, out);
      exposure(map, out->serve.endpoint, out->serve.insecure, *out);
      map.integer("max_sequences", 1, 1024, &out->serve.max_sequences);
      map.integer("max_context", 1, 1 << 20, &out->serve.max_context);
      map.integer("max_queue", 1, 1 << 16, &out->serve.max_queue);
      map.integer("max_events", 16, 1 << 16, &out->serve.max_events);
      map.integer("prefill_chunk", 1, 1 << 16, &out->serve.prefill_chunk);
      map.integer("step_target_ms", 1, 10'000, &out->serve.step_target_ms);
      map.integer("max_live_epochs", 1, 64, &out->serve.max_live_epochs);
      map.boolean("prefix_cache", &out->serve.prefix_cache);
      speculative(map, out);
    }
    if (const YamlNode* node = top.find("control")) {
      const MapReader map(*node, "control", kControlKeys, problems_);
      values_.endpoint(map, &out->control.endpoint);
      exposure(map, out->control.endpoint, /*insecure=*/false, *out);
      if (!out->control.endpoint.empty() && out->control.endpoint == out->serve.endpoint) {
        map.bad("endpoint", *map.find("endpoint"), "another endpoint than serve.endpoint");
      }
    }
  }

  void insecure(const MapReader& serve, DeploymentConfig* out) {
    std::string text;
    if (!serve.string("insecure", "loopback", &text)) return;
    out->serve.insecure = text == "loopback";
    if (!out->serve.insecure) serve.bad("insecure", *serve.find("insecure"), "loopback");
    if (!out->serve.insecure || is_loopback_endpoint(out->serve.endpoint)) return;
    const bool stated = serve.find("endpoint") != nullptr;
    const char* key = stated ? "endpoint" : "insecure";
    serve.bad(key, *serve.find(key),
              stated ? "tcp://127.0.0.1:PORT beside `insecure: loopback`"
                     : "it beside `endpoint: tcp://127.0.0.1:PORT` alone");
  }

  /// Over TCP anybody of this machine, or of others, may ask: so peers show keys.
  void exposure(const MapReader& map, const std::string& endpoint, bool insecure,
                const DeploymentConfig& config) {
    if (!endpoint.starts_with("tcp://") || insecure) return;
    if (!config.security.key.empty() && !config.security.clients.empty()) return;
    map.bad("endpoint", *map.find("endpoint"),
            "ipc://PATH, or security.key and security.clients beside tcp://: without them there is "
            "neither encryption nor authentication");
  }

  void watch(const MapReader& top, DeploymentConfig* out) {
    const YamlNode* list = top.find("watch");
    if (list == nullptr || list->kind == YamlNode::Kind::kNull) return;
    if (list->kind != YamlNode::Kind::kList || list->items.size() > kMaxWatch) {
      top.bad("watch", *list, fmt::format("a list of at most {} directories", kMaxWatch));
      return;
    }
    for (size_t i = 0; i < list->items.size(); ++i) {
      const std::string name = fmt::format("watch[{}]", i);
      std::string dir;
      if (!values_.resolve(list->items[i], name, "a directory", &dir)) continue;
      if (std::find(out->watch.begin(), out->watch.end(), dir) != out->watch.end()) {
        top.bad(name, list->items[i], "a directory that is not listed above");
        continue;
      }
      out->watch.push_back(std::move(dir));
    }
  }

  void threads(const MapReader& top, DeploymentConfig* out) {
    const YamlNode* node = top.find("threads");
    if (node == nullptr) return;
    if (is_string(*node)) {
      if (node->text != "auto") top.bad("threads", *node, "auto or 1..256");
      return;
    }
    int64_t threads = 0;
    top.integer("threads", 1, 256, &threads);
    out->threads = static_cast<int>(threads);
  }

  void memory(const MapReader& top, DeploymentConfig* out) {
    const YamlNode* node = top.find("memory");
    if (node == nullptr) return;
    const MapReader map(*node, "memory", kMemoryKeys, problems_);
    if (!map.valid()) return;
    values_.bytes(map, "budget", &out->memory.budget);
    values_.bytes(map, "kv", &out->memory.kv);
    values_.kv_format(map, "kv_format", &out->memory.kv_format);
    values_.bytes(map, "unread", &out->memory.unread);
    const YamlNode* samples = map.find("gate_samples");
    if (samples != nullptr && is_string(*samples) && samples->text == "none") {
      out->memory.gate_samples = 0;
    } else {
      values_.bytes(map, "gate_samples", &out->memory.gate_samples);
    }
    const YamlNode* adapters = map.find("adapters");
    if (adapters == nullptr || !is_string(*adapters) || adapters->text != "none")
      values_.bytes(map, "adapters", &out->memory.adapters);
    map.boolean("evict_replaced", &out->memory.evict_replaced);
    pin_limit(map, out);
  }

  void pin_limit(const MapReader& map, DeploymentConfig* out) {
    const YamlNode* node = map.find("pin_limit");
    if (node != nullptr && is_string(*node)) {
      if (node->text != "none") map.bad("pin_limit", *node, "none or 1..86400 seconds");
    } else if (node != nullptr) {
      int64_t seconds = 0;
      map.integer("pin_limit", 1, 86'400, &seconds);
      if (seconds > 0) out->memory.pin_limit = seconds;
    }
    std::string text;
    constexpr std::string_view kExpected = "restart or end";
    if (!map.string("pinned", kExpected, &text)) return;
    out->memory.end_pinned = text == "end";
    if (text != "restart" && text != "end") map.bad("pinned", *map.find("pinned"), kExpected);
    if (node == nullptr) map.bad("pinned", *map.find("pinned"), "it beside pin_limit alone");
  }

  YamlProblems& problems_;
  const ValueReader values_;
};

Result<YamlNode> parse(std::string_view text, const std::string& label, YamlProblems& problems) {
  if (text.size() > kMaxBytes) {
    return Status(
        Code::kInvalidArgument,
        fmt::format("{}:1:1: found {} bytes (expected at most {})", label, text.size(), kMaxBytes));
  }
  return parse_yaml(text, label, problems);
}

}  // namespace

Result<DeploymentConfig> parse_deployment(std::string_view yaml, const std::string& label,
                                          const std::string& base_dir) {
  YamlProblems problems(label);
  const Result<YamlNode> root = parse(yaml, label, problems);
  if (!root.ok()) return root.status();
  DeploymentConfig config;
  config.source = label;
  Reader(problems, base_dir).deployment(*root, &config);
  if (!problems.empty()) return problems.status("");
  return config;
}

Result<CompositionSpec> parse_composition(std::string_view text, const std::string& label,
                                          const std::string& base_dir) {
  YamlProblems problems(label);
  const Result<YamlNode> root = parse(text, label, problems);
  if (!root.ok()) return root.status();
  const auto has = [&](std::string_view key) {
    return std::any_of(root->entries.begin(), root->entries.end(),
                       [&](const auto& entry) { return entry.key.text == key; });
  };
  CompositionSpec spec;
  Reader reader(problems, base_dir);
  if (has("backbone") || has("chimera")) {
    DeploymentConfig whole;
    reader.deployment(*root, &whole);
    spec = std::move(whole.composition);
  } else if (has("composition")) {
    constexpr std::string_view kKeys[] = {"composition"};
    const MapReader map(*root, "", kKeys, problems);
    reader.composition(*map.find("composition"), "composition", &spec);
  } else {
    reader.composition(*root, "", &spec);
  }
  if (!problems.empty()) return problems.status("");
  return spec;
}

Result<DeploymentConfig> read_deployment(const std::string& file) {
  Result<std::string> text = read_file(Env::system(), file, kMaxBytes);
  if (!text.ok()) return text.status();
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(file, error);
  if (error) return Status(Code::kInternal, file + ": " + error.message());
  return parse_deployment(*text, file, absolute.parent_path().string());
}

}  // namespace chimera
