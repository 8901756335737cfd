// Parts of the bench `isolation`.
//
// Thread safety: by the main thread.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace chimera::bench {

struct IsolationOptions {
  std::string backbone, module, in_process_module, sinner;
  std::vector<std::string> parts;  // none: all
  int threads = 1;

  bool wants(const std::string& part) const {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  }
};

/// How busy the machine is besides: figures of a loaded machine are upper bounds.
void print_load();
/// Round trips between two processes.
void floors();
/// What a misbehaving plugin costs the one who called it.
void sins(const std::string& library);

}  // namespace chimera::bench
