// Copies of a module under names of their own, for benches that need many of them. They lie beside
// the module, so that their weights can be links to its weights, and go with the object.
//
// Thread safety: by the thread that made it.
#pragma once

#include <string>
#include <vector>

namespace chimera::bench {

/// Whether the weights of copies are links to those of the module, or files of their own that
/// differ in one bit each: those are read, verified and probed like modules of their own.
enum class Weights { kLinked, kDistinct };

class Copies {
 public:
  /// `of`: a module directory with a module.yaml. Throws std::runtime_error.
  Copies(const std::string& of, int count, Weights weights);
  ~Copies();
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  const std::vector<std::string>& names() const { return names_; }
  std::string path(size_t i) const { return root_ + "/" + names_[i]; }
  /// The composition of those from `first` on, `count` of them, as plan and apply take it.
  std::string composition(size_t first, size_t count) const;
  std::string composition() const { return composition(0, names_.size()); }

 private:
  void copy(const std::string& of, const std::string& manifest, int i, Weights weights);

  std::string root_;
  std::vector<std::string> names_;
};

}  // namespace chimera::bench
