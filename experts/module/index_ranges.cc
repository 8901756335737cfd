#include "experts/module/index_ranges.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace chimera {
namespace {

std::optional<int64_t> index_of(std::string_view text) {
  int64_t value = -1;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  const bool whole = !text.empty() && parsed.ec == std::errc() && parsed.ptr == end;
  if (!whole || value < 0 || value > kMaxIndex) return std::nullopt;
  return value;
}

}  // namespace

Result<IndexRanges> parse_index_ranges(std::string_view text) {
  IndexRanges out;
  while (true) {
    const size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    const size_t dash = part.find('-');
    const auto first = index_of(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : index_of(part.substr(dash + 1));
    if (!first || !last || *last < *first) {
      return Status(
          Code::kInvalidArgument,
          fmt::format("\"{}\" (expected a number from 0 to {}, or LOW-HIGH)", part, kMaxIndex));
    }
    out.emplace_back(*first, *last);
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace chimera
