// A list of what does not fit, named one by one up to a limit and counted beyond it.
//
// Thread safety: none; the owner's.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

class Misfits {
 public:
  void add(std::string what) {
    if (named_.size() < kMostNamed) named_.push_back(std::move(what));
    ++count_;
  }
  bool empty() const { return count_ == 0; }
  /// Worth looking for more.
  bool full() const { return named_.size() == kMostNamed; }
  Status status(Code code, const std::string& what, const std::string& hint) const {
    std::string text = fmt::format("{}: {}", what, fmt::join(named_, "\n  "));
    if (count_ > named_.size()) text += fmt::format("\n  and {} more", count_ - named_.size());
    return {code, std::move(text), hint};
  }

 private:
  static constexpr size_t kMostNamed = 20;  // a screenful
  std::vector<std::string> named_;
  size_t count_ = 0;
};

}  // namespace chimera
