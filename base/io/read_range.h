// Reading a range of a file into memory, by several threads where it is large enough.
//
// Thread safety: free function, from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/io/env.h"
#include "base/status.h"

namespace chimera {

/// Reads `n` bytes at `offset` of `fd` into `out`. From 256 MiB on up to eight threads of its own
/// share the work: one core cannot fault in and copy pages as fast as memory takes them, and a
/// model of tens of gigabytes should load in seconds. `env` must then allow concurrent preads.
/// `path` is for messages: a system error, or data_corrupt when the file ends early.
Status read_range(Env& env, int fd, const std::string& path, std::byte* out, uint64_t offset,
                  uint64_t n);

}  // namespace chimera
