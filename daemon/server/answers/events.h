// Answers of the daemon as JSON (clients/PROTOCOL.md). Pure functions of their arguments.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json/json.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/server/answers/live.h"

namespace chimera {

struct DoneFormat {
  EngineRequest::Kind kind = EngineRequest::Kind::kGenerate;
  bool stream = false;
  int64_t vocab = 0;
  std::optional<uint64_t> seed = std::nullopt;
  const Tokenizer* tokenizer = nullptr;  // of the texts of TokenChoice; null: no texts
  const Receipt* receipt = nullptr;      // null: none was asked for
};

/// `tokenizer` as in DoneFormat.
Answer encode_token(std::string_view id, const TokenEvent& event,
                    const Tokenizer* tokenizer = nullptr);
Answer encode_done(std::string_view id, const DoneEvent& event, const DoneFormat& format);
Answer encode_status(std::string_view id, const Status& status);

/// {"id":…,"event":"done"} with `fields` added.
std::string encode_reply(std::string_view id, const Json& fields);

/// {"id":…,"event":"progress"} with `fields` added.
std::string encode_progress(std::string_view id, const Json& fields);

/// "routing" of a score: {"k":…,"layers":[{"ids":[[…]],"weights":[[…]]}]}. Floats are printed with
/// the fewest digits that read back as the same float32.
std::string encode_routing(const RoutingTrace& trace);

}  // namespace chimera
