#include "router/drop.h"

#include <algorithm>

namespace chimera {

int32_t drop_choice(std::span<GateChoice> choices, size_t which) {
  double before = 0.0, mass_before = 0.0, after = 0.0, mass_after = 0.0;
  for (size_t i = 0; i < choices.size(); ++i) {
    const auto weight = static_cast<double>(choices[i].weight);
    const auto mass = static_cast<double>(choices[i].mass);
    before += weight;
    mass_before += mass;
    if (i == which) continue;
    after += weight;
    mass_after += mass;
  }
  std::move(choices.begin() + static_cast<ptrdiff_t>(which) + 1, choices.end(),
            choices.begin() + static_cast<ptrdiff_t>(which));
  const auto rest = choices.first(choices.size() - 1);
  if (!(after > 0.0)) return 0;
  for (GateChoice& c : rest) {
    c.weight = static_cast<float>(static_cast<double>(c.weight) * (before / after));
    if (mass_after > 0.0) {
      c.mass = static_cast<float>(static_cast<double>(c.mass) * (mass_before / mass_after));
    }
  }
  return static_cast<int32_t>(rest.size());
}

}  // namespace chimera
