// The events of a completion's choices -> the answer of the API: one object, or the chunks of a
// stream.
//
// Thread safety: none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/dialect/parser.h"
#include "clients/gateway/openai/completion.h"
#include "clients/gateway/run/tally.h"

namespace chimera::gateway::openai {

class Answer : public Answerer {
 public:
  /// `created` in seconds since 1970.
  Answer(const Completion& asked, std::string id, int64_t created);

  void reads(const Reading& reading) override;
  std::string on_token(size_t choice, const Json& event) override;
  std::string on_done(size_t choice, const Json& done) override;
  std::string end() override;
  std::string failed(const ApiError& error) override;
  std::string whole() override;
  const Tally& tally() const override { return tally_; }

 private:
  struct Choice {
    std::string text, reasoning;
    Json calls = Json::array();  // of tools
    std::string finish_reason;
    Json logprobs = Json::array();  // of the tokens, as the chat API has them
    std::unique_ptr<Parser> parser;
    bool begun = false;
  };
  /// Takes pieces into the choice. What they add to its message: content, reasoning, calls.
  Json take(Choice& choice, std::vector<Piece> pieces);
  Json envelope(bool is_chunk) const;
  /// `more`: what the message grows by.
  Json chunk(size_t choice, Json more, Json logprobs, Json finish_reason);
  Json message_of(const Choice& choice) const;
  std::string sent(Json chunk) const;
  Json logprobs_of(const Choice& choice) const;
  Json usage() const;

  const Api api_;
  const std::string model_, id_;
  const int64_t created_;
  const bool logprobs_, alternatives_, shares_, include_usage_, stream_;
  const CallRules rules_;
  Dialect dialect_ = Dialect::kPlain;
  std::vector<Choice> choices_;
  Tally tally_;
};

}  // namespace chimera::gateway::openai
