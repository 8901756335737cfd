// The recipe of an assembly [contract of issue "Assembly"]: which parents, which tensors, how much
// of each.
//
//   chimera: assembly/1
//   base: ../v3                     # also the first parent unless listed
//   parents:
//     - {path: ../v3, lambda: 0.4}
//     - {path: ../r1, lambda: 0.6}
//   rules:                          # ordered, first match wins
//     - {tensors: routed_experts, layers: 3-60, delta: 1.5e-3}
//     - {tensors: "*.self_attn.*", method: ties, density: 0.5, lambda: {../r1: 0.2}}
//   output: {dtype: bf16, module: legal}
//
// Paths are relative to the recipe. docs/assembly.md lists every key; mergekit.h reads mergekit's
// spelling into the same values.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/json/json.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/module/index_ranges.h"

namespace chimera {

/// A recipe is written by hand; a longer file is taken for something else.
inline constexpr size_t kMaxRecipeBytes = 1u << 20;
/// Of ties and dare: the smallest share of differences that may be kept.
inline constexpr double kLeastDensity = 1e-9;
/// By how much coefficients that shall sum to 1 may miss it: decimal fractions do not add up
/// exactly, 0.1 + 0.2 + 0.7 misses 1 by 1e-16.
inline constexpr double kSumTolerance = 1e-6;

/// How the parents of a tensor are put together; formulas in arithmetic.h.
enum class MergeMethod : uint8_t {
  kLinear,
  kTaskArithmetic,
  kTies,
  kDareLinear,
  kDareTies,
  kSlerp
};
inline constexpr auto kMergeMethodNames = enum_names<MergeMethod>(
    "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp");

/// Named sets of tensors; a tensor may be in several (the norm of queries is of `norms` and of
/// `attention`). kDense: feed-forwards of layers without a router.
enum class TensorSet : uint8_t {
  kRoutedExperts,
  kSharedExperts,
  kAttention,
  kGate,
  kNorms,
  kEmbeddings,
  kDense,
  kAll
};
inline constexpr auto kTensorSetNames = enum_names<TensorSet>(
    "routed_experts", "shared_experts", "attention", "gate", "norms", "embeddings", "dense", "all");

/// By what the merged differences of ties and dare_ties are divided; arithmetic.h.
enum class Consensus : uint8_t { kPaper, kMean, kSum };

struct MergeRule;

/// Numbers of a rule that differ from tensor to tensor.
class TensorParameters {
 public:
  virtual ~TensorParameters() = default;
  /// Sets them for the tensor `name`; `layer` is negative outside the layers.
  virtual void apply(const std::string& name, int64_t layer, MergeRule& rule) const = 0;
  /// Canonical text.
  virtual std::string text() const = 0;
};

struct MergeRule {
  std::string tensors = "routed_experts";  // a set, a glob, or /REGULAR EXPRESSION/
  std::optional<IndexRanges> layers;       // none: wherever
  std::optional<IndexRanges> experts;      // slots; set: routed experts only
  MergeMethod method = MergeMethod::kLinear;
  std::vector<double> lambda;   // [parents]
  bool own_lambda = false;      // not those of Recipe::parents
  double delta = 0;             // threshold on the RMS difference, see arithmetic.h
  std::vector<double> density;  // [parents]; ties, dare_*: share of differences kept, (0, 1]
  Consensus consensus = Consensus::kPaper;
  double scale = 1;  // of the sum of differences (mergekit's own `lambda`)
  /// Set in recipes of mergekit: λ, density and scale depend on the tensor.
  std::shared_ptr<const TensorParameters> parameters;
};

struct RecipeParent {
  std::string path;  // as written
  double lambda = 0;
};

struct Recipe {
  std::string label;                  // of messages: the file
  std::string directory;              // which paths are relative to
  std::vector<RecipeParent> parents;  // [0] is the base
  std::vector<MergeRule> rules;       // never empty
  uint64_t seed = 0;                  // of dare_*
  std::optional<DType> dtype;         // of the output; none: as the base stores, BF16 if quantised
  std::string module;                 // not empty: only what differs, as a module of that name
  std::vector<std::string> warnings;  // for people, e.g. of a rule that merges gates

  /// Where parent `i` is.
  std::string parent_path(size_t i) const;
};

/// Reads a recipe, or mergekit's YAML when the file has no key `chimera`. invalid_argument with all
/// problems at once, each with its position; not_found.
Result<Recipe> read_recipe(const std::string& path);
Result<Recipe> parse_recipe(std::string_view yaml, const std::string& label,
                            const std::string& directory);

/// The recipe without paths: with the parents' digests it says what an assembly is.
Json recipe_json(const Recipe& recipe);

}  // namespace chimera
