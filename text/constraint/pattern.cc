#include "text/constraint/pattern.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

namespace chimera::constraint {

NodeId PatternWriter::write_whole(const std::vector<PatternBranch>& branches, NodeId next) {
  NodeId out = builder_.fail();
  for (auto branch = branches.rbegin(); branch != branches.rend(); ++branch) {
    out = builder_.either(write(branch->tree, next), out);
  }
  return out;
}

NodeId PatternWriter::write_search(const std::vector<PatternBranch>& branches, NodeId next) {
  NodeId out = builder_.fail();
  for (auto branch = branches.rbegin(); branch != branches.rend(); ++branch) {
    const NodeId behind = branch->at_end ? next : anything(next);
    const NodeId found = write(branch->tree, behind);
    out = builder_.either(branch->at_start ? found : anything(found), out);
  }
  return out;
}

NodeId PatternWriter::anything(NodeId next) {
  const NodeId head = builder_.open_loop();
  builder_.close_loop(head, set(CodePoints::all(), head), next);
  return head;
}

NodeId PatternWriter::write(const PatternNode& tree, NodeId next) {
  switch (tree.kind) {
    case PatternNode::Kind::kEmpty:
      return next;
    case PatternNode::Kind::kSet:
      return set(tree.set, next);
    case PatternNode::Kind::kSequence:
      for (auto part = tree.parts.rbegin(); part != tree.parts.rend(); ++part) {
        next = write(*part, next);
      }
      return next;
    case PatternNode::Kind::kEither: {
      NodeId out = builder_.fail();
      for (auto part = tree.parts.rbegin(); part != tree.parts.rend(); ++part) {
        out = builder_.either(write(*part, next), out);
      }
      return out;
    }
    case PatternNode::Kind::kRepeat:
      return repeat(tree, next);
  }
  return builder_.fail();
}

NodeId PatternWriter::repeat(const PatternNode& tree, NodeId next) {
  const PatternNode& part = tree.parts.front();
  NodeId out = next;
  if (tree.most == kUnbounded) {
    out = builder_.open_loop();
    builder_.close_loop(out, write(part, out), next);
  }
  // x{2,4} is xx(x(x)?)?: whoever leaves the counted part goes straight to what follows.
  for (int i = tree.least; i < tree.most && !builder_.full(); ++i) {
    out = builder_.either(write(part, out), next);
  }
  for (int i = 0; i < tree.least && !builder_.full(); ++i) out = write(part, out);
  return out;
}

NodeId PatternWriter::set(const CodePoints& set, NodeId next) {
  const auto& ranges = set.ranges();
  if (ranges.empty()) return builder_.fail();
  // A rule costs more than the one byte of a plain letter, and less than anything else.
  if (ranges.size() == 1 && ranges[0].last < 0x80 && spelling_ == Spelling::kPlain) {
    return builder_.byte(static_cast<uint8_t>(ranges[0].first),
                         static_cast<uint8_t>(ranges[0].last), next);
  }
  const auto known = std::find_if(rules_.begin(), rules_.end(),
                                  [&](const auto& entry) { return entry.first == ranges; });
  if (known != rules_.end()) return builder_.call(known->second, next);
  const RuleId rule = builder_.rule("a set of characters", characters(set, builder_.end()));
  rules_.emplace_back(ranges, rule);
  return builder_.call(rule, next);
}

NodeId PatternWriter::characters(const CodePoints& set, NodeId next) {
  if (spelling_ == Spelling::kPlain) return one_of(builder_, set, next);
  constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  NodeId out = one_of(builder_, set.without({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}), next);
  for (uint32_t c = 0; c <= '\\'; ++c) {
    if (!set.contains(c) || (c > 0x1F && c != '"' && c != '\\')) continue;
    const size_t letter = kEscaped.find(static_cast<char>(c));
    const std::string spelled = letter == std::string_view::npos
                                    ? fmt::format("\\u{:04x}", c)
                                    : std::string{'\\', kLetters[letter]};
    out = builder_.either(out, builder_.text(spelled, next));
  }
  return out;
}

}  // namespace chimera::constraint
