#include "daemon/engine/sequence/sequence.h"

#include <algorithm>
#include <utility>

#include "daemon/engine/sequence/module_selection.h"

namespace chimera {
namespace {

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

int64_t clipped_new_tokens(const EngineRequest& request, int64_t max_context) {
  switch (request.kind) {
    case EngineRequest::Kind::kScore:
    case EngineRequest::Kind::kEmbed:
      return 0;
    case EngineRequest::Kind::kGenerate:
      return std::min(request.max_tokens,
                      max_context - static_cast<int64_t>(request.tokens.size()));
  }
  return 0;
}

/// Whether all text was handed out: the last token took with it what was held back for a stop
/// string.
bool text_is_complete(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return true;
    case FinishReason::kScored:
    case FinishReason::kEmbedded:
    case FinishReason::kCancelled:
    case FinishReason::kRevoked:
    case FinishReason::kDeadline:
      return false;
  }
  return false;
}

}  // namespace

TextStream::TextStream(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special,
                       std::vector<std::string> stops)
    : stops_(std::move(stops)) {
  if (tokenizer) decoder_.emplace(std::move(tokenizer), skip_special);
}

TextStream::Piece TextStream::push(int32_t id) {
  return decoder_ ? match(decoder_->push(id)) : Piece{};
}

TextStream::Piece TextStream::finish() {
  if (!decoder_) return {};
  Piece piece = match(decoder_->flush());
  if (!piece.stopped) {
    const std::string held = stops_.flush();
    text_ += held;
    piece.text += held;
  }
  return piece;
}

TextStream::Piece TextStream::match(const std::string& decoded) {
  StopMatcher::Piece piece = stops_.push(decoded);
  text_ += piece.text;
  return {std::move(piece.text), piece.matched};
}

Sequence::Sequence(PendingRequest pending, KvCache* cache,
                   std::shared_ptr<const Tokenizer> tokenizer, int64_t max_context)
    : id(pending.id),
      request(std::move(pending.request)),
      ticket(std::move(pending.ticket)),
      tokens(request.tokens),
      prompt_tokens(static_cast<int64_t>(tokens.size())),
      max_new(clipped_new_tokens(request, max_context)),
      kv(cache),
      sampler(request.sampling),
      pool(request.pooling),
      admitted(Clock::now()),
      text_(std::move(tokenizer), request.skip_special, request.stop) {
  sampler.observe(tokens);
  if (request.constraint) guide.emplace(request.constraint);
  tokens.reserve(static_cast<size_t>(max_positions()));
  if (!generating()) start_reading();
}

RouteViewPtr Sequence::set_view(RouteViewPtr next) {
  const auto& modules = next->table->modules();
  const bool known = view != nullptr && view->active == next->active;
  next->mask().for_each([&](size_t i) {
    if (i == 0 || known) return;
    const Manifest& manifest = modules[i]->manifest;
    modules_[manifest.name] = {manifest.version, manifest.digest};
  });
  adapter_wait.reset();
  experts_wanted.reset();
  next->active->begin(AverageFor::kRequest);
  return std::exchange(view, std::move(next));
}

void Sequence::restart() {
  kv.clear();
  block_keys.clear();
  computed = 0;
  kv_degraded = false;
  if (!generating()) start_reading();
}

/// A score or an embedding is an answer about one composition: after a restart nothing of the old
/// one may be left.
void Sequence::start_reading() {
  nats = 0.0;
  logprobs.clear();
  epochs.clear();
  usage = {};
  pool = Pool(request.pooling);
  logits = request.want_logits ? std::make_shared<std::vector<float>>() : nullptr;
  routing = request.want_routing ? std::make_shared<RoutingTrace>() : nullptr;
}

void Sequence::ran(int64_t n) {
  const int64_t from = generating() ? generated() : computed;
  computed += n;
  if (epoch == view->table->epoch() && !composition.empty() && !epochs.empty()) return;
  epoch = view->table->epoch();
  composition = visible_composition(*view->table, request.modules.rights);
  const bool known =
      !epochs.empty() && epochs.back().epoch == epoch && epochs.back().composition == composition;
  if (!known) epochs.push_back({epoch, composition, from});
}

Drawn Sequence::draw(std::span<const float> row) {
  Drawn drawn;
  constraint::TokenMaskPtr mask;
  if (guide) {
    Result<constraint::TokenMaskPtr> allowed = guide->allowed();
    if (!allowed.ok()) {
      drawn.failure = allowed.status();
      return drawn;
    }
    mask = std::move(*allowed);
  }
  drawn.token = sampler.sample(row, static_cast<uint64_t>(generated()), mask.get());
  if (drawn.token < 0) return drawn;
  if (guide) drawn.failure = guide->take(drawn.token);
  if (request.want_logprobs) {
    drawn.logprob = static_cast<float>(token_logprob(row, drawn.token));
  }
  if (request.top_logprobs > 0) {
    drawn.top = chimera::top_logprobs(row, static_cast<size_t>(request.top_logprobs));
  }
  return drawn;
}

