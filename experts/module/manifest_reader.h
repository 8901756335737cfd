// The tree of a module.yaml as a Manifest. Private to manifest.cc.
//
// Thread safety: none; by the thread that reads the file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields/reader.h"
#include "base/yaml/tree.h"
#include "experts/module/manifest.h"

namespace chimera {

/// Every problem is noted and reading goes on.
class ManifestReader {
 public:
  ManifestReader(YamlProblems& problems, Sealing sealing)
      : problems_(problems), sealing_(sealing) {}

  Manifest read(const YamlNode& root);

 private:
  FieldReader fields(const FieldValue& map, std::string path) const;

  void backbone(const FieldValue& value, Manifest& m);
  void layers(FieldReader& top, Manifest& m);
  void files(FieldReader& top, Manifest& m);
  void file(const FieldValue& value, Manifest& m);
  /// After the kind.
  void precision(FieldReader& top, Manifest& m);
  void provenance(const FieldValue& value, Manifest& m);
  void probe(const FieldValue& value, Manifest& m);

  // manifest_library.cc
  void library(const FieldValue& value, Manifest& m);
  /// What depends on more than one key; fills in what follows from `files`.
  void check_library(FieldReader& top, Manifest& m);
  /// A path that `files` lists.
  void listed(FieldReader& fields, std::string_view key, const Manifest& m, std::string& out);

  // manifest_assembly.cc
  void assembly(const FieldValue& value, Manifest& m);
  /// As check_library.
  void check_assembly(FieldReader& top, Manifest& m);

  // manifest_bundle.cc
  void shared(const FieldValue& value, Manifest& m);
  /// As check_library.
  void check_bundle(FieldReader& top, Manifest& m);

  void text(FieldReader& fields, std::string_view key, size_t max_bytes, std::string& out);
  void digest(FieldReader& fields, std::string_view key, FieldReader::Presence presence,
              std::string& out);
  /// A list of distinct integers in ascending order.
  std::vector<int64_t> integers(const FieldReader& fields, const FieldValue& value,
                                std::string_view key, int64_t limit);
  void slots(FieldReader& fields, std::map<int64_t, std::vector<int64_t>>& out);

  YamlProblems& problems_;
  Sealing sealing_;
};

}  // namespace chimera
