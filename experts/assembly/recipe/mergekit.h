// Recipes of mergekit (arcee-ai/mergekit) read into a Recipe.
//
// Read are merge_method linear, task_arithmetic, ties, dare_linear, dare_ties and slerp; models,
// or slices that keep every layer in its place; parameters as a number, a gradient over the layers
// or a list of {filter, value}; dtype and out_dtype. Everything else is named, not skipped. Merged
// are all tensors, as mergekit does, with its defaults: weights of `linear` are divided by their
// sum (normalize), differences of `ties` by the weights that agree, `dare_*` is not normalised.
//
// A gradient [v0 … vn] is linear between its values over t = layer / (layers - 1) of the slice;
// tensors before the layers have t = 0, those after them t = 1.
//
// Thread safety: free functions, from any thread.
#pragma once

#include "base/fields/problems.h"
#include "base/fields/value.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// Whether this is a file of mergekit rather than one of Chimera with a key missing.
bool is_mergekit(const FieldValue& root);
/// REQUIRES: recipe.directory is set. Reads config.json of the base for the number of layers.
void read_mergekit(const FieldValue& root, Recipe& recipe, Problems& problems);

}  // namespace chimera
