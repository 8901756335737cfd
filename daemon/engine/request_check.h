// Checks of a request that do not depend on the routing table: sizes, ranges, token ids.
//
// Thread safety: free function, from any thread.
#pragma once

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/sequence/request.h"

namespace chimera {

/// Most bytes of logits that one score answer may carry. 256 MiB is 2,048 positions of a 32k
/// vocabulary; they are held until the answer is sent.
inline constexpr int64_t kMaxLogitsBytes = int64_t{256} << 20;

/// Ok when the request could run on an idle engine; else invalid_argument or resource_exhausted
/// naming the field, what was found and what was expected.
Status check_request(const EngineRequest& request, const ModelConfig& config,
                     const EngineOptions& options, bool has_tokenizer);

}  // namespace chimera
