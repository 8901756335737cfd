// A private copy of the library, loaded; and the calls into its entry.
//
// Thread safety: control role, one thread at a time.
#pragma once

#include <string>

#include "check/cases/case.h"
#include "chimera/expert.h"

namespace chimera::check {

/// Runs `body`, which calls the plugin and returns its status: remembers an exception that crosses
/// the boundary in context.exceptions and returns CHIMERA_INTERNAL for it.
template <class Body>
int32_t guarded_call(Context& context, const char* function, Body&& body);

/// What is wrong with a descriptor, e.g. "max_rows: found 0 (expected 1 to 65536)"; empty: nothing.
std::string descriptor_problem(const chimera_expert_descriptor& descriptor);

/// All that a descriptor says, as one text: for comparisons.
std::string descriptor_text(const chimera_expert_descriptor& descriptor);

std::string text_of(chimera_text text);

class Plugin {
 public:
  explicit Plugin(Context& context) : context_(context) {}
  ~Plugin();
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  /// Copies `bytes` under a name never used before, loads the copy (now, local) and finds the
  /// entry. A text when that fails.
  std::string map(const std::string& bytes);
  /// init and the factory. A text when that fails.
  std::string init();
  /// map and init of the library that is checked. Skips the case on failure: case 10 reports it.
  Problem open();
  void deinit();
  /// dlclose; true when the image is no longer mapped.
  bool close();

  /// Time that map spent on making the copy.
  uint64_t copy_ns() const { return copy_ns_; }
  bool mapped() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }
  void* handle() const { return handle_; }
  const chimera_expert_entry& entry() const { return *entry_; }
  const chimera_expert_factory& factory() const { return *factory_; }
  /// The plugin that is checked: the one that module.yaml names, else the first.
  const chimera_expert_descriptor& descriptor() const { return *descriptor_; }
  /// What entry.flags claims; known as long as this object lives.
  bool unload_clean() const { return unload_clean_; }
  Context& context() const { return context_; }

 private:
  Context& context_;
  std::string path_;
  void* handle_ = nullptr;
  const chimera_expert_entry* entry_ = nullptr;
  const chimera_expert_factory* factory_ = nullptr;
  const chimera_expert_descriptor* descriptor_ = nullptr;
  bool ready_ = false, unload_clean_ = false;
  uint64_t copy_ns_ = 0;
};

/// Whether a file of this path is mapped into the process.
bool is_mapped(const std::string& path);

}  // namespace chimera::check

#include "check/plugin_call.h"
