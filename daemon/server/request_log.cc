#include "daemon/server/request_log.h"

#include <algorithm>
#include <array>

#include "base/log/log.h"

namespace chimera {
namespace {

constexpr std::array<std::string_view, 4> kComputed = {"generate", "chat", "score", "embed"};

bool is_computed(const Live& live) {
  return live.peer().port == 0 &&
         std::find(kComputed.begin(), kComputed.end(), live.call) != kComputed.end();
}

}  // namespace

void log_end(const Live& live, Left client) {
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - live.since)
          .count();
  const std::string_view endpoint = live.peer().port == 0 ? "serve" : "control";
  if (!is_computed(live)) {
    return log::debug("request_ended", {{"endpoint", endpoint},
                                        {"call", live.call},
                                        {"ms", ms},
                                        {"traceparent", live.traceparent}});
  }
  const Outcome end = live.outcome().value_or(Outcome{.code = Code::kCancelled});
  const PrincipalPtr& who = live.peer().principal;
  log::info("request_ended",
            {{"endpoint", endpoint},
             {"call", live.call},
             {"ms", ms},
             {"client", who == nullptr ? "" : who->name},
             {"result", client == Left::kGone ? "client_gone" : code_name(end.code)},
             {"finish", end.finish},
             {"prompt_tokens", end.prompt_tokens},
             {"completion_tokens", end.completion_tokens},
             {"cached_tokens", end.cached_tokens},
             {"queue_ms", end.queue_ms},
             {"prefill_ms", end.prefill_ms},
             {"decode_ms", end.decode_ms},
             {"shares", end.shares},
             {"traceparent", live.traceparent}});
}

}  // namespace chimera
