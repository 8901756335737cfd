#include "scoring/scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <numeric>
#include <thread>

#include "chimera_client/answer.h"

namespace chimera::cli {
namespace {

using client::Event;
using client::Milliseconds;

// A text of a window's size takes well under this even on a slow machine.
constexpr Milliseconds kPatience{600'000};
// The queue of the daemon was full: others are at work too.
constexpr Milliseconds kBusyPause{50};

}  // namespace

double ScoreTotals::bits_per_byte() const {
  return bytes == 0 ? 0.0 : nats / std::numbers::ln2 / static_cast<double>(bytes);
}

Scorer::Scorer(client::Client& client, wire::ModuleFilter filter, size_t context,
               std::optional<int32_t> prefix)
    : client_(client),
      filter_(std::move(filter)),
      context_(std::max<size_t>(context, 2)),
      prefix_(prefix) {}

void Scorer::add_document(std::string text) {
  ++totals_.documents;
  const uint64_t bytes = text.size();
  // No token is shorter than a byte, so this text fits for sure.
  if (bytes < context_) {
    wire::Score score;
    score.input = std::move(text);
    score.modules = filter_;
    waiting_.push_back({std::move(score), bytes});
  } else {
    waiting_.push_back(
        {wire::Tokenize{std::move(text), /*add_special=*/false, /*match_special=*/false}, bytes});
  }
}

void Scorer::add_windows(const std::vector<int32_t>& tokens) {
  const size_t step = context_ - (prefix_ ? 1 : 0);
  for (size_t at = 0; at < tokens.size(); at += step) {
    std::vector<int32_t> window;
    if (prefix_) window.push_back(*prefix_);
    const size_t end = std::min(at + step, tokens.size());
    window.insert(window.end(), tokens.begin() + static_cast<std::ptrdiff_t>(at),
                  tokens.begin() + static_cast<std::ptrdiff_t>(end));
    if (window.size() < 2) continue;  // one token after nothing has no score
    wire::Score score;
    score.input = std::move(window);
    score.modules = filter_;
    // Before new documents, so that what was begun ends first.
    waiting_.push_front({std::move(score), 0});
  }
}

void Scorer::add_score(const Json& done, uint64_t bytes, std::optional<wire::Error>& problem) {
  const auto provenance = client::parse_provenance(done, problem);
  client::Answer answer(done, problem);
  const uint64_t count = answer.natural("count");
  const double nats = answer.number("nats");
  if (problem) return;
  nats_.push_back(nats);
  totals_.nats += nats_.back();
  totals_.bytes += bytes;
  totals_.tokens += count;
  totals_.epoch = provenance.epoch;
  const double weight = static_cast<double>(count);
  const double before = share_tokens_;
  share_tokens_ += weight;
  if (share_tokens_ <= 0.0) return;
  const auto blend = [&](double& mean, double share) {
    mean = (mean * before + share * weight) / share_tokens_;
  };
  blend(totals_.shares["backbone"], provenance.backbone_share);
  for (const auto& [name, module] : provenance.modules) {
    blend(totals_.shares[name], module.share);
    totals_.versions[name] = module.version;
  }
}

std::optional<Error> Scorer::take(const Event& event) {
  const auto found = in_flight_.find(event.id());
  if (found == in_flight_.end()) {
    return event.is_error() ? std::optional(event.error()) : std::nullopt;
  }
  Job job = std::move(found->second);
  in_flight_.erase(found);
  if (event.is_error()) {
    if (event.error().code != "resource_exhausted") return event.error();
    std::this_thread::sleep_for(kBusyPause);
    waiting_.push_front(std::move(job));
    return std::nullopt;
  }
  std::optional<wire::Error> problem;
  if (std::holds_alternative<wire::Tokenize>(job.call)) {
    totals_.bytes += job.bytes;
    add_windows(client::Answer(event.body, problem).tokens("tokens"));
  } else {
    add_score(event.body, job.bytes, problem);
  }
  return problem;
}

std::optional<Error> Scorer::fill(TextSource& source) {
  while (in_flight_.size() < kInFlight) {
    if (waiting_.empty() && !source_ended_) {
      auto piece = source.next();
      if (auto* error = std::get_if<Error>(&piece)) return std::move(*error);
      auto& text = std::get<std::optional<std::string>>(piece);
      source_ended_ = !text;
      if (text) add_document(std::move(*text));
    }
    if (waiting_.empty()) return std::nullopt;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    const auto id = client_.send(job.call);
    if (!id.ok()) return id.error();
    in_flight_.emplace(*id, std::move(job));
  }
  return std::nullopt;
}

/// Answers come in any order and a sum of doubles depends on it: equal answers shall give an equal
/// sum, to the last bit.
ScoreTotals Scorer::finish() {
  std::sort(nats_.begin(), nats_.end());
  totals_.nats = std::accumulate(nats_.begin(), nats_.end(), 0.0);
  return totals_;
}

std::variant<ScoreTotals, Error> Scorer::run(
    TextSource& source, const std::function<void(const ScoreTotals&)>& progress) {
  while (true) {
    if (auto error = fill(source)) return std::move(*error);
    if (in_flight_.empty()) return finish();
    const auto event = client_.receive(wire::Endpoint::kServe, kPatience, interrupted);
    if (!event.ok()) return event.error();
    if (auto error = take(*event)) return std::move(*error);
    progress(totals_);
  }
}

}  // namespace chimera::cli
