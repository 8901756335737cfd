// Scores long texts through the daemon with several requests in flight.
//
// Thread safety: by the main thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/json/json.h"
#include "commands.h"
#include "scoring/text_source.h"

namespace chimera::cli {

struct ScoreTotals {
  double nats = 0.0;
  uint64_t bytes = 0, tokens = 0, documents = 0;
  uint64_t epoch = 0;                    // of the last answer
  std::map<std::string, double> shares;  // by module and "backbone", weighted by tokens
  std::map<std::string, std::string> versions;

  double bits_per_byte() const;
};

/// Documents that may be longer than the daemon's context are cut by tokens into windows, each
/// scored from the token that starts texts; so every byte counts. Keeps up to kInFlight requests
/// going so that the engine always has a full batch. Not thread-safe.
class Scorer {
 public:
  static constexpr size_t kInFlight = 8;

  /// `context` tokens per request, `prefix` as told by `info`.
  Scorer(client::Client& client, wire::ModuleFilter filter, size_t context,
         std::optional<int32_t> prefix);

  /// Reads the source to its end. `progress` is called now and then; interrupted() ends it early.
  std::variant<ScoreTotals, Error> run(TextSource& source,
                                       const std::function<void(const ScoreTotals&)>& progress);

 private:
  struct Job {
    wire::Call call;
    uint64_t bytes = 0;  // of a document scored or tokenized whole
  };
  std::optional<Error> fill(TextSource& source);
  ScoreTotals finish();
  std::optional<Error> take(const client::Event& event);
  void add_document(std::string text);
  void add_windows(const std::vector<int32_t>& tokens);
  void add_score(const Json& done, uint64_t bytes, std::optional<wire::Error>& problem);

  client::Client& client_;
  const wire::ModuleFilter filter_;
  const size_t context_;
  const std::optional<int32_t> prefix_;
  std::deque<Job> waiting_;
  std::map<std::string, Job> in_flight_;
  bool source_ended_ = false;
  double share_tokens_ = 0.0;
  std::vector<double> nats_;  // of each answer
  ScoreTotals totals_;
};

}  // namespace chimera::cli
