// Composition files for `plan` and `apply`: YAML to the object that travels on the wire.
//
// Thread safety: values.
#pragma once

#include <map>
#include <string>
#include <variant>

#include "commands.h"

namespace chimera::cli {

/// A file that is read: what it asks for, and where each of its keys stands.
class CompositionFile {
 public:
  /// Reads a deployment file, or one that is a composition block itself; relative paths start at
  /// the file's directory. It must list modules, perhaps none: a file without that list would
  /// unload everything, which nobody means. What the rest means is checked by the daemon.
  static std::variant<CompositionFile, Error> read(const std::string& file);

  const wire::Wish& wish() const { return wish_; }
  /// Whether the file names watched directories, which only a reload of the daemon takes over.
  bool has_watch() const { return places_.contains("watch"); }
  /// A message of the daemon with "FILE:LINE:COLUMN: " before each line that names a key.
  std::string located(const std::string& message) const;

 private:
  struct Place {
    int line = 1, column = 1;
  };
  struct Converter;

  std::string file_;
  wire::Wish wish_;
  bool bare_ = false;                    // a composition block without the key `composition`
  std::map<std::string, Place> places_;  // by path: "composition.modules[0].bias"
};

}  // namespace chimera::cli
