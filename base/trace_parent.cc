#include "base/trace_parent.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace chimera {
namespace {

/// Lower case alone, as the specification has it.
bool is_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_id(std::string_view text) {
  return is_hex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceParent> TraceParent::parse(std::string_view text) {
  if (text.size() < kLength) return std::nullopt;
  const std::string_view version = text.substr(0, 2), trace = text.substr(3, 32),
                         parent = text.substr(36, 16), flags = text.substr(53, 2);
  const bool dashes = text[2] == '-' && text[35] == '-' && text[52] == '-';
  if (!dashes || !is_hex(version) || version == "ff" || !is_hex(flags)) return std::nullopt;
  if (!is_id(trace) || !is_id(parent)) return std::nullopt;
  const bool longer = text.size() > kLength;
  if (longer && (version == "00" || text[kLength] != '-')) return std::nullopt;
  TraceParent out{.trace_id = std::string(trace), .parent_id = std::string(parent)};
  std::from_chars(flags.data(), flags.data() + flags.size(), out.flags, 16);
  if (version != "00") out.flags &= 1U;
  return out;
}

std::string TraceParent::text() const {
  return fmt::format("00-{}-{}-{:02x}", trace_id, parent_id, flags);
}

}  // namespace chimera
