// Problems found in one document, reported together.
//
// Thread safety: none; by the thread that reads the document.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fields/value.h"
#include "base/status.h"

namespace chimera {

struct Problem {
  std::string text;
  std::string hint = {};
  Code code = Code::kInvalidArgument;
};

class Problems {
 public:
  static constexpr size_t kMost = 50;  // more help nobody

  /// `label` names the document in every line; none does not. Beyond `most` they are only counted.
  explicit Problems(std::string label = {}, size_t most = kMost)
      : label_(std::move(label)), most_(most) {}

  /// "label:line:column: text"; without a place "label: text". The same twice counts once.
  void add(Place at, Problem problem);
  bool empty() const { return problems_.empty(); }
  /// One line per problem in the order of the document, with the code and the hint of the first
  /// one, or `hint` for all; ok when there is none.
  Status status(std::string hint = {}) const;

 private:
  struct Noted {
    Place at;
    Problem problem;
  };
  std::string line_of(const Noted& noted) const;

  std::string label_;
  size_t most_;
  size_t dropped_ = 0;
  std::vector<Noted> problems_;
};

}  // namespace chimera