std::optional<FinishReason> Sequence::accept(const Drawn& drawn, bool is_eos) {
  const int32_t token = drawn.token;
  last_result = Clock::now();
  if (!first_result) first_result = last_result;
  tokens.push_back(token);
  sampler.observe_generated(token);
  if (request.want_logprobs) logprobs.push_back(drawn.logprob);
  if (request.top_logprobs > 0) top_logprobs.push_back(drawn.top);
  const bool eos = is_eos && !request.ignore_eos;
  const bool last = generated() >= max_new;
  // Complete, and nothing can follow: there is no need to wait for the token that says so.
  const bool closed = guide && guide->closed();
  TextStream::Piece piece;
  if (!eos) piece = text_.push(token);
  if ((eos || last || closed) && !piece.stopped) {
    TextStream::Piece rest = text_.finish();
    piece.text += rest.text;
    piece.stopped = rest.stopped;
  }
  TokenEvent event{token, std::move(piece.text), std::nullopt, epoch, drawn.top};
  if (request.want_logprobs) event.logprob = drawn.logprob;
  for (const auto& [name, mass] : last_usage.mass) event.shares[name] = last_usage.share(name);
  ticket.token(std::move(event));
  if (eos || closed || piece.stopped) return FinishReason::kStop;
  if (last) return FinishReason::kLength;
  return std::nullopt;
}

DoneEvent Sequence::finish(FinishReason reason) {
  const Clock::time_point now = Clock::now();
  DoneEvent event;
  event.finish_reason = reason;
  event.prompt_tokens = prompt_tokens;
  event.completion_tokens = generated();
  event.cached_tokens = cached;
  event.queue_ms = ms_between(request.arrived, admitted);
  event.prefill_ms = ms_between(admitted, first_result.value_or(now));
  event.decode_ms = ms_between(first_result.value_or(now), now);
  event.epoch = !composition.empty() ? epoch : view->table->epoch();
  event.composition = !composition.empty()
                          ? composition
                          : visible_composition(*view->table, request.modules.rights);
  event.epochs = std::move(epochs);
  fill_provenance(event);
  switch (request.kind) {
    case EngineRequest::Kind::kGenerate:
      fill_generation(event);
      break;
    case EngineRequest::Kind::kScore:
      fill_score(event);
      break;
    case EngineRequest::Kind::kEmbed:
      if (reason == FinishReason::kEmbedded) event.embedding = pool.result(request.normalize);
      break;
  }
  return event;
}

void Sequence::fill_generation(DoneEvent& event) {
  if (!text_is_complete(event.finish_reason)) text_.finish();
  event.text = text_.text();
  event.tokens.assign(tokens.begin() + static_cast<ptrdiff_t>(prompt_tokens), tokens.end());
  event.logprobs = std::move(logprobs);
  event.top_logprobs = std::move(top_logprobs);
}

/// The modules that are permitted now, and those gone meanwhile that were used.
void Sequence::fill_provenance(DoneEvent& event) const {
  event.dropped_choices = dropped;
  event.backbone_share = usage.share("backbone");
  event.backbone_rows = usage.rows_of("backbone");
  for (const auto& [name, module] : modules_) {
    const int index = view->table->module_index(name);
    const bool permitted = index > 0 && view->mask().has(static_cast<size_t>(index));
    const uint64_t rows = usage.rows_of(name);
    if (!permitted && rows == 0) continue;
    event.modules[name] = {module.version, module.digest, usage.share(name), rows};
  }
}

/// Only a complete score has results: part of one would be taken for the whole.
void Sequence::fill_score(DoneEvent& event) {
  if (event.finish_reason != FinishReason::kScored) return;
  event.nats = nats;
  event.count = prompt_tokens - 1;
  if (request.text_bytes > 0) {
    constexpr double kLn2 = 0.693147180559945309417;
    event.bits_per_byte = nats / kLn2 / static_cast<double>(request.text_bytes);
  }
  event.logprobs = std::move(logprobs);
  event.logits = std::move(logits);
  event.routing = std::move(routing);
  event.output = request.output;
  if (event.routing) hide_slots(*event.routing, *view->table, request.modules.rights);
}

DoneEvent finish_waiting(const PendingRequest& pending, FinishReason reason,
                         const RoutingTable& table) {
  DoneEvent event;
  event.finish_reason = reason;
  event.prompt_tokens = static_cast<int64_t>(pending.request.tokens.size());
  event.queue_ms = ms_between(pending.request.arrived, Clock::now());
  event.epoch = table.epoch();
  event.composition = visible_composition(table, pending.request.modules.rights);
  return event;
}

}  // namespace chimera
