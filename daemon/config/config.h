// The deployment file (design §7) as a value.
//
// Reading reports every problem at once, each with file, line, column, found and expected. Limits
// on the file: 1 MiB, depth 32, no aliases, no duplicate or unknown keys.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backbone/forward/kv_format.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// composition.modules[i] as written; also the object of `plan` and `apply` on the wire.
struct CompositionSpec {
  struct ModuleSpec {
    std::string path;  // absolute after reading
    bool enabled = true;
    float bias = 0.0f;
    /// Kind assembly: λ of parents, by name; empty: those of its recipe.
    std::map<std::string, double> lambda{};
    /// Kinds weights and assembly; none: the module's own, else `backbone.precision`'s of experts.
    std::optional<Precision> precision{};
    /// Kind bundle, beside others, in (0, kMaxBundleWeight]; none: its module.yaml's.
    std::optional<double> weight{};
  };
  std::optional<int64_t> top_k;
  std::vector<ModuleSpec> modules;
};

/// Who is let in.
struct SecurityConfig {
  std::string key;      // file of the daemon's secret key; empty: none
  std::string clients;  // file or directory; empty: this user alone
};

/// Which modules are let in.
struct TrustConfig {
  std::vector<std::string> roots;              // directories that hold them; empty: anywhere
  std::string keys;                            // directory of public keys; empty: none
  bool require_signed = false;                 // `require: signed`
  std::map<std::string, std::string> minimum;  // module -> oldest version
};

/// What modules of kind library may ask for; more is refused.
struct LibrariesConfig {
  bool in_process = false;           // to run inside the daemon
  int64_t max_deadline_ms = 2000;    // of one forward call, which the streams beside it wait for
  uint64_t max_memory = 1ull << 30;  // bytes of chimera.memory/1; a manifest's own default
  int64_t max_load_ms = 60'000;      // from the start of its code until it serves
  int64_t max_step_ms = 2000;        // that a step waits for one; as max_deadline_ms if not given
};

/// What a canary may not exceed (docs/canary.md): beyond a bound it is aborted.
struct CanaryBounds {
  int64_t after = 20;                     // requests that ended on it before a bound counts
  std::optional<double> error_rate{};     // of its requests, 0 to 1
  std::optional<double> ms_per_token{};   // of its generations, mean
  std::optional<double> bits_per_byte{};  // of the texts scored on it, mean

  bool none() const { return !error_rate && !ms_per_token && !bits_per_byte; }
};

struct DeploymentConfig {
  struct {
    std::string path;
    PrecisionPlan precision;
    std::string chat_template;  // a file; "": the checkpoint's own
  } backbone;
  CompositionSpec composition;
  struct {
    std::string endpoint;         // default: ipc in the runtime directory
    bool insecure = false;        // `insecure: loopback`: no keys over tcp on this machine
    int64_t max_sequences = 16;   // live at once
    int64_t max_context = 2048;   // tokens of one sequence, prompt and answer
    int64_t max_queue = 64;       // waiting requests; more: resource_exhausted
    int64_t max_events = 256;     // of one stream that its reader has not taken; more: it ends
    int64_t prefill_chunk = 128;  // prompt tokens per step over all sequences, so that a long
                                  // prompt delays the streams beside it by one chunk at most
    int64_t step_target_ms = 50;  // what a step with prompts in it may take: the gap that streams
                                  // beside them see
    int64_t max_live_epochs = 4;
    bool prefix_cache = true;
    bool ngram_speculation = false;  // `speculative: ngram`
  } serve;
  struct {
    std::string endpoint;
  } control;
  SecurityConfig security;
  TrustConfig trust;
  struct {
    std::optional<uint64_t> budget;  // bytes; none: automatic (memory_budget)
    std::optional<uint64_t> kv;      // bytes; none: automatic (automatic_kv_bytes)
    KvFormat kv_format = KvFormat::kF32;
    std::optional<uint64_t> unread;  // bytes of a client's logits and traces; none: the engine's
    std::optional<uint64_t> gate_samples;  // bytes; none: automatic; 0: none are kept
    std::optional<uint64_t> adapters;      // bytes; none: all of them stay in memory
    std::optional<int64_t> pin_limit;      // seconds; none: sequences keep what was replaced
    bool end_pinned = false;               // `pinned: end`, instead of restart
    bool evict_replaced = false;           // base experts that no table uses leave memory
  } memory;
  CanaryBounds canary;
  std::string state_dir;
  std::vector<std::string> watch;
  LibrariesConfig libraries;
  int threads = 0;     // 0 = auto
  std::string source;  // the file it was read from
};

Result<DeploymentConfig> read_deployment(const std::string& file);
Result<DeploymentConfig> parse_deployment(std::string_view yaml, const std::string& label,
                                          const std::string& base_dir);
/// The composition block alone, given as YAML or JSON text. Relative paths start at `base_dir`.
Result<CompositionSpec> parse_composition(std::string_view text, const std::string& label,
                                          const std::string& base_dir);

/// Puts the defaults below into endpoints and state directory that the file leaves open; creates
/// and checks the runtime directory when it is used.
Status fill_defaults(DeploymentConfig* config);
/// Directory of the default endpoints (wire/endpoints.h), created 0700 and checked: owner, mode,
/// not a link.
Result<std::string> default_runtime_dir();
/// Those checks alone: ok as well when there is no such directory yet.
Status check_runtime_dir();
/// $XDG_STATE_HOME/chimera, else ~/.local/state/chimera.
Result<std::string> default_state_dir();

}  // namespace chimera
