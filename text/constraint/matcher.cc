#include "text/constraint/matcher.h"

#include <algorithm>
#include <utility>

namespace chimera::constraint {
namespace {

uint64_t pair_key(int32_t a, int32_t b) {
  return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
}

}  // namespace

Matcher::Matcher(std::shared_ptr<const Network> network) : network_(std::move(network)) {
  stacks_.push_back({});
  for (const StateId special : {kDead, kTooMany}) {
    states_.push_back({});
    table_.emplace_back().fill(special);
  }
  open_.push_back({network_->starts[at(network_->root)], 0});
  start_ = close();
}

bool Matcher::fits(NodeId node, int depth) const {
  return network_->height[at(node)] + depth <= kMaxDepth;
}

StateId Matcher::find_next(StateId state, uint8_t byte) {
  int first = 0, last = 255;  // bytes around `byte` that all places treat alike
  for (const Place& place : states_[at(state)].places) {
    const NetworkNode& node = network_->nodes[at(place.node)];
    if (byte < node.first) {
      last = std::min(last, node.first - 1);
    } else if (byte > node.last) {
      first = std::max(first, node.last + 1);
    } else {
      first = std::max<int>(first, node.first);
      last = std::min<int>(last, node.last);
      open_.push_back({node.next, place.stack});
    }
  }
  work_ += states_[at(state)].places.size();
  const StateId found = close();
  std::array<StateId, 256>& row = table_[at(state)];
  std::fill(row.begin() + first, row.begin() + last + 1, found);
  return found;
}

StateId Matcher::close() {
  seen_.clear();
  closing_ = {};
  constexpr size_t kMaxSeen = 16 * kMaxPlaces;  // nodes that read no byte
  while (!open_.empty() && closing_.places.size() <= kMaxPlaces && seen_.size() <= kMaxSeen) {
    const Place place = open_.back();
    open_.pop_back();
    ++work_;
    if (seen_.emplace(pair_key(place.node, place.stack), true).second) visit(place);
  }
  open_.clear();
  if (closing_.places.size() > kMaxPlaces || seen_.size() > kMaxSeen) return kTooMany;
  if (closing_.places.empty() && !closing_.accepts) return kDead;
  std::sort(closing_.places.begin(), closing_.places.end());
  return intern(std::move(closing_));
}

void Matcher::visit(const Place& place) {
  const NetworkNode& node = network_->nodes[at(place.node)];
  const Stack stack = stacks_[at(place.stack)];
  if (!fits(place.node, stack.depth)) return;
  switch (node.kind) {
    case NetworkNode::Kind::kFail:
      return;
    case NetworkNode::Kind::kByte:
      closing_.places.push_back(place);
      return;
    case NetworkNode::Kind::kSplit:
      open_.push_back({node.next, place.stack});
      open_.push_back({node.other, place.stack});
      return;
    case NetworkNode::Kind::kEnd:
      if (place.stack == 0) {
        closing_.accepts = true;
      } else {
        open_.push_back({stack.back, stack.parent});
      }
      return;
    case NetworkNode::Kind::kCall: {
      const NodeId start = network_->starts[at(node.other)];
      if (!fits(start, stack.depth + 1)) return;
      open_.push_back({start, push(place.stack, node.next)});
      return;
    }
  }
}

int32_t Matcher::push(int32_t parent, NodeId back) {
  const auto [entry, fresh] =
      by_top_.emplace(pair_key(parent, back), static_cast<int32_t>(stacks_.size()));
  if (fresh) {
    stacks_.push_back({parent, back, stacks_[at(parent)].depth + 1});
    bytes_ += sizeof(Stack) + 64;  // 64: about what an entry of the map takes
  }
  return entry->second;
}

StateId Matcher::intern(State state) {
  std::string key(reinterpret_cast<const char*>(state.places.data()),
                  state.places.size() * sizeof(Place));
  key.push_back(state.accepts ? '+' : '-');
  const auto [entry, fresh] = by_key_.emplace(std::move(key), static_cast<StateId>(states_.size()));
  if (fresh) {
    bytes_ += 2 * state.places.size() * sizeof(Place) + sizeof(State) + sizeof(table_[0]) + 64;
    states_.push_back(std::move(state));
    table_.emplace_back().fill(-1);
  }
  return entry->second;
}

int32_t Matcher::import_stack(const Matcher& other, int32_t stack) {
  std::vector<NodeId> backs;
  for (; stack != 0; stack = other.stacks_[at(stack)].parent) {
    backs.push_back(other.stacks_[at(stack)].back);
  }
  int32_t out = 0;
  for (size_t i = backs.size(); i-- > 0;) out = push(out, backs[i]);
  return out;
}

StateId Matcher::import(const Matcher& other, StateId state) {
  if (state == kDead || state == kTooMany) return state;
  State copy = other.states_[at(state)];
  for (Place& place : copy.places) place.stack = import_stack(other, place.stack);
  std::sort(copy.places.begin(), copy.places.end());
  return intern(std::move(copy));
}

}  // namespace chimera::constraint
