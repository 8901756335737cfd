// The files of a module with other gate rows in them. Private to fit_module.
//
// Thread safety: none; by one thread.
#pragma once

#include <string>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "base/json/json.h"
#include "base/status.h"
#include "experts/kinds/module.h"
#include "experts/module/manifest.h"

namespace chimera {

class StoredGates {
 public:
  /// Copies of the files that `manifest`, of kind weights, names.
  static Result<StoredGates> open(const std::string& dir, const Manifest& manifest);

  /// Rows as the file will hold them: rounded to nearest even where it stores fewer bits.
  void round(int64_t layer, ModuleLayer& gates) const;
  /// The module with the gates of `fitted`, complete or not at all. Its manifest is the old one,
  /// but for digests, what was promised of its bits per byte, and `how`, which becomes a parent.
  Status write(const Module& fitted, const Json& how, const std::string& out_dir) const;

 private:
  struct File {
    std::string path;
    SafetensorsFile tensors;
  };
  const TensorView* find(const std::string& name) const;

  std::string dir_;
  Manifest manifest_;
  std::vector<File> files_;
};

}  // namespace chimera
