// Parts of the bench `isolation`.
#pragma once

#include <string>

namespace chimera::bench {

struct IsolationOptions {
  std::string backbone, module, in_process_module, sinner;
  int threads = 1;
};

/// How busy the machine is besides: figures of a loaded machine are upper bounds.
void print_load();
/// Round trips between two processes.
void floors();
/// What a misbehaving plugin costs the one who called it.
void sins(const std::string& library);

}  // namespace chimera::bench
