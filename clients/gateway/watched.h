// An Exchange that is counted: status and time of its answer.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <memory>
#include <string>

#include "clients/gateway/http/exchange.h"
#include "clients/gateway/metrics/metrics.h"

namespace chimera::gateway {

std::shared_ptr<Exchange> watched(std::shared_ptr<Exchange> exchange,
                                  std::shared_ptr<Metrics> metrics, std::string route);

}  // namespace chimera::gateway
