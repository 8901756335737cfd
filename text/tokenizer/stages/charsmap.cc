#include "text/tokenizer/stages/charsmap.h"

#include <fmt/format.h>
#include <sodium.h>
#include <utf8proc.h>

#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// Clusters of this many bytes or more are looked up by character only.
constexpr size_t kLongCluster = 6;

// Fields of a unit, as Darts-clone packs them.
bool has_leaf(uint32_t unit) { return ((unit >> 8) & 1) != 0; }
uint32_t leaf_value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t label(uint32_t unit) { return unit & 0x800000FFu; }
uint64_t offset(uint32_t unit) { return uint64_t{unit >> 10} << ((unit & 0x200u) >> 6); }

uint32_t read_u32(std::string_view bytes, size_t pos) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[pos + i]);
  return value;
}

Status corrupt(std::string_view what) {
  return Status(Code::kDataCorrupt, fmt::format("normalizer: \"precompiled_charsmap\" {}", what),
                "use the tokenizer.json as it was published");
}

// Where the grapheme cluster that begins at `begin` ends.
size_t cluster_end(std::string_view text, size_t begin) {
  DecodedChar previous = decode_char(text, begin);
  size_t pos = begin + previous.length;
  utf8proc_int32_t state = 0;
  while (pos < text.size()) {
    const DecodedChar c = decode_char(text, pos);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous.code_point),
                                         static_cast<utf8proc_int32_t>(c.code_point), &state)) {
      break;
    }
    previous = c;
    pos += c.length;
  }
  return pos;
}

}  // namespace

Result<Charsmap> Charsmap::from_base64(std::string_view text) {
  std::string bytes(text.size() / 4 * 3 + 3, '\0');
  size_t size = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), text.data(),
                        text.size(), nullptr, &size, nullptr,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    return corrupt("is not base64");
  }
  bytes.resize(size);
  if (size < 4) return corrupt(fmt::format("has {} bytes, expected at least 4", size));
  const size_t trie_bytes = read_u32(bytes, 0) / 4 * size_t{4};
  if (trie_bytes > size - 4) {
    return corrupt(
        fmt::format("announces a trie of {} bytes, but {} follow", trie_bytes, size - 4));
  }
  Charsmap map;
  for (size_t pos = 4; pos < 4 + trie_bytes; pos += 4) map.units_.push_back(read_u32(bytes, pos));
  map.replacements_ = bytes.substr(4 + trie_bytes);
  if (const auto bad = find_invalid_utf8(map.replacements_)) {
    return corrupt(fmt::format("has replacements that are not UTF-8 at byte {}", *bad));
  }
  return map;
}

Charsmap::Found Charsmap::replacement(std::string_view part, std::string_view& out) const {
  if (units_.empty()) return Found::kNo;
  uint64_t at = offset(units_[0]);
  for (const char c : part) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) return Found::kNo;
    at ^= byte;
    if (at >= units_.size()) return Found::kBroken;
    const uint32_t unit = units_[at];
    if (label(unit) != byte) return Found::kNo;
    at ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size()) return Found::kBroken;
    const size_t begin = leaf_value(units_[at]);
    if (begin > replacements_.size()) return Found::kBroken;
    out = std::string_view(replacements_).substr(begin);
    out = out.substr(0, out.find('\0'));
    // The middle of a character is no place to begin.
    return find_invalid_utf8(out) ? Found::kBroken : Found::kYes;
  }
  return Found::kNo;
}

// Appends what becomes of one cluster.
Charsmap::Found Charsmap::rewrite(std::string_view cluster, std::string& out) const {
  std::string_view by;
  if (cluster.size() < kLongCluster) {
    const Found found = replacement(cluster, by);
    if (found == Found::kYes) out += by;
    if (found != Found::kNo) return found;
  }
  for (size_t pos = 0; pos < cluster.size();) {
    const std::string_view c = cluster.substr(pos, char_length(cluster[pos]));
    const Found found = replacement(c, by);
    if (found == Found::kBroken) return found;
    out += found == Found::kYes ? by : c;
    pos += c.size();
  }
  return Found::kYes;
}

Status Charsmap::apply(std::string& text, size_t limit) const {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = cluster_end(text, pos);
    if (rewrite(std::string_view(text).substr(pos, end - pos), out) == Found::kBroken) {
      return corrupt("leads outside its own table");
    }
    if (out.size() > limit) {
      return Status(Code::kResourceExhausted,
                    fmt::format("the normalized text exceeds {} bytes", limit),
                    "send the text in smaller parts");
    }
    pos = end;
  }
  text = std::move(out);
  return {};
}

}  // namespace chimera::tokenizer
