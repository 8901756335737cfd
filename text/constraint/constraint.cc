#include "text/constraint/constraint.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/json/reader.h"
#include "text/constraint/json_schema.h"
#include "text/constraint/parts.h"
#include "text/constraint/pattern.h"

namespace chimera::constraint {
namespace {

/// Places looked at for one mask: some 100 ms, for which the step waits. Schemas take a few
/// thousand.
constexpr uint64_t kMaxWork = 1'000'000;
constexpr size_t kMaxStates = 8192;

Status too_ambiguous() {
  return {Code::kResourceExhausted,
          "constraint: so many beginnings of it fit the answer so far that they cannot be followed",
          "write it with fewer counts inside counts and fewer alternatives that begin alike"};
}

Result<Network> regex_network(std::string_view pattern) {
  const auto branches = parse_pattern(pattern);
  if (!branches.ok()) return branches.status().with_context("constraint.regex");
  NetworkBuilder builder;
  const NodeId start =
      PatternWriter(builder, Spelling::kPlain).write_whole(*branches, builder.end());
  const RuleId root = builder.rule("the expression", start);
  return std::move(builder).finish(root, "constraint.regex");
}

/// `what`: of the wire's fields.
Result<Json> json_text(std::string_view text, std::string_view what, size_t most) {
  if (text.size() > most) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: {} bytes (expected at most {})", what, text.size(), most),
                  "say the same with less");
  }
  Result<Json> json = parse_json(text);
  if (json.ok()) return json;
  return Status(Code::kInvalidArgument, fmt::format("{}: {}", what, json.status().message()),
                "send JSON");
}

Result<Network> network_of(const Spec& spec, const TokenTable& tokens) {
  constexpr std::string_view kSchema = "constraint.json_schema", kParts = "constraint.parts";
  switch (spec.kind) {
    case Spec::Kind::kRegex:
      return regex_network(spec.text);
    case Spec::Kind::kJsonSchema: {
      const Result<Json> schema = json_text(spec.text, kSchema, kMaxSchemaBytes);
      return schema.ok() ? schema_network(*schema, kSchema) : schema.status();
    }
    case Spec::Kind::kParts: {
      const Result<Json> parts = json_text(spec.text, kParts, kMaxPartsBytes);
      return parts.ok() ? parts_network(*parts, tokens, kParts) : parts.status();
    }
    case Spec::Kind::kJsonObject:
      return object_network("constraint.json_object");
  }
  return Status(Code::kInternal, "the constraint is of no known kind");
}

}  // namespace

bool TokenMask::empty() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
}

Constraint::Constraint(Network network, std::shared_ptr<const TokenTable> tokens)
    : network_(std::make_shared<const Network>(std::move(network))), tokens_(std::move(tokens)) {}

Result<std::shared_ptr<const Constraint>> Constraint::compile(
    const Spec& spec, std::shared_ptr<const TokenTable> tokens) {
  Result<Network> network = network_of(spec, *tokens);
  if (!network.ok()) return network.status();
  const std::shared_ptr<const Constraint> made(
      new Constraint(std::move(*network), std::move(tokens)));
  const MutexLock lock(made->mutex_);
  if (made->current()->matcher.start() != Matcher::kTooMany) return made;
  return Status(Code::kInvalidArgument,
                fmt::format("constraint: an answer may begin in more than {} ways that must be "
                            "told apart",
                            Matcher::kMaxPlaces),
                "write what its alternatives begin with once, or give fewer");
}

std::shared_ptr<Constraint::Kept> Constraint::current() const {
  const bool full = kept_ && (kept_->matcher.bytes() + kept_->mask_bytes > kMaxKept ||
                              kept_->matcher.states() > kMaxStates);
  if (!kept_ || full) kept_ = std::make_shared<Kept>(network_);
  return kept_;
}

Result<TokenMaskPtr> Constraint::mask(Kept& kept, StateId state, bool at_start) const {
  at_start = at_start && tokens_->start_differs();
  TokenMaskPtr& known = at_start ? kept.first_mask : kept.masks[state];
  if (known) return known;
  Result<TokenMaskPtr> found = find_mask(kept, state, at_start);
  if (!found.ok()) return found;
  kept.mask_bytes += (*found)->words().size() * sizeof(uint64_t);
  ++masks_found_;
  return known = *found;
}

/// Walks the trie of the tokens along the automaton: what no text begins with is left out as a
/// whole.
Result<TokenMaskPtr> Constraint::find_mask(Kept& kept, StateId state, bool at_start) const {
  const TokenTrie& trie = tokens_->trie(at_start);
  Matcher& matcher = kept.matcher;
  auto mask = std::make_shared<TokenMask>(tokens_->vocab());
  std::vector<StateId> path(trie.max_depth + 1);
  path[0] = state;
  const uint64_t work = matcher.work();
  const size_t bytes = matcher.bytes();
  const auto nodes = static_cast<int32_t>(trie.byte.size());
  for (int32_t node = 0; node < nodes;) {
    const auto i = static_cast<size_t>(node);
    const size_t depth = trie.depth[i];
    const StateId next = matcher.next(path[depth - 1], trie.byte[i]);
    if (next == Matcher::kDead) {
      node = trie.after[i];
      continue;
    }
    if (next == Matcher::kTooMany || matcher.work() - work > kMaxWork ||
        matcher.bytes() - bytes > kMaxKept) {
      return too_ambiguous();
    }
    path[depth] = next;
    for (int32_t t = trie.first_token[i]; t < trie.first_token[i + 1]; ++t) {
      mask->set(trie.tokens[static_cast<size_t>(t)]);
    }
    ++node;
  }
  if (matcher.accepts(state)) {
    for (const int32_t end : tokens_->ends()) {
      if (end >= 0 && static_cast<size_t>(end) < tokens_->vocab()) mask->set(end);
    }
  }
  return TokenMaskPtr(std::move(mask));
}

Guide::Guide(ConstraintPtr constraint) : constraint_(std::move(constraint)) {
  const MutexLock lock(constraint_->mutex_);
  kept_ = constraint_->current();
  state_ = kept_->matcher.start();
  settle();
}

/// Moves to what is kept now, and notes what the state says.
void Guide::settle() {
  const auto current = constraint_->current();
  if (current != kept_) {
    state_ = current->matcher.import(kept_->matcher, state_);
    kept_ = current;
  }
  complete_ = kept_->matcher.accepts(state_);
  closed_ = complete_ && !kept_->matcher.goes_on(state_);
}

Result<TokenMaskPtr> Guide::allowed() {
  const MutexLock lock(constraint_->mutex_);
  settle();
  if (state_ == Matcher::kTooMany) return too_ambiguous();
  Result<TokenMaskPtr> mask = constraint_->mask(*kept_, state_, at_start_);
  if (mask.ok() && (*mask)->empty()) {
    return Status(Code::kFailedPrecondition,
                  "constraint: no token of the vocabulary goes on with the answer",
                  "the tokenizer cannot write what the constraint asks for");
  }
  return mask;
}

Status Guide::take(int32_t token) {
  if (constraint_->tokens_->is_end(token)) return {};
  const MutexLock lock(constraint_->mutex_);
  settle();
  for (const char byte : constraint_->tokens_->bytes(token, at_start_)) {
    state_ = kept_->matcher.next(state_, static_cast<uint8_t>(byte));
  }
  at_start_ = false;
  settle();
  if (state_ == Matcher::kTooMany) return too_ambiguous();
  if (state_ == Matcher::kDead) {
    return {Code::kInternal, fmt::format("constraint: token {} was not allowed", token)};
  }
  return {};
}

}  // namespace chimera::constraint
