// FieldReader in the words of the gateway's files: "KEY: found X (expected Y)".
//
// Thread safety: none; by the thread that reads a file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fields/reader.h"

namespace chimera::gateway {

class ConfigFields : public FieldReader {
 public:
  ConfigFields(const FieldValue& map, std::string path, Problems& problems);

  /// Text that is not empty. Whether `out` was set.
  bool line(std::string_view key, std::string_view expected, std::string& out,
            Presence presence = kOptional);
  /// A list of such texts; an empty list is one.
  void lines(std::string_view key, std::string_view expected, std::vector<std::string>& out);
};

}  // namespace chimera::gateway
