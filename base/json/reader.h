// JSON text as untrusted input: one strict, bounded reader for everything that Chimera reads.
//
// Strict means RFC 8259: one value with nothing behind it, valid UTF-8, no byte order mark, no
// comments, no NaN or Infinity, escaped surrogates only in pairs. A number must be within the range
// of a double; integers keep all their digits. No key may stand twice in an object unless the
// limits say so.
//
// Thread safety: free functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/json/json.h"
#include "base/status.h"

namespace chimera {

enum class DuplicateKeys : uint8_t {
  kRefused,
  kLastCounts,  // as Python's and most readers do, for files that were made for those
};

/// What a text may ask for. Values count scalars, arrays and objects; keys do not count.
struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  size_t max_depth = 64;
  size_t max_values = 8'000'000;
  DuplicateKeys duplicates = DuplicateKeys::kRefused;
};

/// The value of `text`, or data_corrupt with what is wrong and where (line, column and byte). The
/// message holds nothing of the text but a duplicate key, quoted.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

/// Takes a text's values as they come, for readers that must not hold the whole as Json. Each call
/// answers whether to go on; one that does not leaves the reason in problem().
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual bool scalar(Json value) = 0;
  virtual bool key(std::string name) = 0;  // its value comes next
  virtual bool open_object() = 0;
  virtual bool open_array() = 0;
  virtual bool close() = 0;  // the innermost open array or object
  virtual const std::string& problem() const = 0;
};

/// Reads `text` into `events`. Finding duplicate keys is left to them; the other limits hold.
Status read_json(std::string_view text, const JsonLimits& limits, JsonEvents& events);

}  // namespace chimera
