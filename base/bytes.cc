#include "base/bytes.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <utility>

namespace chimera {
namespace {

constexpr std::array<std::pair<std::string_view, int>, 4> kUnits{
    {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}};

}  // namespace

std::string bytes_text(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
  size_t unit = 0;
  while (unit + 1 < kUnits.size() && bytes >> kUnits[unit + 1].second != 0) ++unit;
  const double value =
      static_cast<double>(bytes) / static_cast<double>(1ull << kUnits[unit].second);
  char text[32];
  std::snprintf(text, sizeof(text), value < 100 ? "%.1f " : "%.0f ", value);
  return text + std::string(kUnits[unit].first);
}

std::optional<uint64_t> parse_bytes(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.starts_with(' ')) text.remove_prefix(1);
  for (const auto& [name, shift] : kUnits) {
    if (text != name) continue;
    constexpr uint64_t kMost = 1ull << 62;
    if (number > kMost >> shift) return std::nullopt;
    return number << shift;
  }
  return std::nullopt;
}

}  // namespace chimera
