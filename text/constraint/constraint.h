// Constraint: what an answer may be, compiled for one vocabulary; Guide: one answer on its way.
//
//   TokenMask* allowed = guide.allowed();   // which tokens may come next
//   guide.take(token);                      // the one that was drawn
//
// allowed() may take long where a constraint is hostile; look_on() does a part of it at a time.
//
// A token may come when the text with it can still become a complete one (nothing leads to a dead
// end); the tokens that end a text may come when it is complete. What may come depends on the text
// so far alone, never on what is computed beside it.
//
// Masks are kept by state of the automaton, for all answers under the same constraint. What is kept
// is bounded (kMaxKept); beyond it they start anew with the states in use.
//
// Thread safety: a Constraint may be used by any number of threads; a Guide by one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "text/constraint/mask_search.h"
#include "text/constraint/matcher.h"
#include "text/constraint/network.h"
#include "text/constraint/token_table.h"

namespace chimera::constraint {

/// What is asked for. Two that are equal mean the same.
struct Spec {
  enum class Kind : uint8_t { kRegex, kJsonSchema, kJsonObject, kParts } kind = Kind::kJsonObject;
  std::string text{};  // the expression, or the schema or the parts as JSON
  friend bool operator==(const Spec&, const Spec&) = default;
};

/// Bytes of a schema at most.
inline constexpr size_t kMaxSchemaBytes = size_t{256} << 10;
/// Memory for states and masks of one constraint.
inline constexpr size_t kMaxKept = size_t{8} << 20;

class Constraint {
 public:
  /// invalid_argument says by name and place what is wrong with the spec, not supported or too
  /// large.
  static Result<std::shared_ptr<const Constraint>> compile(
      const Spec& spec, std::shared_ptr<const TokenTable> tokens);
  /// How often masks were found anew, for tests and benchmarks.
  uint64_t masks_found() const { return masks_found_; }

 private:
  friend class Guide;
  /// A matcher and the masks of its states: what is kept, as a whole.
  struct Kept {
    explicit Kept(std::shared_ptr<const Network> network) : matcher(std::move(network)) {}
    Matcher matcher;
    std::unordered_map<StateId, TokenMaskPtr> masks;
    TokenMaskPtr first_mask;  // of the empty text
    // Under way, for all that stand there: the masks and the first one.
    std::unordered_map<StateId, std::weak_ptr<MaskSearch>> searches;
    std::weak_ptr<MaskSearch> first_search;
    size_t mask_bytes = 0;
  };

  Constraint(Network network, std::shared_ptr<const TokenTable> tokens);
  std::shared_ptr<Kept> current() const REQUIRES(mutex_);
  /// The place of a mask that is known, or null.
  static TokenMaskPtr& known_mask(Kept& kept, StateId state, bool first) {
    return first ? kept.first_mask : kept.masks[state];
  }
  std::shared_ptr<MaskSearch> search(Kept& kept, StateId state, bool first) const REQUIRES(mutex_);
  /// Keeps what was found.
  void keep(Kept& kept, const MaskSearch& search) const REQUIRES(mutex_);

  const std::shared_ptr<const Network> network_;
  const std::shared_ptr<const TokenTable> tokens_;
  mutable Mutex mutex_;
  mutable std::shared_ptr<Kept> kept_ GUARDED_BY(mutex_);
  mutable std::atomic<uint64_t> masks_found_{0};
};
using ConstraintPtr = std::shared_ptr<const Constraint>;

class Guide {
 public:
  explicit Guide(ConstraintPtr constraint);

  /// The tokens that may come next. resource_exhausted when the constraint is too ambiguous here to
  /// be followed; failed_precondition when no token of the vocabulary goes on, and the text is not
  /// complete.
  Result<TokenMaskPtr> allowed();
  /// Does about `work` of what allowed() has to do, and takes from it what was needed; the unit is
  /// MaskSearch's. True when nothing is left to do.
  bool look_on(uint64_t* work);
  /// Whether allowed() answers at once.
  bool ready() const { return allowed_.has_value(); }
  /// A token that was allowed comes next. After one that ends the text there is nothing to ask.
  Status take(int32_t token);
  /// Whether the text so far is all that may be asked for: complete, and nothing can follow.
  bool closed() const { return closed_; }
  /// Whether the text so far is complete.
  bool complete() const { return complete_; }

 private:
  void settle() REQUIRES(constraint_->mutex_);
  void find(uint64_t* work) REQUIRES(constraint_->mutex_);

  ConstraintPtr constraint_;
  std::shared_ptr<Constraint::Kept> kept_;
  StateId state_ = Matcher::kDead;
  // Of the state: the mask, or what is being looked for and in which matcher (which may have been
  // replaced in the meantime).
  std::optional<Result<TokenMaskPtr>> allowed_;
  std::shared_ptr<MaskSearch> search_;
  std::shared_ptr<Constraint::Kept> searched_;
  bool at_start_ = true;
  bool complete_ = false, closed_ = false;
};

}  // namespace chimera::constraint
