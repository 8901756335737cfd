// POST /v1/embeddings: texts become vectors, the backbone's final norm over all their tokens.
//
// Thread safety: values and pure functions.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/run/job.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway::openai {

struct EmbeddingRequest {
  std::string model;              // as it was asked for
  std::vector<wire::Call> calls;  // one for each input, in their order
  bool base64 = false;            // float32, little-endian; else numbers
};

/// What the API has and Chimera does not is refused by name, and so is what nobody knows.
std::variant<EmbeddingRequest, ApiError> read_embedding_request(const Request& request,
                                                                const ModelNames& names);

/// What answers it, as of now.
Job job_of(EmbeddingRequest asked);

}  // namespace chimera::gateway::openai
