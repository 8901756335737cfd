#include "daemon/config/keys.h"

#include <algorithm>
#include <numeric>

namespace chimera {
namespace {

// Levenshtein distance.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> deployment_keys() {
  std::vector<std::string> all;
  const auto add = [&](std::string_view prefix, std::span<const std::string_view> keys) {
    for (const std::string_view key : keys) all.push_back(std::string(prefix) + std::string(key));
  };
  add("", kDeploymentKeys);
  add("backbone.", kBackboneKeys);
  add("composition.", kCompositionKeys);
  add("composition.modules[].", kModuleKeys);
  add("serve.", kServeKeys);
  add("control.", kControlKeys);
  add("libraries.", kLibrariesKeys);
  std::sort(all.begin(), all.end());
  return all;
}

std::string_view nearest_key(std::string_view text, std::span<const std::string_view> keys) {
  if (text.size() > 64) return {};  // the distance costs the product of the lengths
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, text.size() / 3) + 1;
  for (const std::string_view key : keys) {
    const size_t distance = edit_distance(text, key);
    if (distance < best_distance && distance < key.size()) {
      best = key;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace chimera
