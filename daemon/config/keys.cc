#include "daemon/config/keys.h"

#include <algorithm>

namespace chimera {
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
  add("memory.", kMemoryKeys);
  add("canary.", kCanaryKeys);
  add("libraries.", kLibrariesKeys);
  add("security.", kSecurityKeys);
  add("trust.", kTrustKeys);
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace chimera
