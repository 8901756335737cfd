// probe_score: a module's probe text, scored outside the engine.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/io/digest.h"
#include "base/threads/background.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/sequence/sampler.h"

namespace chimera {
namespace {

/// Tokens per pass. Bounds the scratch memory of a probe beside a running engine, and how long the
/// products of a pass take between which it gives way: the head's alone is a megabyte of logits for
/// 16 tokens, and as much to take from and give back to the kernel.
constexpr int64_t kProbeChunk = 16;
/// The same while no stream runs, as one pass for a probe without a text: every pass reads nearly
/// all weights of the model.
constexpr int64_t kLoneProbeChunk = 32;

/// What passes are computed with. Bits are the same on any number of threads.
struct Lanes {
  Lanes(const ModelConfig& config, int threads)
      : pool(threads), router(config, best_kernels(), pool) {
    router.take_time();
  }
  ThreadPool pool;
  MoeRouter router;
};

bool all_finite(std::span<const float> values) {
  constexpr size_t kPiece = 16 << 10;
  for (size_t at = 0; at < values.size(); at += kPiece) {
    const auto piece = values.subspan(at, std::min(kPiece, values.size() - at));
    if (!std::all_of(piece.begin(), piece.end(), [](float v) { return std::isfinite(v); }))
      return false;
    give_way();
  }
  return true;
}

}  // namespace

Result<ProbeResult> probe_score(const Backbone& backbone, std::shared_ptr<const RoutingTable> table,
                                std::span<const int32_t> tokens) {
  if (!table || tokens.empty())
    return Status(Code::kInvalidArgument, "a probe needs a routing table and at least one token");
  const ModelConfig& config = backbone.config();
  const auto n = static_cast<int64_t>(tokens.size());
  KvCacheOptions options;
  options.prefix_cache = false;
  options.blocks = (n + options.block_tokens - 1) / options.block_tokens;
  Result<std::unique_ptr<KvCache>> cache = KvCache::create(config, options);
  if (!cache.ok()) return cache.status();
  const ModuleMask all = table->all();
  Result<std::shared_ptr<const RouteView>> view = make_route_view(std::move(table), all, {});
  if (!view.ok()) return view.status();
  // A module is probed beside the whole backbone, whatever the current composition replaces of it.
  CHIMERA_RETURN_IF_ERROR((*view)->active->wait());

  const Backbone& used = (*view)->active->backbone_or(backbone);
  KvSequence kv(cache->get());
  CHIMERA_RETURN_IF_ERROR(kv.reserve(n));
  std::optional<Lanes> lanes;
  Workspace workspace;
  Sha256 digest;
  ProbeResult result;
  const auto vocab = static_cast<size_t>(config.vocab_size);
  for (int64_t at = 0, rows = 0; at < n; at += rows) {
    // All CPUs while no stream runs. With the first one that comes they give way in their pass, and
    // from the next pass on one thread does what is left.
    const bool busy = foreground_busy();
    if (!lanes || (busy && lanes->pool.threads() > 1))
      lanes.emplace(config, busy ? 1 : auto_threads());
    rows = std::min(busy ? kProbeChunk : kLoneProbeChunk, n - at);
    BatchSegment segment{tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(rows)), at,
                         &kv, BatchSegment::Logits::kAll, (*view)->backbone_adapters};
    RoutedSegment routed;
    routed.view = view->get();
    routed.rows = rows;
    lanes->router.begin_pass({&routed, 1}, nullptr);
    CHIMERA_RETURN_IF_ERROR(
        used.forward({&segment, 1}, lanes->router, best_kernels(), lanes->pool, workspace));
    const std::span<const float> logits =
        std::span<const float>(workspace.logits).first(static_cast<size_t>(rows) * vocab);
    digest.update(std::as_bytes(logits));
    // A library that failed is told from one that computes nonsense.
    if (routed.lost_call) return routed.failure;
    if (routed.dropped > 0) {
      return Status(Code::kUnavailable,
                    fmt::format("an expert failed on {} rows (expected none)", routed.dropped),
                    "Try again, or see what the log says of the library.");
    }
    if (routed.poisoned) result.why = routed.failure.message();
    result.finite = result.finite && !routed.poisoned && all_finite(logits);
    if (!result.finite) break;
    for (int64_t r = 0; r < rows && at + r + 1 < n; ++r) {
      const auto row = logits.subspan(static_cast<size_t>(r) * vocab, vocab);
      result.nats -= token_logprob(row, tokens[static_cast<size_t>(at + r + 1)]);
      give_way();
    }
  }
  result.logits_digest = digest.finish();
  return result;
}

}  // namespace chimera
