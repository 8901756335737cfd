// Reports of the module commands, printed.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace chimera {

/// For people: one "label  value" per line within 80 columns, sizes as "12.3 GB", counts as
/// "1.3 billion"; objects as "key value, key value".
std::string report_text(const nlohmann::ordered_json& report);
/// To standard output: that, or one line of JSON.
void print_report(const nlohmann::ordered_json& report, bool json);

}  // namespace chimera
