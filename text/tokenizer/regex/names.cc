#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer/regex/names.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/unicode_data.h"

namespace chimera::tokenizer {
namespace {

using Named = std::pair<std::string_view, std::string_view>;

// Names that both \p{…} and [:…:] take, in lower case. (\p{Punct} is another set than [:punct:].)
constexpr std::array<Named, 16> kPosixNames = {{
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"graph", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}"},
    {"lower", "\\p{Lowercase}"},
    {"print", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}"},
    {"punct", "\\p{P}\\p{S}"},
    {"space", kSpace},
    {"upper", "\\p{Uppercase}"},
    {"word", kWord},
    {"xdigit", kHex},
    {"any", kAny},
    {"whitespace", kSpace},
}};

// Long names of general categories, lower case without separators.
constexpr std::array<Named, 38> kCategoryNames = {{
    {"letter", "L"},
    {"casedletter", "L&"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"punct", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"privateuse", "Co"},
}};

template <size_t N>
std::optional<std::string_view> look_up(const std::array<Named, N>& table, std::string_view name) {
  for (const auto& [key, value] : table) {
    if (key == name) return value;
  }
  return std::nullopt;
}

bool pcre2_accepts(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  const bool accepted = code != nullptr;
  pcre2_code_free(code);
  return accepted;
}

/// Null when PCRE2 has it as it is in force.
const ChangedProperty* find_changed(const std::string& name) {
  const std::string key = lower_ascii(name);
  const auto all = changed_properties();
  const auto at = std::find_if(all.begin(), all.end(), [&](const ChangedProperty& property) {
    return property.name == (key == "lc" ? "l&" : key);
  });
  return at == all.end() ? nullptr : &*at;
}

std::string content(CodePointSet set) {
  std::string out;
  for (const auto& [first, last] : set) {
    out += first == last ? fmt::format("\\x{{{:x}}}", first)
                         : fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
  }
  return out;
}

/// \p{`name`} as PCRE2 spells it, brought up to the tables in force.
CharSet changed_set(const ChangedProperty& property, const std::string& name, bool negated) {
  switch (property.change) {
    case ChangedProperty::Change::kGrown:
      return {"\\p{" + name + "}" + content(property.ranges), negated};
    case ChangedProperty::Change::kShrunk:
      return {"\\P{" + name + "}" + content(property.ranges), !negated};
    case ChangedProperty::Change::kBoth:
      break;
  }
  return {content(property.ranges), negated};
}

}  // namespace

std::string lower_ascii(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::optional<std::string_view> posix_set(std::string_view name) {
  return look_up(kPosixNames, name);
}

std::optional<CharSet> property_set(const std::string& name, bool negated, Tables tables) {
  const auto category = look_up(kCategoryNames, lower_ascii(name));
  // A bare script name means script extensions in PCRE2 and the script itself in Oniguruma.
  for (const std::string& candidate : {category ? std::string(*category) : "sc:" + name, name}) {
    if (!pcre2_accepts("\\p{" + candidate + "}")) continue;
    const ChangedProperty* changed = tables == Tables::kLibrary
                                         ? nullptr
                                         : find_changed(category ? std::string(*category) : name);
    if (changed != nullptr) return changed_set(*changed, candidate, negated);
    return CharSet{(negated ? "\\P{" : "\\p{") + candidate + "}"};
  }
  return std::nullopt;
}

std::string by_tables(std::string_view set, Tables tables) {
  std::string out(set);
  if (tables == Tables::kLibrary) return out;
  for (size_t at = set.find("\\p{"); at != std::string_view::npos; at = set.find("\\p{", at + 1)) {
    const std::string_view name = set.substr(at + 3, set.find('}', at) - at - 3);
    const ChangedProperty* changed = find_changed(std::string(name));
    if (changed != nullptr) out += content(changed->ranges);
  }
  return out;
}

}  // namespace chimera::tokenizer
