// Modules of kind library: from a directory to a Module whose experts are code.
//
// The order of plugin-abi §4.8: manifest, digests over the very bytes that are used, ELF note, gate
// rows; only then is the verified copy loaded - in this process or in one of its own -, activated
// and put through a self-test. Any failure unwinds in reverse.
//
// Thread safety: free functions, from any thread; control calls take LibraryRuntime::control().
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/status.h"
#include "experts/kinds/module.h"
#include "experts/library/backend.h"

namespace chimera {

/// Everything up to the point where code would run. Used by load_library_module and by programs
/// that only look. `digests` may be null.
struct LibraryPackage {
  Manifest manifest;
  LibrarySource source;
  std::map<int64_t, ModuleLayer> layers;  // gate rows and slots; `experts` still empty
};
Result<LibraryPackage> open_library_package(const std::string& dir, const ModelConfig& config,
                                            const std::string& fingerprint,
                                            DigestMemo* digests = nullptr);
/// The same with a manifest that is not, or not yet, the one in `dir`.
Result<LibraryPackage> open_library_package(const std::string& dir, Manifest manifest,
                                            const ModelConfig& config,
                                            const std::string& fingerprint,
                                            DigestMemo* digests = nullptr);

/// load_module for kind library. unimplemented without backbone.libraries.
Result<std::shared_ptr<const Module>> load_library_module(const std::string& dir,
                                                          const BackboneInfo& backbone);

/// A batch of every expert: finite, every value written, the same again. deadline_exceeded when it
/// is not through by `limit`.
Status self_test(LibraryBackend& backend, const LibrarySource& source,
                 std::chrono::steady_clock::time_point limit);

}  // namespace chimera
