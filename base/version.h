// The version of Chimera, the one that CMakeLists.txt states: of every program, of the wire's
// `info` and of the host that plugins see.
//
// Thread safety: free function, from any thread.
#pragma once

namespace chimera {

/// E.g. "0.1.0". Lives as long as the program.
const char* version();

}  // namespace chimera
