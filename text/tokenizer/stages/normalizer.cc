#include "text/tokenizer/stages/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <memory>

#include "text/tokenizer/stages/pattern.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// A hostile "Replace" could grow text without bound.
constexpr size_t kMaxNormalized = size_t{256} * 1024 * 1024;

constexpr std::string_view kSupportedNormalizers =
    "NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, StripAccents, Nmt, Precompiled, "
    "ByteLevel, Sequence";

Status too_large() {
  return Status(Code::kResourceExhausted,
                fmt::format("the normalized text exceeds {} bytes", kMaxNormalized),
                "send the text in smaller parts");
}

bool is_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return (static_cast<unsigned char>(c) & 0x80u) != 0; });
}

void append_decomposed(uint32_t c, utf8proc_option_t options, std::vector<utf8proc_int32_t>& out) {
  if (c < 0x80) return out.push_back(static_cast<utf8proc_int32_t>(c));
  // The longest decomposition in Unicode has 18 characters.
  std::array<utf8proc_int32_t, 32> buffer{};
  int boundary = 0;
  const auto n =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer.data(),
                              static_cast<utf8proc_ssize_t>(buffer.size()), options, &boundary);
  const bool itself = n == 1 && buffer[0] == static_cast<utf8proc_int32_t>(c);
  if (!itself && is_unknown_to_normal_forms(c))
    return out.push_back(static_cast<utf8proc_int32_t>(c));
  out.insert(out.end(), buffer.begin(), buffer.begin() + std::clamp<ptrdiff_t>(n, 0, 32));
}

int combining_class(utf8proc_int32_t c) {
  const int held = c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
  return held != 0 && is_unknown_to_normal_forms(static_cast<uint32_t>(c)) ? 0 : held;
}

// Canonical order: every run of characters with a combining class sorted by it. utf8proc sorts by
// swapping neighbours, which takes hours for a text that is one run of a million marks.
void order_marks(std::vector<utf8proc_int32_t>& characters) {
  for (auto begin = characters.begin(); begin != characters.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, characters.end(),
                                  [](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

// The two lists of SentencePiece's "nmt" rule: what is dropped, and what becomes a space.
bool is_nmt_control(uint32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
         c == 0x8F || c == 0x9F;
}

bool is_nmt_space(uint32_t c) {
  return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
         c == 0xFFFD;
}

/// Rebuilds the text from what `keep(out, code_point, bytes)` appends; false drops the character,
/// and a text whose first one goes no longer begins where it did.
template <class Keep>
Status filter(std::string& text, bool& start, Keep keep) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_char(text, pos);
    const bool kept = keep(out, c.code_point, std::string_view(text).substr(pos, c.length));
    if (!kept && pos == 0) start = false;
    pos += c.length;
  }
  text = std::move(out);
  return {};
}

}  // namespace

Result<Normalizer> Normalizer::from_json(const Json& json) {
  Normalizer normalizer;
  CHIMERA_RETURN_IF_ERROR(read(json, "normalizer", normalizer.steps_));
  return normalizer;
}

Status Normalizer::read(const Json& json, const std::string& where, std::vector<Step>& steps) {
  if (json.is_null()) return {};
  Fields fields(json, where);
  const std::string type = fields.string("type");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence") {
    const Json* members = fields.array("normalizers");
    for (size_t i = 0; i < members->size(); ++i) {
      CHIMERA_RETURN_IF_ERROR(
          read((*members)[i], fmt::format("{}.normalizers[{}]", where, i), steps));
    }
  } else if (type == "NFC") {
    steps.emplace_back(UnicodeForm{UTF8PROC_COMPOSE});
  } else if (type == "NFD") {
    steps.emplace_back(UnicodeForm{UTF8PROC_DECOMPOSE});
  } else if (type == "NFKC") {
    steps.emplace_back(UnicodeForm{UTF8PROC_COMPOSE | UTF8PROC_COMPAT});
  } else if (type == "NFKD") {
    steps.emplace_back(UnicodeForm{UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT});
  } else if (type == "Prepend") {
    steps.emplace_back(Prepend{fields.string("prepend")});
  } else if (type == "Replace") {
    Result<Regex> pattern = read_pattern(fields);
    if (!pattern.ok()) return pattern.status();
    steps.emplace_back(Replace{*pattern, fields.string("content")});
  } else if (type == "Lowercase") {
    steps.emplace_back(Lowercase{});
  } else if (type == "Strip") {
    steps.emplace_back(StripSpace{fields.boolean("strip_left"), fields.boolean("strip_right")});
  } else if (type == "StripAccents") {
    steps.emplace_back(StripAccents{});
  } else if (type == "Nmt") {
    steps.emplace_back(Nmt{});
  } else if (type == "Precompiled") {
    CHIMERA_RETURN_IF_ERROR(read_precompiled(fields, steps));
  } else if (type == "ByteLevel") {
    steps.emplace_back(ByteLevel{});
  } else {
    return unsupported_component(where, type, kSupportedNormalizers);
  }
  return fields.status();
}

