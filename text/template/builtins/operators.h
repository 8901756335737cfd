// Operators, members and subscripts of the template language.
//
// Thread safety: one thread per Runtime.
#pragma once

#include <string>

#include "text/template/builtins/runtime.h"
#include "text/template/syntax/ast.h"

namespace chimera::jinja {

/// a op b for the arithmetic operators.
Value binary(Runtime& run, Op op, const Value& a, const Value& b);
/// a op b for comparisons, `in` and `not in`.
bool compare(Runtime& run, Op op, const Value& a, const Value& b);
Value negate(Runtime& run, const Value& a, bool minus);

/// a.name: a method or attribute, else the member of a dict, else undefined.
Value attribute(Runtime& run, const Value& a, const std::string& name);
/// a[key]: the member, else the attribute of that name, else undefined.
Value item(Runtime& run, const Value& a, const Value& key);
/// a[begin:end:step]; none stands for an omitted bound.
Value slice(Runtime& run, const Value& a, const Value& begin, const Value& end, const Value& step);
/// "a.b.0" as the filters that take `attribute` read it. What is missing on the way is `fallback`,
/// unless that is undefined or none.
Value attribute_path(Runtime& run, const Value& a, const Value& path, const Value& fallback = {});
/// len(a); fails where Python does.
int64_t length(Runtime& run, const Value& a);
/// & < > ' " as HTML entities.
Text escaped(const Text& text);
/// Start, stop and step of range() and slices to the number of items; `step` is not 0.
int64_t range_length(int64_t start, int64_t stop, int64_t step);

}  // namespace chimera::jinja
