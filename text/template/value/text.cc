#include "text/template/value/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "text/unicode.h"

namespace chimera::jinja {
namespace {

utf8proc_category_t category(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

/// Letters whose upper case has several characters, as Unicode's SpecialCasing gives them.
std::string_view long_upper_case(uint32_t c) {
  switch (c) {
    case 0xDF:
      return "SS";
    case 0x149:
      return "\xCA\xBCN";
    case 0xFB00:
      return "FF";
    case 0xFB01:
      return "FI";
    case 0xFB02:
      return "FL";
    case 0xFB03:
      return "FFI";
    case 0xFB04:
      return "FFL";
    case 0xFB05:
    case 0xFB06:
      return "ST";
    default:
      return {};
  }
}

void append_upper(uint32_t c, bool title, std::string& out) {
  const std::string_view several = long_upper_case(c);
  if (several.empty()) {
    const auto one = static_cast<utf8proc_int32_t>(c);
    return append_char(static_cast<uint32_t>(title ? utf8proc_totitle(one) : utf8proc_toupper(one)),
                       out);
  }
  size_t at = 0;
  while (at < several.size()) {
    const auto letter = decode_char(several, at);
    // In title case only the first of several letters is a capital.
    const auto lower =
        static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(letter.code_point)));
    append_char(title && at > 0 ? lower : letter.code_point, out);
    at += letter.length;
  }
}

void append_lower(uint32_t c, std::string& out) {
  if (c == 0x130) {  // İ becomes i and a combining dot
    out += "i\xCC\x87";
    return;
  }
  append_char(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

}  // namespace

Text::Text(std::string bytes, bool from_client) : bytes_(std::move(bytes)) {
  if (from_client) mark(0, bytes_.size());
}

void Text::mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!marks_.empty() && marks_.back().end == begin) {
    marks_.back().end = end;
  } else {
    marks_.push_back({begin, end});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  const size_t base = bytes_.size();
  // Appending to itself: the marks are read before they grow.
  const size_t count = other.marks_.size();
  bytes_.append(other.bytes_, begin, end - begin);
  const auto first = std::partition_point(other.marks_.begin(), other.marks_.end(),
                                          [&](const TextSpan& m) { return m.end <= begin; });
  for (auto i = static_cast<size_t>(first - other.marks_.begin()); i < count; ++i) {
    const TextSpan from = other.marks_[i];
    if (from.begin >= end) break;
    mark(base + std::max(from.begin, begin) - begin, base + std::min(from.end, end) - begin);
  }
}

bool Text::any_marked(size_t begin, size_t end) const {
  const auto first = std::partition_point(marks_.begin(), marks_.end(),
                                          [&](const TextSpan& m) { return m.end <= begin; });
  return first != marks_.end() && first->begin < end;
}

void Text::append_as(std::string_view bytes, const Text& other, size_t begin, size_t end) {
  const size_t base = bytes_.size();
  bytes_ += bytes;
  if (other.any_marked(begin, end)) mark(base, bytes_.size());
}

Text Text::slice(size_t begin, size_t end) const {
  Text out;
  out.append(*this, begin, end);
  out.markup = markup;
  return out;
}

size_t character_count(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0u) != 0x80u; }));
}

size_t character_offset(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += char_length(text[at]);
  return std::min(at, text.size());
}

bool is_space(uint32_t c) { return (c >= 0x1C && c <= 0x1F) || tokenizer::is_white_space(c); }

bool is_line_end(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool is_printable(uint32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_alpha(uint32_t c) {
  const utf8proc_category_t found = category(c);
  return found >= UTF8PROC_CATEGORY_LU && found <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_upper(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }
bool is_title(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }

namespace {

template <class Remove>
TextSpan strip_where(std::string_view text, bool left, bool right, const Remove& remove) {
  TextSpan kept{0, text.size()};
  while (left && kept.begin < kept.end) {
    const auto c = decode_char(text, kept.begin);
    if (!remove(c.code_point)) break;
    kept.begin += c.length;
  }
  while (right && kept.begin < kept.end) {
    size_t at = kept.end - 1;
    while ((static_cast<uint8_t>(text[at]) & 0xC0u) == 0x80u) --at;
    if (!remove(decode_char(text, at).code_point)) break;
    kept.end = at;
  }
  return kept;
}

}  // namespace

TextSpan stripped(std::string_view text, bool left, bool right) {
  return strip_where(text, left, right, is_space);
}

TextSpan stripped_of(std::string_view text, std::string_view chars, bool left, bool right) {
  std::vector<uint32_t> set;
  for (size_t at = 0; at < chars.size();) {
    const auto c = decode_char(chars, at);
    set.push_back(c.code_point);
    at += c.length;
  }
  std::sort(set.begin(), set.end());
  return strip_where(text, left, right,
                     [&](uint32_t c) { return std::binary_search(set.begin(), set.end(), c); });
}

Text with_case(const Text& text, Case what) {
  Text out;
  const std::string_view bytes = text.str();
  bool in_word = false;  // the character before was a letter with case
  for (size_t at = 0; at < bytes.size();) {
    const auto [c, length] = decode_char(bytes, at);
    const bool cased = is_upper(c) || is_lower(c) || is_title(c);
    std::string mapped;
    if (what == Case::kUpper || (what == Case::kSwap && is_lower(c))) {
      append_upper(c, /*title=*/false, mapped);
    } else if ((what == Case::kTitle && !in_word) || (what == Case::kCapitalize && at == 0)) {
      append_upper(c, /*title=*/true, mapped);
    } else if (what == Case::kSwap && !is_upper(c)) {
      append_char(c, mapped);
    } else {
      append_lower(c, mapped);
    }
    out.append_as(mapped, text, at, at + length);
    in_word = cased;
    at += length;
  }
  return out;
}

}  // namespace chimera::jinja
