// ZeroMQ's context and who is admitted to its sockets. Includes zmq.hpp: for the .cc files that
// speak ZeroMQ.
//
// Thread safety: the context from any thread, sockets of it by one each; Admission as it says.
#pragma once

#include "daemon/server/admission.h"

namespace chimera {

class SocketContext {
 public:
  zmq::context_t zmq;
  Admission admission{zmq};
};

}  // namespace chimera
