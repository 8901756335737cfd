// The JSON inside a ConfigReader. Private to config_*.cc of this folder, so that the families do
// not see the library.
//
// Thread safety: a ConfigReader by one thread; free function from any.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "backbone/families/family.h"

namespace chimera {

struct ConfigReader::Json {
  nlohmann::json root;
};

/// The value as it stands in the file, cut to a readable length.
std::string shown(const nlohmann::json& value);

}  // namespace chimera
