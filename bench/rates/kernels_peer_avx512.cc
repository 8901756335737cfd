// GCC 12 takes the deliberately undefined operands inside its own AVX-512 header for mistakes (GCC
// bug 105593), wherever that header's functions are inlined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define CHIMERA_PEER EigenAvx512
#include "kernels_peer_impl.h"

namespace chimera::bench {

using Reg = float __attribute__((vector_size(64)));

const Peer kPeerAvx512 = make_peer<Reg>();

}  // namespace chimera::bench
