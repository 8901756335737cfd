#define CHIMERA_PEER EigenAvx2
#include "kernels_peer_impl.h"

namespace chimera::bench {

using Reg = float __attribute__((vector_size(32)));

const Peer kPeerAvx2 = make_peer<Reg>();

}  // namespace chimera::bench
