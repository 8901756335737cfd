// ZeroMQ's context and who is admitted to its sockets. Includes zmq.hpp: for the .cc files that
// speak ZeroMQ.
#pragma once

#include "daemon/server/admission.h"

namespace chimera {

class SocketContext {
 public:
  zmq::context_t zmq;
  Admission admission{zmq};
};

}  // namespace chimera
