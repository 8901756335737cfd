// Private to the method table: str's methods.
//
// Thread safety: free functions; a Runtime by one thread.
#pragma once

#include <string_view>

#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

bool has_string_method(std::string_view name);
/// REQUIRES: has_string_method.
Value call_string_method(Runtime& run, const Text& self, std::string_view name,
                         const CallArgs& args);

}  // namespace chimera::jinja
