#include "daemon/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <sstream>

namespace chimera::yaml {
namespace {

YamlPosition position(const YAML::Mark& mark) {
  return {std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1};
}

// Aborts the parse: going on would only produce nonsense or cost without bound.
struct Stop {};

// Builds the tree from yaml-cpp's events. Events rather than YAML::Node, because only they show
// anchors, aliases, duplicate keys and the depth before anything is built from them.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(YamlProblems& problems) : problems_(problems) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    YamlNode node;
    node.at = position(mark);
    place(std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problems_.add(position(mark),
                  "found an alias (expected the value itself; aliases are refused)");
    throw Stop();
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.at = position(mark);
    node.quoted = tag == "!";  // yaml-cpp: "?" for plain scalars, "!" for all others
    node.text = value;
    place(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kSequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

  /// REQUIRES: a document was parsed to its end.
  YamlNode take() { return std::move(root_); }

 private:
  struct Frame {
    YamlNode node;
    bool have_key = false;
    YamlNode key;
  };

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      problems_.add(position(mark),
                    "found an anchor (expected a plain value; anchors are refused)");
    }
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      problems_.add(position(mark), "found tag " + tag + " (expected a value without a tag)");
    }
  }
  void open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (stack_.size() >= static_cast<size_t>(kMaxYamlDepth)) {
      problems_.add(position(mark),
                    fmt::format("found nesting deeper than {} levels", kMaxYamlDepth));
      throw Stop();
    }
    Frame frame;
    frame.node.kind = kind;
    frame.node.at = position(mark);
    stack_.push_back(std::move(frame));
  }
  void close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    place(std::move(node));
  }
  void place(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = stack_.back();
    if (frame.node.kind == YamlNode::Kind::kSequence) {
      frame.node.items.push_back(std::move(node));
    } else if (!frame.have_key) {
      frame.key = std::move(node);
      frame.have_key = true;
    } else {
      frame.have_key = false;
      place_entry(frame, std::move(node));
    }
  }
  void place_entry(Frame& frame, YamlNode value) {
    YamlNode& key = frame.key;
    if (key.kind != YamlNode::Kind::kScalar) {
      problems_.add(key.at, "found a key that is no text (expected a key name)");
      return;
    }
    auto& entries = frame.node.entries;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].first != key.text) continue;
      problems_.add(key.at, fmt::format("{}: found twice (first on line {}; expected once)",
                                        key.text, frame.node.key_at[i].line));
      return;
    }
    // A file of 1 MiB cannot make this quadratic search costly: every level of a deployment has
    // fewer than a dozen keys, and a map of more is cut off.
    if (entries.size() >= 256) {
      problems_.add(key.at, "found more than 256 keys in one map");
      throw Stop();
    }
    frame.node.key_at.push_back(key.at);
    entries.emplace_back(std::move(key.text), std::move(value));
  }

  YamlProblems& problems_;
  std::vector<Frame> stack_;
  YamlNode root_;
};

// A tab in indentation means something else in every editor; YAML forbids it as well.
bool check_lines(std::string_view text, YamlProblems& problems) {
  bool clean = true;
  int line = 1;
  for (size_t start = 0; start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view row = text.substr(start, end - start);
    const size_t first = row.find_first_not_of(' ');
    if (first != std::string_view::npos && row[first] == '\t' &&
        row.find_first_not_of(" \t\r") != std::string_view::npos) {
      problems.add({line, static_cast<int>(first) + 1},
                   "found a tab in the indentation (expected spaces)");
      clean = false;
    }
    for (size_t i = 0; i < row.size(); ++i) {
      const auto c = static_cast<unsigned char>(row[i]);
      if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7F) {
        problems.add({line, static_cast<int>(i) + 1},
                     fmt::format("found control byte 0x{:02x} (expected text)", c));
        return false;
      }
    }
    start = end + 1;
  }
  return clean;
}

}  // namespace

void YamlProblems::add(YamlPosition at, std::string message) {
  if (problems_.size() < kMax) problems_.emplace_back(at, std::move(message));
}

Status YamlProblems::status() const {
  if (problems_.empty()) return Status();
  auto sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.line, a.first.column) < std::pair(b.first.line, b.first.column);
  });
  std::string text;
  for (const auto& [at, message] : sorted) {
    if (!text.empty()) text += '\n';
    text += fmt::format("{}:{}:{}: {}", label_, at.line, at.column, message);
  }
  return Status(Code::kInvalidArgument, std::move(text));
}

std::optional<YamlNode> parse_yaml_tree(std::string_view text, YamlProblems& problems) {
  if (text.size() > kMaxYamlBytes) {
    problems.add({1, 1},
                 fmt::format("found {} bytes (expected at most {})", text.size(), kMaxYamlBytes));
    return std::nullopt;
  }
  if (!check_lines(text, problems)) return std::nullopt;
  TreeBuilder builder(problems);
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.take();
    TreeBuilder second(problems);
    if (parser.HandleNextDocument(second)) {
      problems.add(second.take().at, "found a second document (expected one)");
    }
    return root;
  } catch (const YAML::Exception& e) {
    problems.add(position(e.mark), "found text that is not YAML: " + e.msg);
  } catch (const Stop&) {
  } catch (const std::exception& e) {
    problems.add({1, 1}, std::string("cannot be read as YAML: ") + e.what());
  }
  return std::nullopt;
}

}  // namespace chimera::yaml
