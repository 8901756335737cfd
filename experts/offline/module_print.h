// Reports of the module commands, printed.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <string>

#include "base/json/json.h"

namespace chimera {

/// For people: one "label  value" per line within 80 columns, sizes as "12.3 GB", counts as
/// "1.3 billion"; objects as "key value, key value".
std::string report_text(const Json& report);
/// To standard output: that, or one line of JSON.
void print_report(const Json& report, bool json);

}  // namespace chimera
