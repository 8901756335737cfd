// What a case found: a verdict and one plain sentence.
//
// Thread safety: values.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace chimera::check {

enum class Verdict : uint8_t { kPass, kWarn, kFail, kSkip };

/// "pass", "warn", "fail", "skip".
std::string_view verdict_name(Verdict verdict);

struct Finding {
  Verdict verdict = Verdict::kPass;
  std::string text;  // one sentence: what was found and, when it is wrong, what was expected
};

/// Set when a step could not be done; nullopt: go on.
using Problem = std::optional<Finding>;

template <class... A>
Finding pass(fmt::format_string<A...> text, A&&... args) {
  return {Verdict::kPass, fmt::format(text, std::forward<A>(args)...)};
}
template <class... A>
Finding warn(fmt::format_string<A...> text, A&&... args) {
  return {Verdict::kWarn, fmt::format(text, std::forward<A>(args)...)};
}
template <class... A>
Finding fail(fmt::format_string<A...> text, A&&... args) {
  return {Verdict::kFail, fmt::format(text, std::forward<A>(args)...)};
}
template <class... A>
Finding skip(fmt::format_string<A...> text, A&&... args) {
  return {Verdict::kSkip, fmt::format(text, std::forward<A>(args)...)};
}

}  // namespace chimera::check
