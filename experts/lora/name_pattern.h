// Names of a model's parts as PEFT's configurations speak of them: regular expressions over whole
// names, or lists of their last parts.
//
// Thread safety: a value for one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace chimera {

/// A regular expression (PCRE2, of which Python's are nearly a part) that a whole name matches.
class NamePattern {
 public:
  /// invalid_argument with what is wrong and where.
  static Result<NamePattern> compile(std::string_view expression);
  NamePattern(NamePattern&&) noexcept;
  NamePattern& operator=(NamePattern&&) noexcept;
  ~NamePattern();

  /// False, too, where matching costs more than any sensible pattern does.
  bool matches(std::string_view name) const;

 private:
  struct Compiled;
  explicit NamePattern(std::unique_ptr<Compiled> code);
  std::unique_ptr<Compiled> code_;
};

/// `target_modules` or `exclude_modules`: a pattern, or names of which one is the whole name or its
/// last parts.
struct NameSelection {
  std::vector<NamePattern> patterns;
  std::vector<std::string> names;

  bool empty() const { return patterns.empty() && names.empty(); }
  bool takes(std::string_view name) const;
};

}  // namespace chimera
