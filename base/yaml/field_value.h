// YamlNode as a FieldValue.
//
// Thread safety: free functions.
#pragma once

#include "base/fields/value.h"
#include "base/yaml/tree.h"

namespace chimera {

/// Numbers and booleans are scalars without quotes: decimal digits with an optional sign, what a
/// double is written as, true and false; other spellings of YAML (0x, 1_000, yes) surprise people
/// and stay text. `node` outlives the view.
FieldValue field_value(const YamlNode& node);

}  // namespace chimera
