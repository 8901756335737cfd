// How much memory a module will take, told before any of its weights are read.
//
// Thread safety: free function, from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "experts/kinds/module.h"

namespace chimera {

struct AssemblyPlan;

/// Bytes.
struct ModuleSize {
  uint64_t resident = 0;  // what it holds once it is loaded
  uint64_t loading = 0;   // at the most while it is loaded, that included
  uint64_t files = 0;     // that are read for it
};

/// From the manifest, the headers of its tensor files and the sizes of the others; no tensor is
/// read and no code run. A library's own allocations are not known before it runs and not in it.
/// Errors are those of reading the files' headers.
Result<ModuleSize> module_size(const std::string& dir, const Manifest& manifest,
                               const BackboneInfo& backbone);
/// Of a module of kind assembly, made of what is open already. Its parents are read where they lie
/// and do not count.
ModuleSize assembled_size(const AssemblyPlan& plan, const BackboneInfo& backbone);

}  // namespace chimera
