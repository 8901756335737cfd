// Which modules a client may use: by name, by pattern, or all of them. What is outside is for that
// client as if it were not loaded.
//
// Thread safety: values; a shared one is immutable.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace chimera {

class ModuleRights {
 public:
  /// `patterns` are names in which `*` stands for any characters and `?` for one. None: no module.
  explicit ModuleRights(std::vector<std::string> patterns);

  bool admits(const std::string& name) const;
  bool operator==(const ModuleRights&) const = default;

 private:
  std::vector<std::string> names_;     // sorted
  std::vector<std::string> patterns_;  // with * or ?, sorted
};

/// Null: all modules.
using ModuleRightsPtr = std::shared_ptr<const ModuleRights>;

inline bool admits(const ModuleRightsPtr& rights, const std::string& name) {
  return rights == nullptr || rights->admits(name);
}

}  // namespace chimera
