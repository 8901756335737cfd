// module.yaml: what a module says of itself (design §6). Reading it runs no code of the module.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/status.h"
#include "compute/tensor/precision.h"
#include "experts/failure_policy.h"

namespace chimera {

enum class ModuleKind : uint8_t { kWeights, kLibrary, kLora, kAssembly, kBundle };
inline constexpr auto kModuleKindNames =
    enum_names<ModuleKind>("weights", "library", "lora", "assembly", "bundle");
enum class Attach : uint8_t { kAppend, kReplace };
inline constexpr auto kAttachNames = enum_names<Attach>("append", "replace");

/// Where the code of a `library` module runs.
enum class Isolation : uint8_t { kProcess, kInProcess };
inline constexpr auto kIsolationNames = enum_names<Isolation>("process", "in-process");
inline constexpr int64_t kInProcessDeadlineMs = 2000;

/// The block `library` of a module of kind library; every key has a default.
struct LibrarySpec {
  std::string file;  // one of `files`; default: the only one that ends in .so
  std::string id;    // of the plugin inside it; default (empty): the one its ELF note names
  Isolation isolation = Isolation::kProcess;
  FailurePolicy on_failure = FailurePolicy::kFail;
  std::string gate;    // file with the gate rows; default: gate.safetensors if `files` lists it
  std::string config;  // handed to the plugin's prepare
  // Of one forward call. The default lets a request that meets a hanging plugin be answered within
  // 250 ms; in-process, where nobody can be stopped, it is kInProcessDeadlineMs.
  int64_t deadline_ms = 150;
  int64_t memory_mib = 1024;                      // cap of chimera.memory/1
  std::map<int64_t, std::vector<int64_t>> slots;  // replace: slots of the experts of each layer
};

/// The block `assembly` of a module of kind assembly.
struct AssemblySpec {
  struct Parent {
    std::string path;    // as the recipe writes it
    std::string digest;  // "sha256:…" of what it holds (parent_digest)
  };
  std::string recipe;           // one of `files`; default: the only one that ends in .yaml
  std::vector<Parent> parents;  // each of the recipe's, in any order
};

/// The block `shared` of a module of kind bundle: the tensors of the backbone that its experts were
/// trained with.
struct SharedSpec {
  std::string file;     // one of `files`; default: shared.safetensors if `files` lists it
  double weight = 1.0;  // beside those of other bundles, when what they change is averaged
};

struct ManifestFile {
  std::string path;    // plain relative path inside the module directory; no "..", no links out
  std::string sha256;  // "sha256:…"
};

struct Manifest {
  std::string name;  // [a-z0-9][a-z0-9_-]{0,62}; "backbone" and "base" are reserved
  std::string version;
  std::string domain;
  std::string description;
  std::string license;
  ModuleKind kind = ModuleKind::kWeights;
  Attach attach = Attach::kAppend;
  std::string backbone_fingerprint;
  int64_t hidden_size = 0;
  std::optional<std::vector<int64_t>> layers;  // nullopt = all MoE layers
  std::vector<ManifestFile> files;
  std::optional<LibrarySpec> library;     // kind library: set
  std::optional<AssemblySpec> assembly;   // kind assembly: set
  std::optional<SharedSpec> shared;       // kind bundle: set
  std::vector<std::string> data_sources;  // provenance.data: texts, or maps as flow YAML
  std::vector<std::string> parents;       // provenance.parents, as flow YAML
  // provenance.slots: where `split` found the experts of each layer; empty when not split.
  std::map<int64_t, std::vector<int64_t>> original_slots;
  // provenance.num_experts_per_tok: of the checkpoint that `split` cut; `graft` restores it.
  std::optional<int64_t> original_top_k;
  /// routing.top_k: how many experts per token the module was fitted for.
  std::optional<int64_t> top_k;
  /// In which its experts are meant to be kept; a composition may say otherwise. Kinds weights and
  /// assembly alone.
  std::optional<Precision> precision;
  std::string probe_text;  // empty: no text probe
  std::optional<double> probe_max_bits_per_byte;
  std::string probe_tokens_digest;  // reserved for token-only checkpoints
  std::string digest;               // sha256 of the module.yaml bytes: names the version
  /// Of an adapter directory without module.yaml (bare_adapter.h): made up from what is there. Says
  /// nothing of a backbone; digests are missing until complete_manifest.
  bool derived = false;

  /// top_k; where there is none that of the checkpoint that `split` cut, for which its experts were
  /// trained.
  std::optional<int64_t> fitted_top_k() const;
  /// Whether its kind has weights that a precision can be chosen for.
  bool takes_precision() const {
    return kind == ModuleKind::kWeights || kind == ModuleKind::kAssembly ||
           kind == ModuleKind::kBundle;
  }
};

/// Longest accepted module.yaml, bytes.
inline constexpr size_t kMaxManifestBytes = 1u << 20;

/// Whether the digests that `chimera-module seal` fills in must be there already.
enum class Sealing : uint8_t { kSealed, kUnsealed };

/// Reads and checks `dir`/module.yaml (a regular file, not a link); for an adapter directory
/// without one, what bare_adapter.h makes up. All problems are reported in one Status, one per
/// line, each as "file:line:column: KEY: found X (expected Y)". The payload files are not opened.
Result<Manifest> read_manifest(const std::string& dir, Sealing sealing = Sealing::kSealed);
Result<Manifest> parse_manifest(std::string_view yaml, const std::string& label,
                                Sealing sealing = Sealing::kSealed);
/// True for [a-z0-9][a-z0-9_-]{0,62} that is not reserved.
bool is_module_name(std::string_view name);
/// True for [a-z0-9][a-z0-9._-]{0,126}, the ids of plugins.
bool is_plugin_id(std::string_view id);
/// True for a plain relative path: ASCII letters, digits and "._-", no empty, "." or ".." part.
bool is_module_path(std::string_view path);
/// The YAML text of a manifest (split and later pack write it).
std::string manifest_yaml(const Manifest& manifest);

}  // namespace chimera
