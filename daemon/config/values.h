// Values of a deployment file that are more than a field: paths, endpoints, sizes, precisions. What
// is wrong is noted with its position, and `out` is left as it was.
//
// Thread safety: a reader by one thread, for one reading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "backbone/forward/kv_format.h"
#include "base/yaml/tree.h"
#include "compute/tensor/precision.h"
#include "daemon/config/reader.h"

namespace chimera {

class ValueReader {
 public:
  /// Relative paths start at `base_dir`; without one they are refused. `problems` outlives the
  /// reader.
  ValueReader(YamlProblems& problems, std::string base_dir)
      : problems_(problems), base_dir_(std::move(base_dir)) {}

  /// A path made absolute and normal. False when it is absent or wrong. `expected` completes
  /// "(expected …)".
  bool path(const MapReader& map, std::string_view key, std::string_view expected,
            std::string* out) const;
  /// The same of a node that is no value of a map; `name` is what the problem calls it.
  bool resolve(const YamlNode& node, const std::string& name, std::string_view expected,
               std::string* out) const;
  /// The key `endpoint`.
  void endpoint(const MapReader& map, std::string* out) const;
  /// A size; none for `auto`.
  void bytes(const MapReader& map, std::string_view key, std::optional<uint64_t>* out) const;
  bool precision(const MapReader& map, std::string_view key, Precision* out) const;
  void kv_format(const MapReader& map, std::string_view key, KvFormat* out) const;

 private:
  YamlProblems& problems_;
  const std::string base_dir_;
};

}  // namespace chimera
