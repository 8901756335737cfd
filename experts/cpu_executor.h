// The executor of experts that are weights in this machine's memory: all of a layer in one parallel
// region per stage, with what adapters change of them.
//
// Thread safety: as ExpertExecutor; run() by the pool's owner.
#pragma once

#include "experts/executor.h"

namespace chimera {

/// kPool; of StagedExperts alone. They compute to the end, whatever the deadline of their rows.
ExpertExecutor& cpu_executor();

}  // namespace chimera
