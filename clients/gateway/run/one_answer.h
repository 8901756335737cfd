// The answer of APIs whose requests have one choice: a list of items, each of words, of reasoning
// or of a call, whole or as a stream that tells their beginnings and ends.
//
// Thread safety: as Answerer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/dialect/parser.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway {

/// Reads the events; what a stream tells of what is in them is its API's.
class OneAnswer : public Answerer {
 public:
  OneAnswer(bool stream, CallRules rules);

  void reads(const Reading& reading) final;
  std::string on_token(size_t choice, const Json& event) final;
  std::string on_done(size_t choice, const Json& done) final;
  const Tally& tally() const final { return tally_; }

 protected:
  /// Each returns what a stream sends for it: what comes before all else; more words of a kind,
  /// kText or kReasoning; a call, whole; and the end of what is open, when all is there.
  virtual std::string begin() = 0;
  virtual std::string grow(Piece::Kind kind, const std::string& words) = 0;
  virtual std::string call(const Piece& piece) = 0;
  virtual std::string finish() = 0;

  Dialect dialect() const { return dialect_; }
  /// Of those that count: without `parallel` the first alone.
  size_t calls() const { return calls_; }
  /// It ended with its last token; from finish() on.
  bool cut() const { return cut_; }

 private:
  std::string begin_once();
  std::string take(const std::vector<Piece>& pieces);

  const bool stream_;
  const CallRules rules_;
  Dialect dialect_ = Dialect::kPlain;
  std::unique_ptr<Parser> parser_;
  Tally tally_;
  size_t calls_ = 0;
  bool begun_ = false, cut_ = false;
};

}  // namespace chimera::gateway
