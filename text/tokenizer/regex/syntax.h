// Oniguruma syntax to PCRE2 syntax.
//
// The two differ in what tokenizer files use: \s (PCRE2 adds U+180E), \w and \b, \h and \v, (?m),
// {n,m}+ , {,m}, nested and intersected classes, POSIX brackets, scope of inline flags, names
// after \p (PCRE2 takes a script name as script extensions). Everything is rewritten to forms
// that mean the same in PCRE2; what is unknown is refused.
//
// Thread safety: pure function.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "text/tokenizer/regex/names.h"

namespace chimera::tokenizer {

/// The PCRE2 pattern (for UTF, UCP, MULTILINE) that matches like `pattern` where characters have
/// the properties that `tables` say. unimplemented names the construct and its byte offset;
/// data_corrupt for malformed or oversized patterns.
Result<std::string> translate_oniguruma(std::string_view pattern, Tables tables);

}  // namespace chimera::tokenizer
