// Recipes of Chimera's own format, assembly/1, read into a Recipe; recipe.h shows one.
//
// Thread safety: free functions, from any thread.
#pragma once

#include "base/fields/problems.h"
#include "base/fields/value.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// Every problem is noted, and what could be read is in `recipe`.
void read_assembly(const FieldValue& root, Recipe& recipe, Problems& problems);

}  // namespace chimera
