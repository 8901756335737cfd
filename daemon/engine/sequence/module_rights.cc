#include "daemon/engine/sequence/module_rights.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

namespace chimera {

ModuleRights::ModuleRights(std::vector<std::string> patterns) {
  for (std::string& pattern : patterns) {
    const bool plain = pattern.find_first_of("*?[") == std::string::npos;
    (plain ? names_ : patterns_).push_back(std::move(pattern));
  }
  std::sort(names_.begin(), names_.end());
  std::sort(patterns_.begin(), patterns_.end());
}

bool ModuleRights::admits(const std::string& name) const {
  // Names by the thousand are usual, patterns are few; the engine asks for every module.
  if (std::binary_search(names_.begin(), names_.end(), name)) return true;
  return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
  });
}

}  // namespace chimera
