// How problems of the configuration files that people write are told.
//
// Thread safety: constant.
#pragma once

#include "base/fields/reader.h"

namespace chimera {

class ConfigWording : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override;
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override;
  /// With the nearest known key.
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override;
  std::string map() const override { return "a map of keys"; }
};

}  // namespace chimera