Status Normalizer::read_precompiled(Fields& fields, std::vector<Step>& steps) {
  // Some converters write null for SentencePiece's "identity".
  if (!fields.has("precompiled_charsmap")) return fields.status();
  const std::string base64 = fields.string("precompiled_charsmap");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  Result<Charsmap> map = Charsmap::from_base64(base64);
  if (!map.ok()) return map.status();
  steps.emplace_back(Precompiled{std::make_shared<const Charsmap>(std::move(*map))});
  return {};
}

Status Normalizer::apply(std::string& text, bool* keeps_start) const {
  bool start = true;
  for (const Step& step : steps_) {
    CHIMERA_RETURN_IF_ERROR(std::visit([&](const auto& s) { return run(s, text, start); }, step));
    if (text.size() > kMaxNormalized) return too_large();
  }
  if (keeps_start != nullptr) *keeps_start = start;
  return {};
}

Status Normalizer::run(const UnicodeForm& step, std::string& text, bool&) {
  if (is_ascii(text)) return {};  // every form leaves ASCII alone
  const auto options = static_cast<utf8proc_option_t>(step.utf8proc_options | UTF8PROC_STABLE);
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_char(text, pos);
    append_decomposed(c.code_point, options, characters);
    pos += c.length;
  }
  order_marks(characters);
  auto count = static_cast<utf8proc_ssize_t>(characters.size());
  if ((step.utf8proc_options & UTF8PROC_COMPOSE) != 0) {
    count = utf8proc_normalize_utf32(characters.data(), count, options);
  }
  if (count < 0) {
    return Status(Code::kInternal,
                  fmt::format("Unicode normalization failed: {}", utf8proc_errmsg(count)));
  }
  text.clear();
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_char(static_cast<uint32_t>(characters[static_cast<size_t>(i)]), text);
  }
  return {};
}

Status Normalizer::run(const Prepend& step, std::string& text, bool&) {
  if (!text.empty()) text.insert(0, step.text);
  return {};
}

Status Normalizer::run(const Replace& step, std::string& text, bool& start) {
  std::string out;
  out.reserve(text.size());
  size_t copied = 0;
  bool oversized = false;
  const Status matched = step.pattern.for_each_match(text, [&](size_t begin, size_t end) {
    if (oversized) return;
    // What replaces several characters counts as the last of them.
    if (begin == 0 && end > char_length(text[0])) start = false;
    out.append(text, copied, begin - copied);
    out += step.content;
    copied = end;
    oversized = out.size() > kMaxNormalized;
  });
  CHIMERA_RETURN_IF_ERROR(matched);
  if (oversized) return too_large();
  out.append(text, copied);
  text = std::move(out);
  return {};
}

Status Normalizer::run(const Lowercase&, std::string& text, bool&) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_char(text, pos);
    if (c.code_point == 0x130) {
      out += "i\xCC\x87";  // the one character whose lower case is two
    } else {
      append_char(to_lower(c.code_point), out);
    }
    pos += c.length;
  }
  text = std::move(out);
  return {};
}

Status Normalizer::run(const StripSpace& step, std::string& text, bool& start) {
  size_t begin = text.size();
  size_t end = 0;
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_char(text, pos);
    if (!is_white_space(c.code_point)) {
      begin = std::min(begin, pos);
      end = pos + c.length;
    }
    pos += c.length;
  }
  if (step.right) text.erase(std::max(end, step.left ? begin : size_t{0}));
  if (step.left && begin > 0) {
    text.erase(0, std::min(begin, text.size()));
    start = false;
  }
  return {};
}

Status Normalizer::run(const StripAccents&, std::string& text, bool& start) {
  return filter(text, start, [](std::string& out, uint32_t c, std::string_view bytes) {
    if (is_mark(c)) return false;
    out += bytes;
    return true;
  });
}

Status Normalizer::run(const Nmt&, std::string& text, bool& start) {
  return filter(text, start, [](std::string& out, uint32_t c, std::string_view bytes) {
    if (is_nmt_control(c)) return false;
    out += is_nmt_space(c) ? " " : bytes;
    return true;
  });
}

Status Normalizer::run(const Precompiled& step, std::string& text, bool&) {
  return step.map->apply(text, kMaxNormalized);
}

Status Normalizer::run(const ByteLevel&, std::string& text, bool&) {
  text = to_byte_level(text);
  return {};
}

}  // namespace chimera::tokenizer
