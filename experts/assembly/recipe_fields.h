// Typed fields of recipes, read from a YAML tree; every problem is noted with its place.
//
// Thread safety: free functions, from any thread with problems of its own.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/yaml/tree.h"
#include "experts/assembly/recipe.h"

namespace chimera {

using FieldHandlers =
    std::vector<std::pair<std::string_view, std::function<void(const YamlNode&)>>>;

/// Hands every known key to its handler; notes unknown keys ("did you mean") and missing ones.
void read_fields(const YamlNode& map, std::string_view where,
                 const std::vector<std::string_view>& required, const FieldHandlers& handlers,
                 YamlProblems& problems);
/// A finite number from `min` to `max`, else a problem and none.
std::optional<double> read_number(const YamlNode& node, std::string_view key, double min,
                                  double max, YamlProblems& problems);
/// "3-60", 4, "1,5-7" or a list of such.
std::optional<IndexRanges> read_ranges(const YamlNode& node, std::string_view key,
                                       YamlProblems& problems);
/// Text that is not empty.
std::string read_text(const YamlNode& node, std::string_view key, YamlProblems& problems);
/// f32, f16, bf16 or their long names (float32 …).
std::optional<DType> read_float_dtype(const YamlNode& node, std::string_view key,
                                      YamlProblems& problems);
/// What `rule` needs of its λ: linear and slerp not negative and together 1; slerp two parents.
void check_rule_lambdas(const YamlNode& at, const MergeRule& rule, YamlProblems& problems);

}  // namespace chimera
