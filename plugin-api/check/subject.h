// What is being checked: a library, and the module it belongs to when a directory was given.
//
// Everything is read once, up front; the cases work on these bytes and on private copies of them,
// never on the files themselves. Thread safety: immutable after open_subject.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "check/safetensors_file.h"

namespace chimera::check {

struct ModuleFile {
  std::string path;    // relative to the module directory
  std::string sha256;  // "sha256:…"; empty: not sealed
};

/// What the checker needs of module.yaml.
struct ModuleManifest {
  std::string name, version, kind, domain, fingerprint;
  int64_t hidden_size = 0;
  std::optional<std::vector<int64_t>> layers;  // nullopt: all
  std::vector<ModuleFile> files;
  std::string library, id, gate, config;  // block `library`; library: path of the .so
  uint64_t memory_bytes = uint64_t{1024} << 20;
};

struct Subject {
  std::string library;     // absolute path
  std::string bytes;       // of the library
  std::string module_dir;  // absolute; empty: only a library was given
  std::optional<ModuleManifest> manifest;
  std::vector<TensorFile> tensor_files;  // .safetensors of the module but the gate rows
  std::string tensor_problem;            // why one could not be read

  std::optional<TensorFile> reference;         // --reference: weights of the same experts
  double tolerance = 1e-3;                     // --tolerance: of case 32
  std::vector<std::string> allowed_libraries;  // --allow
};

struct SubjectOptions {
  std::string path, reference;
  double tolerance = 1e-3;
  std::vector<std::string> allowed_libraries;
};

/// Reads `options.path`: a module directory (module.yaml) or a shared library. A text instead when
/// there is nothing that could be checked.
std::variant<Subject, std::string> open_subject(const SubjectOptions& options);

/// The whole file; nullopt when it cannot be read or has more than `limit` bytes.
std::optional<std::string> read_file(const std::string& path, uint64_t limit);

}  // namespace chimera::check
