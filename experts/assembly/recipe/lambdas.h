// Coefficients of a recipe's parents by name, and a recipe with others in their place.
//
// A parent is called by the name of its directory ("legal-a" of ../legal-a) where no other parent
// of the recipe has that name, else by its path as the recipe writes it.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// λ by the name of the parent. Of all parents, unless said otherwise.
using Lambdas = std::map<std::string, double>;

/// Names of the parents, in the order of the recipe, which has the base first.
std::vector<std::string> parent_names(const Recipe& recipe);

/// Those that the recipe says.
Lambdas lambdas_of(const Recipe& recipe);

/// `current` with `given` in place of those that it names. The base has what is missing to 1 when
/// it is not named; of two parents, the other one has. not_found naming a parent that is none;
/// invalid_argument naming parent, λ found and what the methods of the recipe expect.
Result<Lambdas> complete_lambdas(const Recipe& recipe, const Lambdas& current,
                                 const Lambdas& given);

/// The recipe with these coefficients; rules with their own keep those. failed_precondition when no
/// rule would take them.
Result<Recipe> with_lambdas(Recipe recipe, const Lambdas& lambdas);

/// "legal-a 0.4, legal-b 0.6", in the order of the names given.
std::string lambdas_text(const Lambdas& lambdas);

}  // namespace chimera
