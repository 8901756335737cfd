// The events of a completion's choices -> the answer of the API: one object, or the chunks of a
// stream.
//
// Knows neither sockets nor the daemon. Thread safety: none.
#pragma once

#include <string>
#include <vector>

#include "chimera_client/client.h"
#include "clients/gateway/openai/completion.h"

namespace chimera::gateway::openai {

class Answer {
 public:
  /// `created` in seconds since 1970.
  Answer(const Completion& asked, std::string id, int64_t created);

  /// Takes an event of a choice. Of a stream: the chunks that it makes, as JSON.
  std::vector<Json> on_token(size_t choice, const Json& event);
  std::vector<Json> on_done(size_t choice, const Json& done);

  /// When every choice is done.
  bool complete() const { return done_ == choices_.size(); }
  Json whole() const;
  /// The chunk of a stream that has usage instead of choices.
  Json usage_chunk() const;

  uint64_t epoch() const { return epoch_; }
  /// "legal=0.31,bio=0.02"; of several choices the mean.
  std::string shares() const;

 private:
  struct Choice {
    std::string text;
    std::string finish_reason;
    Json logprobs = Json::array();  // of the tokens, as the chat API has them
    bool begun = false;
  };
  Json envelope(bool chunk) const;
  Json chunk(size_t choice, const std::string& text, Json logprobs, Json finish_reason);
  Json logprobs_of(const Choice& choice) const;
  Json usage() const;
  Json provenance() const;

  const Api api_;
  const std::string model_, id_;
  const int64_t created_;
  const bool logprobs_;
  const size_t per_prompt_;
  std::vector<Choice> choices_;
  size_t done_ = 0;
  uint64_t epoch_ = 0;
  int64_t prompt_tokens_ = 0, completion_tokens_ = 0, cached_tokens_ = 0;
  std::string composition_;
  std::vector<std::pair<std::string, double>> shares_;  // sums over choices
  double backbone_share_ = 0.0;
};

}  // namespace chimera::gateway::openai
