// The events of a completion's choices -> the answer of the API: one object, or the chunks of a
// stream.
//
// Thread safety: none.
#pragma once

#include <string>
#include <vector>

#include "clients/gateway/openai/completion.h"
#include "clients/gateway/run/tally.h"

namespace chimera::gateway::openai {

class Answer : public Answerer {
 public:
  /// `created` in seconds since 1970.
  Answer(const Completion& asked, std::string id, int64_t created);

  std::string on_token(size_t choice, const Json& event) override;
  std::string on_done(size_t choice, const Json& done) override;
  std::string end() override;
  std::string failed(const ApiError& error) override;
  std::string whole() override;
  const Tally& tally() const override { return tally_; }

 private:
  struct Choice {
    std::string text;
    std::string finish_reason;
    Json logprobs = Json::array();  // of the tokens, as the chat API has them
    bool begun = false;
  };
  Json envelope(bool is_chunk) const;
  Json chunk(size_t choice, const std::string& text, Json logprobs, Json finish_reason);
  std::string sent(Json chunk) const;
  Json logprobs_of(const Choice& choice) const;
  Json usage() const;

  const Api api_;
  const std::string model_, id_;
  const int64_t created_;
  const bool logprobs_, alternatives_, include_usage_;
  std::vector<Choice> choices_;
  Tally tally_;
};

}  // namespace chimera::gateway::openai
