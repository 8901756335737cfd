// Character sets that Oniguruma names, spelled for PCRE2: \s, \w, \h, POSIX brackets, and what
// stands in \p{...}; by PCRE2's own tables, or by those of kUnicodeVersion (unicode_data.h).
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera::tokenizer {

// Contents of bracket classes. Word is Alphabetic + M + Nd + Pc; the three ranges are the symbols
// with Other_Alphabetic.
inline constexpr std::string_view kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
inline constexpr std::string_view kNotSpace =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";
inline constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
// \w by itself takes Oniguruma's Latin-1 table, which counts superscript digits and fractions as
// word characters; [\w] and \p{Word} do not.
inline constexpr std::string_view kWordInLatin1 = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
inline constexpr std::string_view kHex = "0-9a-fA-F";
inline constexpr std::string_view kNotHex =
    "\\x{0}-\\x{2f}\\x{3a}-\\x{40}\\x{47}-\\x{60}\\x{67}-\\x{10ffff}";
inline constexpr std::string_view kAny = "\\x{0}-\\x{10ffff}";

/// Contents of the bracket class for a POSIX name such as "alpha", in lower case.
std::optional<std::string_view> posix_set(std::string_view name);

/// Whose properties characters have.
enum class Tables : uint8_t { kLibrary, kInForce };

/// Part of a bracket class: `set` is class content, `complement` says that it stands for every
/// character outside it.
struct CharSet {
  std::string set;
  bool complement = false;

  std::string expression() const { return (complement ? "[^" : "[") + set + "]"; }
};

/// \p{name} (\P{name} when `negated`), for names that are not POSIX names; `name` comes without
/// spaces, '-' and '_'. Empty when PCRE2 does not know it.
std::optional<CharSet> property_set(const std::string& name, bool negated, Tables tables);

/// Class content made of \p{…} and characters, with what the properties have by `tables`. REQUIRES:
/// none of them lost characters.
std::string by_tables(std::string_view set, Tables tables);

/// ASCII letters in lower case.
std::string lower_ascii(std::string text);

}  // namespace chimera::tokenizer
