#include "text/constraint/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera::constraint {
namespace {

using Kind = NetworkNode::Kind;

constexpr int kNever = kMaxDepth + 1;

size_t at(int32_t id) { return static_cast<size_t>(id); }

/// Rules that can be entered from a node before a byte is read. A called rule is taken to read
/// something: only those that cannot be empty call others.
void callees(const Network& network, NodeId start, std::vector<RuleId>& out) {
  std::vector<NodeId> open = {start};
  std::vector<bool> seen(network.nodes.size(), false);
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (seen[at(id)]) continue;
    seen[at(id)] = true;
    const NetworkNode& node = network.nodes[at(id)];
    if (node.kind == Kind::kCall) out.push_back(node.other);
    if (node.kind == Kind::kSplit) {
      open.push_back(node.next);
      open.push_back(node.other);
    }
  }
}

}  // namespace

NetworkBuilder::NetworkBuilder() {
  network_.nodes.push_back({});
  network_.nodes.push_back({.kind = Kind::kEnd});
}

NodeId NetworkBuilder::add(NetworkNode node) {
  if (network_.nodes.size() >= kMaxNodes) {
    full_ = true;
    return fail();
  }
  network_.nodes.push_back(node);
  return static_cast<NodeId>(network_.nodes.size() - 1);
}

NodeId NetworkBuilder::byte(uint8_t first, uint8_t last, NodeId next) {
  if (next == fail()) return fail();
  return add({.kind = Kind::kByte, .first = first, .last = last, .next = next});
}

NodeId NetworkBuilder::text(std::string_view bytes, NodeId next) {
  for (size_t i = bytes.size(); i-- > 0;) {
    const auto value = static_cast<uint8_t>(bytes[i]);
    next = byte(value, value, next);
  }
  return next;
}

NodeId NetworkBuilder::either(NodeId a, NodeId b) {
  if (a == fail() || a == b) return b;
  if (b == fail()) return a;
  return add({.kind = Kind::kSplit, .next = a, .other = b});
}

NodeId NetworkBuilder::call(RuleId rule, NodeId next) {
  if (next == fail()) return fail();
  return add({.kind = Kind::kCall, .next = next, .other = rule});
}

NodeId NetworkBuilder::open_loop() {
  return add({.kind = Kind::kSplit, .next = fail(), .other = fail()});
}

void NetworkBuilder::close_loop(NodeId head, NodeId body, NodeId exit) {
  if (full_) return;  // the head may be the node that fails
  network_.nodes[at(head)].next = body;
  network_.nodes[at(head)].other = exit;
}

RuleId NetworkBuilder::declare(std::string name) {
  network_.starts.push_back(fail());
  names_.push_back(std::move(name));
  return static_cast<RuleId>(network_.starts.size() - 1);
}

void NetworkBuilder::define(RuleId rule, NodeId start) { network_.starts[at(rule)] = start; }

RuleId NetworkBuilder::rule(std::string name, NodeId start) {
  const RuleId id = declare(std::move(name));
  define(id, start);
  return id;
}

/// Depth-first over "begins with"; a rule that is met again on the way down is its own beginning.
Status NetworkBuilder::find_left_recursion(std::string_view what) const {
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(network_.starts.size(), Mark::kNew);
  struct Visit {
    RuleId rule;
    std::vector<RuleId> left;
  };
  for (size_t first = 0; first < marks.size(); ++first) {
    if (marks[first] != Mark::kNew) continue;
    std::vector<Visit> path;
    const auto enter = [&](RuleId rule) {
      marks[at(rule)] = Mark::kOpen;
      path.push_back({rule, {}});
      callees(network_, network_.starts[at(rule)], path.back().left);
    };
    enter(static_cast<RuleId>(first));
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.left.empty()) {
        marks[at(visit.rule)] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const RuleId next = visit.left.back();
      visit.left.pop_back();
      if (marks[at(next)] == Mark::kOpen) {
        return {Code::kInvalidArgument,
                fmt::format("{}: {} leads to itself (expected an array or an object in between)",
                            what, names_[at(next)]),
                "take that alternative out"};
      }
      if (marks[at(next)] == Mark::kNew) enter(next);
    }
  }
  return {};
}

/// Least solution of: a byte costs what follows; a split the cheaper side; a call the dearer of
/// what follows and one more than its rule. What follows was mostly made before, so few rounds do.
void NetworkBuilder::find_heights() {
  std::vector<int>& height = network_.height;
  height.assign(network_.nodes.size(), kNever);
  height[at(end())] = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < height.size(); ++i) {
      const NetworkNode& node = network_.nodes[i];
      int found = kNever;
      if (node.kind == Kind::kEnd) found = 0;
      if (node.kind == Kind::kByte) found = height[at(node.next)];
      if (node.kind == Kind::kSplit)
        found = std::min(height[at(node.next)], height[at(node.other)]);
      if (node.kind == Kind::kCall) {
        const int inside = height[at(network_.starts[at(node.other)])];
        found = std::min(kNever, std::max(height[at(node.next)], inside + 1));
      }
      changed = changed || found < height[i];
      height[i] = std::min(height[i], found);
    }
  }
}

Result<Network> NetworkBuilder::finish(RuleId root, std::string_view what) && {
  if (full_) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: needs an automaton of more than {} nodes", what, kMaxNodes),
                  "make it smaller, or its counts (maxLength, maxItems, {m,n}) lower");
  }
  network_.root = root;
  CHIMERA_RETURN_IF_ERROR(find_left_recursion(what));
  find_heights();
  if (network_.height[at(network_.starts[at(root)])] > kMaxDepth) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: no text of at most {} levels fits it", what, kMaxDepth),
                  "see whether it contradicts itself, or never ends");
  }
  return std::move(network_);
}

}  // namespace chimera::constraint
