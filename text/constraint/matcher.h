// Matcher: a network made deterministic while it is used. A state is the set of places where the
// network may be, each with the rules to go back to; what follows a byte is found when it is first
// asked for, and kept.
//
// Every state can still become a complete text: places from which none could be reached within
// kMaxDepth are left out (Network::height), so whoever goes from state to state never gets stuck.
//
// What is kept is bounded: when `full()`, its owner goes on with a new matcher of the same network
// and takes along the states that are in use (`import`).
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/constraint/network.h"

namespace chimera::constraint {

using StateId = int32_t;

class Matcher {
 public:
  /// No text begins so.
  static constexpr StateId kDead = 0;
  /// The states became too large to follow: the language is too ambiguous there.
  static constexpr StateId kTooMany = 1;

  /// Places of one state at most. Schemas have a few dozen; nested counts can have exponentially
  /// many.
  static constexpr size_t kMaxPlaces = 4096;

  explicit Matcher(std::shared_ptr<const Network> network);

  /// Of the empty text.
  StateId start() const { return start_; }
  StateId next(StateId state, uint8_t byte) {
    const StateId known = table_[at(state)][byte];
    return known >= 0 ? known : find_next(state, byte);
  }
  /// Whether the text so far is complete.
  bool accepts(StateId state) const { return states_[at(state)].accepts; }
  /// Whether it may go on.
  bool goes_on(StateId state) const { return !states_[at(state)].places.empty(); }

  /// The state of `other`, a matcher of the same network, here.
  StateId import(const Matcher& other, StateId state);

  size_t states() const { return states_.size(); }
  /// Bytes that are kept.
  size_t bytes() const { return bytes_; }
  /// Places that were looked at so far: the measure of the time that was spent.
  uint64_t work() const { return work_; }

 private:
  /// A node that reads a byte, and a stack: where to go on at the end of the rules around it.
  struct Place {
    NodeId node = 0;
    int32_t stack = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  struct State {
    std::vector<Place> places;  // sorted
    bool accepts = false;
  };
  struct Stack {
    int32_t parent = 0;
    NodeId back = 0;  // of the innermost rule
    int depth = 0;
  };

  static size_t at(int32_t id) { return static_cast<size_t>(id); }
  StateId find_next(StateId state, uint8_t byte);
  /// Follows all that needs no byte, from `open_` on.
  StateId close();
  void visit(const Place& place);
  bool fits(NodeId node, int depth) const;
  int32_t push(int32_t parent, NodeId back);
  StateId intern(State state);
  int32_t import_stack(const Matcher& other, int32_t stack);

  std::shared_ptr<const Network> network_;
  std::vector<State> states_;
  std::vector<std::array<StateId, 256>> table_;  // by state and byte; -1: not found yet
  std::unordered_map<std::string, StateId> by_key_;
  std::vector<Stack> stacks_;
  std::unordered_map<uint64_t, int32_t> by_top_;
  std::vector<Place> open_;
  std::unordered_map<uint64_t, bool> seen_;
  State closing_;
  StateId start_ = kDead;
  size_t bytes_ = 0;
  uint64_t work_ = 0;
};

}  // namespace chimera::constraint
