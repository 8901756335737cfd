// The sections `security`, `trust` and `libraries` of a deployment: who is let in, which modules,
// and what those that are code may ask for.
//
// Thread safety: free functions over values.
#pragma once

#include "daemon/config/config.h"
#include "daemon/config/reader.h"
#include "daemon/config/values.h"

namespace chimera {

/// Read them, if they are there, from the top of the file. Problems are noted.
void read_security(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                   SecurityConfig* out);
void read_trust(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                TrustConfig* out);
void read_libraries(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                    LibrariesConfig* out);

}  // namespace chimera
