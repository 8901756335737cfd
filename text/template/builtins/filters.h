// Filters (`value | name(…)`) and tests (`value is name(…)`): Jinja's own, with `tojson` as Hugging
// Face replaces it.
//
// Thread safety: one thread per Runtime.
#pragma once

#include <string_view>

#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

bool has_filter(std::string_view name);
/// Fails for an unknown filter.
Value apply_filter(Runtime& run, std::string_view name, const Value& subject, const CallArgs& args);

bool has_test(std::string_view name);
/// Fails for an unknown test.
bool apply_test(Runtime& run, std::string_view name, const Value& subject, const CallArgs& args);

/// A filter as the tables hold it: the subject, then the arguments.
using FilterFunction = Value (*)(Runtime& run, const Value& subject, const CallArgs& args);
struct FilterEntry {
  std::string_view name;
  FilterFunction apply;
};
/// Null when the file has no such filter (list_filters.cc, text_filters.cc).
const FilterEntry* find_list_filter(std::string_view name);
const FilterEntry* find_text_filter(std::string_view name);

}  // namespace chimera::jinja
