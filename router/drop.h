// Doing without an expert that failed: the policy `drop` of library modules.
//
// The expert counts as not chosen, and the weights of the others are scaled up so that their sum
// stays what it was: where the family normalises, that is normalising again over those that remain.
// The result depends on the row's own choices alone, bitwise.
//
// Thread safety: pure function.
#pragma once

#include <cstdint>
#include <span>

#include "router/gating.h"

namespace chimera {

/// Takes choice `which` out of `choices` (in descending order of weight, kept in order) and scales
/// the rest. Returns how many remain; with none, or with none that has weight, the caller has
/// nothing to compute the row from and must fail it.
int32_t drop_choice(std::span<GateChoice> choices, size_t which);

}  // namespace chimera
