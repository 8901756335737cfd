// Methods of strings, lists and dicts.
//
// Thread safety: one thread per Runtime.
#pragma once

#include <string_view>

#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

/// Whether `self` has the method. Those that change an object refuse to be called, as in Hugging
/// Face's immutable sandbox.
bool has_method(const Value& self, std::string_view name);
/// Whether it would change `self`.
bool changes(const Value& self, std::string_view name);
/// REQUIRES: has_method.
Value call_method(Runtime& run, const Value& self, std::string_view name, const CallArgs& args);

// Parts of it that filters share.
Value join(Runtime& run, const Text& separator, const std::vector<Value>& items);
Text replaced(Runtime& run, const Text& text, const Text& from, const Text& to, int64_t limit);
/// Lines without their ends.
std::vector<Text> split_lines(Runtime& run, const Text& text, bool keep_ends);
Text centered(Runtime& run, const Text& text, int64_t width, std::string_view fill);
bool has_case(const Text& text, bool upper);  // isupper, islower

}  // namespace chimera::jinja
