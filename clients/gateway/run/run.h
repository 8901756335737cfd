// Runs a Job: from the first call to the last byte of the answer.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <memory>

#include "clients/gateway/api/caller.h"
#include "clients/gateway/api/upstream.h"
#include "clients/gateway/http/exchange.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway {

/// Answers `exchange`. A client that leaves ends the job's sequences. `daemon` outlives the run.
void run(std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon, Job job);

}  // namespace chimera::gateway
