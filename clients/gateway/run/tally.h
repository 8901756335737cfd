// Usage and provenance of the choices of one answer, added up.
//
// Thread safety: none.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json/json.h"

namespace chimera::gateway {

class Tally {
 public:
  /// `per_prompt`: choices that share a prompt, which counts once.
  explicit Tally(size_t choices, size_t per_prompt = 1)
      : choices_(choices), per_prompt_(per_prompt) {}

  void token(const Json& event);
  void done(size_t choice, const Json& done);

  bool complete() const { return done_ == choices_; }
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  uint64_t epoch() const { return epoch_; }
  /// {epoch, composition, modules: {name: share}, backbone}; of several choices the mean.
  Json provenance() const;
  std::string shares_text() const;  // "legal=0.31,bio=0.02"
  /// Of several choices the mean.
  std::vector<std::pair<std::string, double>> shares() const;

 private:
  const size_t choices_, per_prompt_;
  size_t done_ = 0;
  uint64_t epoch_ = 0;
  std::string composition_;
  std::vector<std::pair<std::string, double>> shares_;  // sums over choices
  double backbone_share_ = 0.0;
};

}  // namespace chimera::gateway
