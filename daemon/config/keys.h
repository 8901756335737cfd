// The keys of a deployment file, in one table: what the reader accepts, what an unknown key is
// compared with, and what the test holds against configs/deployment.schema.json.
//
// Thread safety: constants and free functions, from any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera {

inline constexpr std::string_view kDeploymentKeys[] = {
    "chimera",   "backbone", "composition", "serve",  "control", "state", "watch",
    "libraries", "threads",  "security",    "memory", "trust",   "canary"};
inline constexpr std::string_view kBackboneKeys[] = {"path", "precision", "chat_template"};
inline constexpr std::string_view kPrecisionKeys[] = {"experts", "attention", "head"};
inline constexpr std::string_view kCompositionKeys[] = {"top_k", "modules"};
inline constexpr std::string_view kModuleKeys[] = {"path",   "enabled",   "bias",
                                                   "lambda", "precision", "weight"};
inline constexpr std::string_view kServeKeys[] = {
    "endpoint",     "insecure",       "max_sequences", "max_context",
    "max_queue",    "max_events",     "prefill_chunk", "max_live_epochs",
    "prefix_cache", "step_target_ms", "speculative"};
inline constexpr std::string_view kControlKeys[] = {"endpoint"};
inline constexpr std::string_view kMemoryKeys[] = {"budget",    "kv",           "kv_format",
                                                   "unread",    "gate_samples", "adapters",
                                                   "pin_limit", "pinned",       "evict_replaced"};
inline constexpr std::string_view kCanaryKeys[] = {"after", "error_rate", "ms_per_token",
                                                   "bits_per_byte"};
inline constexpr std::string_view kLibrariesKeys[] = {"in_process", "max_deadline_ms", "max_memory",
                                                      "max_load_ms", "max_step_ms"};

inline constexpr std::string_view kSecurityKeys[] = {"key", "clients"};
inline constexpr std::string_view kTrustKeys[] = {"roots", "keys", "require", "minimum"};

/// Every key as a dotted path, list items as "[]": "composition.modules[].bias".
std::vector<std::string> deployment_keys();

}  // namespace chimera
