// What the fuzz targets of the translations HTTP -> wire -> HTTP share: any body gives calls that
// the wire's own reader takes, or one error that names something; and whatever a model writes makes
// an answer of it.
//
// Thread safety: pure functions.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json/reader.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway {

inline ModelNames names_to_fuzz() {
  ModelNames out;
  out.aliases["plain"].system = "Be brief.";
  out.aliases["plain"].defaults["top_k"] = 5;
  return out;
}

inline void check_error(ErrorShape shape, const ApiError& error) {
  if (error.status < 400 || error.status > 499 || error.message.empty()) std::abort();
  if (error_body(shape, error).empty()) std::abort();
}

inline void check_calls(const std::vector<wire::Call>& calls, size_t most) {
  if (calls.empty() || calls.size() > most) std::abort();
  for (const wire::Call& call : calls) {
    const std::string text = wire::encode_request({"id", call});
    if (text.size() > wire::kMaxMessageBytes) continue;
    std::string id;
    const auto decoded = wire::decode_request(text, wire::Endpoint::kServe, &id);
    if (!std::holds_alternative<wire::Request>(decoded)) std::abort();
  }
}

/// An answer of `text`, cut in the middle, by a model of each dialect.
inline void check_answer(Answerer& answer, const std::string& text, Dialect dialect) {
  answer.reads({dialect, /*opened=*/false});
  for (const std::string& part : {text.substr(0, text.size() / 2), text.substr(text.size() / 2)}) {
    answer.on_token(0, {{"event", "token"}, {"text", part}});
  }
  answer.on_done(0, {{"event", "done"}, {"text", text}, {"finish_reason", "stop"}});
  answer.end();
  if (!parse_json(answer.whole()).ok()) std::abort();
}

/// `read`: of a request with one call, which job_of takes, or an error. The dialect is the body's.
template <class Asked>
void check_one(std::variant<Asked, ApiError> read, ErrorShape shape, const std::string& body) {
  if (const auto* error = std::get_if<ApiError>(&read)) return check_error(shape, *error);
  const Job job = job_of(std::get<Asked>(std::move(read)));
  check_calls(job.calls, 1);
  check_answer(*job.answerer, body, static_cast<Dialect>(body.size() % kDialectNames.all().size()));
}

}  // namespace chimera::gateway
