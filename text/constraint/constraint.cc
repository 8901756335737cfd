#include "text/constraint/constraint.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/json/reader.h"
#include "text/constraint/json_schema.h"
#include "text/constraint/parts.h"
#include "text/constraint/pattern.h"

namespace chimera::constraint {
namespace {

constexpr size_t kMaxStates = 8192;

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

std::shared_ptr<MaskSearch> Constraint::search(Kept& kept, StateId state, bool first) const {
  std::weak_ptr<MaskSearch>& under_way = first ? kept.first_search : kept.searches[state];
  auto search = under_way.lock();
  if (search == nullptr) {
    search = std::make_shared<MaskSearch>(tokens_.get(), first, state);
    under_way = search;
  }
  return search;
}

void Constraint::keep(Kept& kept, const MaskSearch& search) const {
  if (!search.first()) kept.searches.erase(search.state());
  const Result<TokenMaskPtr> found = search.result();
  TokenMaskPtr& known = known_mask(kept, search.state(), search.first());
  if (!found.ok() || known != nullptr) return;
  known = *found;
  kept.mask_bytes += known->words().size() * sizeof(uint64_t);
  ++masks_found_;
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

/// Sets allowed_ when it is over.
void Guide::find(uint64_t* work) {
  if (search_ == nullptr) {
    settle();
    if (state_ == Matcher::kTooMany) {
      allowed_ = too_ambiguous();
      return;
    }
    const bool first = at_start_ && constraint_->tokens_->start_differs();
    if (const TokenMaskPtr& known = Constraint::known_mask(*kept_, state_, first)) {
      allowed_ = known;
      return;
    }
    search_ = constraint_->search(*kept_, state_, first);
    searched_ = kept_;
  }
  if (!search_->go_on(searched_->matcher, work)) return;
  constraint_->keep(*searched_, *search_);
  allowed_ = search_->result();
}

bool Guide::look_on(uint64_t* work) {
  if (allowed_) return true;
  const MutexLock lock(constraint_->mutex_);
  find(work);
  if (!allowed_) return false;
  search_.reset();
  searched_.reset();
  if (allowed_->ok() && (**allowed_)->empty()) {
    allowed_ = Status(Code::kFailedPrecondition,
                      "constraint: no token of the vocabulary goes on with the answer",
                      "the tokenizer cannot write what the constraint asks for");
  }
  return true;
}

Result<TokenMaskPtr> Guide::allowed() {
  constexpr uint64_t kAll = std::numeric_limits<uint64_t>::max();
  for (uint64_t work = kAll; !look_on(&work);) work = kAll;
  return *allowed_;
}

Status Guide::take(int32_t token) {
  if (constraint_->tokens_->is_end(token)) return {};
  const MutexLock lock(constraint_->mutex_);
  allowed_.reset();
  search_.reset();
  searched_.reset();
  // In what the mask was found in, where every way of an allowed token is known.
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
