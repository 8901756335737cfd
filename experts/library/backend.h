// What stands behind the experts of a `library` module: the plugin inside this process, or inside
// a process of its own. The rest of Chimera does not know which.
//
// Lifetime: a Module and its experts share one backend. The last of them to go - on the reaper,
// never on the engine thread - destroys it, which retires the plugin: deactivate, destroy, deinit,
// close (or keep). Nothing calls forward then any more.
//
// Thread safety: forward may be called from any thread, and concurrently (the engine and a probe);
// a backend of the serial class orders calls itself. status() and resident_bytes() from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/io/sealed_file.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/executor.h"
#include "experts/library/elf_note.h"
#include "experts/library/runtime.h"
#include "experts/module/manifest.h"

namespace chimera {

/// A verified library module, no code run yet: digests compared, ELF note read, gate rows checked.
struct LibrarySource {
  std::string module;   // name, for messages
  std::string version;  // of the module; the plugin's own must equal it
  std::string dir;      // module directory
  LibrarySpec spec;
  ElfNote note;
  std::shared_ptr<const SealedFile> image;  // the verified bytes of the .so
  std::vector<TensorView> tensors;          // for chimera.weights/1, in order of name
  int64_t hidden_size = 0;
  std::string fingerprint;             // of the backbone
  std::map<int64_t, int64_t> experts;  // experts of each layer; the plugin must have as many
};

/// What a plugin says of itself, after it was checked.
struct LibraryInfo {
  std::string id, version, vendor, build;
  std::string abi;  // it was built against, e.g. "1.1"
  bool bitwise = true;
  bool reentrant = false;
  bool unload_clean = false;  // declared
  int64_t max_rows = 0;
};

/// How a library stands. In this process it is active until it poisons itself, for good. In a
/// process of its own it starts, is active, restarts after an end, and is in quarantine after too
/// many; it is retired when its module is let go.
enum class LibraryState : uint8_t {
  kStarting,
  kActive,
  kRestarting,
  kQuarantined,
  kPoisoned,
  kRetired
};
inline constexpr auto kLibraryStateNames = enum_names<LibraryState>(
    "starting", "active", "restarting", "quarantined", "poisoned", "retired");

/// What `modules` shows of a library module.
struct LibraryStatus {
  LibraryState state = LibraryState::kActive;
  uint64_t calls = 0;
  uint64_t failures = 0;
  uint64_t restarts = 0;
  std::string last_error;                    // empty: none
  std::string sandbox;                       // isolated: what is in force, e.g. "seccomp landlock"
  std::map<std::string, uint64_t> counters;  // chimera.metrics/1
};

class LibraryBackend {
 public:
  virtual ~LibraryBackend() = default;

  virtual Isolation isolation() const = 0;
  virtual const LibraryInfo& info() const = 0;
  virtual LibraryStatus status() const = 0;
  virtual uint64_t resident_bytes() const = 0;

  /// Overwrites y = expert(x) of one layer; x, y [rows, hidden], dense, distinct, any alignment and
  /// any number of rows (a backend splits what exceeds info().max_rows). `ctx.scratch` is the
  /// backend's for the call. unavailable when the plugin is lost, deadline_exceeded when it took
  /// longer than spec.deadline_ms; y is undefined then. Finite values are the caller's to check.
  virtual Status forward(int64_t layer, int64_t expert, const float* x, int64_t rows, float* y,
                         ExpertContext& ctx) = 0;
  /// Of its experts, which are LibraryExperts.
  virtual ExpertExecutor& executor() { return caller_executor(); }
};

/// Loads and activates the plugin in this process. Blocking, control role. Nothing is kept on
/// failure, except the image of a library that cannot be unloaded (counted by the runtime).
Result<std::shared_ptr<LibraryBackend>> open_in_process(LibrarySource source,
                                                        std::shared_ptr<LibraryRuntime> runtime);

}  // namespace chimera
