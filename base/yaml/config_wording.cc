#include "base/yaml/config_wording.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "base/suggest.h"
#include "base/utf8.h"

namespace chimera {
namespace {

constexpr size_t kMaxShownKey = 80;  // bytes of a key

/// As clients spell it, who look the place up by it: JSON's quotes are no part of a key.
std::string shown_key(std::string_view key) {
  const std::string_view begin = cut_utf8(key, kMaxShownKey);
  std::string out;
  append_visible(begin, out);
  return begin.size() < key.size() ? out + "…" : out;
}

}  // namespace

Problem ConfigWording::mismatch(const std::string& path, const std::string& found,
                                std::string_view expected) const {
  return {
      fmt::format("{}{}found {} (expected {})", path, path.empty() ? "" : ": ", found, expected)};
}

Problem ConfigWording::missing(const std::string& path, std::string_view key,
                               std::string_view expected) const {
  return {fmt::format("{}: missing (expected {})", path_of(path, key), expected)};
}

Problem ConfigWording::unknown(const std::string& path, std::string_view key,
                               std::span<const std::string_view> known) const {
  const std::string name = path_of(path, shown_key(key));
  const std::string_view near = nearest(key, known);
  if (!near.empty()) return {fmt::format("{}: unknown key (did you mean {}?)", name, near)};
  return {fmt::format("{}: unknown key (expected {})", name, fmt::join(known, ", "))};
}

}  // namespace chimera
