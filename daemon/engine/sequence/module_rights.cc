#include "daemon/engine/sequence/module_rights.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

namespace chimera {

ModuleRights::ModuleRights(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {
  std::sort(patterns_.begin(), patterns_.end());
}

bool ModuleRights::admits(const std::string& name) const {
  return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
  });
}

}  // namespace chimera
