// Python's two ways of formatting: "%s" % x and "{}".format(x).
//
// Thread safety: one thread per Runtime.
#pragma once

#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

/// `format` % `arguments` (a tuple, a dict for %(name)s, or one value).
Value percent_format(Runtime& run, const Text& format, const Value& arguments);
/// `format`.format(…); fields may have members, subscripts and a format specification.
Value brace_format(Runtime& run, const Text& format, const CallArgs& args);
/// round(value, digits) of Python: correctly rounded, halves to even.
double rounded(double value, int64_t digits);

}  // namespace chimera::jinja
