// Composition: backbone plus an ordered list of modules with their options; a plain value.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/precision.h"

namespace chimera {

class Sha256;

struct CompositionModule {
  std::string name;     // of the manifest
  std::string version;  // of the manifest
  std::string digest;   // of the manifest, which names every file's digest
  std::string path;     // directory
  bool enabled = true;
  float bias = 0.0f;  // added to the logits of its experts
  /// Kind assembly: λ of all its parents, by name; empty: those of its recipe.
  std::map<std::string, double> lambda{};
  /// Kinds weights and assembly: in which its experts are kept; none: its manifest's, else the
  /// deployment's.
  std::optional<Precision> precision{};
  /// Kind bundle: beside other bundles; none: its manifest's.
  std::optional<double> weight{};
  bool operator==(const CompositionModule&) const = default;
  /// Adds λ, precision and weight, if there are any, to a digest of what decides outputs.
  void hash_options(Sha256& hash) const;
};
/// Whether one in the place of the other would give the same outputs, where both are enabled.
bool same_outputs(const CompositionModule& a, const CompositionModule& b);

struct Composition {
  std::string backbone_fingerprint;
  std::optional<int64_t> top_k;  // nullopt: as top_k.h finds it
  std::vector<CompositionModule> modules;
  bool operator==(const Composition&) const = default;

  /// sha256 over everything that decides outputs: fingerprint, top_k, and per enabled module in
  /// order name, digest, bias, λ, precision and weight. Paths do not count.
  std::string digest() const;
  const CompositionModule* find(const std::string& name) const;
};

}  // namespace chimera
