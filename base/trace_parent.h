// The header `traceparent` of W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace
// a request belongs to, and which span of it asked.
//
// Thread safety: values and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

struct TraceParent {
  std::string trace_id;   // 32 hexadecimal digits in lower case, not all 0
  std::string parent_id;  // 16, likewise
  uint8_t flags = 0;      // bit 0: the caller may have recorded the trace

  /// Nothing for what the specification calls invalid. Of a version after 00 what version 00 knows
  /// is taken: it may go on behind, and of its flags bit 0 alone counts.
  static std::optional<TraceParent> parse(std::string_view text);
  /// Of version 00.
  std::string text() const;

  static constexpr size_t kLength = 55;  // of version 00
};

}  // namespace chimera
