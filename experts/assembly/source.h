// What a module of kind assembly is made of: its recipe and its parents, open and known by what
// they hold, so that it can be made again with other coefficients within milliseconds.
//
// Parents stay mapped: they are read where they lie whenever the module is made. They are to stay
// as they are meanwhile; what was verified is not used once a file of it was written to or
// replaced.
//
// Lifetime: shared by the modules that were made of it; the files are closed with the last.
//
// Thread safety: immutable; all methods from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/assembly/plan.h"
#include "experts/assembly/recipe/lambdas.h"
#include "experts/module/manifest.h"

namespace chimera {

class AssemblySource {
 public:
  /// Reads the recipe in `dir` and the headers of its parents. REQUIRES: `manifest` is of kind
  /// assembly. data_corrupt when the recipe is not the one that the manifest names;
  /// invalid_argument when it is none, or has other parents than the manifest lists;
  /// failed_precondition where the parents do not fit together, or not the manifest.
  static Result<std::shared_ptr<const AssemblySource>> open(const std::string& dir,
                                                            const Manifest& manifest);

  /// Hashes all that the parents hold. data_corrupt naming the first that is not what the manifest
  /// says. Gives way (background.h).
  Status verify() const;
  /// failed_precondition naming a file of a parent that was changed or replaced since open().
  Status check_unchanged() const;

  const Recipe& recipe() const { return plan_.recipe; }
  const std::vector<std::shared_ptr<const Parent>>& parents() const { return plan_.parents; }
  /// As the recipe says.
  const Lambdas& lambdas() const { return lambdas_; }
  /// How the module is made with these coefficients; empty: with the recipe's.
  Result<AssemblyPlan> plan(const Lambdas& lambdas) const;
  /// Only experts that differ from the base's are in the module: its layers depend on coefficients
  /// and δ.
  bool only_differences() const { return plan_.only_differences(); }

 private:
  AssemblySource(AssemblyPlan plan, std::vector<std::string> digests)
      : plan_(std::move(plan)), lambdas_(lambdas_of(plan_.recipe)), digests_(std::move(digests)) {}

  AssemblyPlan plan_;
  Lambdas lambdas_;
  std::vector<std::string> digests_;  // of the parents, in their order
};

/// Digest of each parent of the recipe `path`, by its path as the recipe writes it, in the recipe's
/// order; for who writes a manifest.
Result<std::vector<AssemblySpec::Parent>> recipe_parents(const Recipe& recipe,
                                                         const std::string& cache_dir,
                                                         ThreadPool& pool);

}  // namespace chimera
