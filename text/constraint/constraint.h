// Constraint: what an answer may be, compiled for one vocabulary; Guide: one answer on its way.
//
//   TokenMask* allowed = guide.allowed();   // which tokens may come next
//   guide.take(token);                      // the one that was drawn
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
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
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

/// A bit for each token of the vocabulary.
class TokenMask {
 public:
  explicit TokenMask(size_t vocab) : words_((vocab + 63) / 64, 0) {}
  void set(int32_t token) { words_[word(token)] |= uint64_t{1} << (token & 63); }
  bool contains(int32_t token) const { return (words_[word(token)] >> (token & 63) & 1) != 0; }
  const std::vector<uint64_t>& words() const { return words_; }
  bool empty() const;

 private:
  static size_t word(int32_t token) { return static_cast<size_t>(token) / 64; }
  std::vector<uint64_t> words_;
};
using TokenMaskPtr = std::shared_ptr<const TokenMask>;

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
    size_t mask_bytes = 0;
  };

  Constraint(Network network, std::shared_ptr<const TokenTable> tokens);
  std::shared_ptr<Kept> current() const REQUIRES(mutex_);
  Result<TokenMaskPtr> mask(Kept& kept, StateId state, bool at_start) const REQUIRES(mutex_);
  Result<TokenMaskPtr> find_mask(Kept& kept, StateId state, bool at_start) const REQUIRES(mutex_);

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
  /// A token that was allowed comes next. After one that ends the text there is nothing to ask.
  Status take(int32_t token);
  /// Whether the text so far is all that may be asked for: complete, and nothing can follow.
  bool closed() const { return closed_; }
  /// Whether the text so far is complete.
  bool complete() const { return complete_; }

 private:
  void settle() REQUIRES(constraint_->mutex_);

  ConstraintPtr constraint_;
  std::shared_ptr<Constraint::Kept> kept_;
  StateId state_ = Matcher::kDead;
  bool at_start_ = true;
  bool complete_ = false, closed_ = false;
};

}  // namespace chimera::constraint
