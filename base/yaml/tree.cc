#include "base/yaml/tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <optional>
#include <streambuf>

#include "base/json/writer.h"
#include "base/quote.h"
#include "base/utf8.h"

namespace chimera {
namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxEntries = 4096;  // of a map: finding duplicates is quadratic

/// Stops the parser at an error of our own.
struct Refused {
  YAML::Mark mark;
  std::string text;
};

/// Builds the tree from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(YamlProblems& problems) : problems_(problems) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(node(mark, YamlNode::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{mark, "found an alias (expected none: write the value out)"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    YamlNode scalar = node(mark, YamlNode::Kind::kScalar);
    scalar.text = value;
    scalar.plain = tag == "?";
    add(std::move(scalar));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  YamlNode take_root() { return root_ ? std::move(*root_) : YamlNode(); }

 private:
  struct Frame {
    YamlNode node;
    std::optional<YamlNode> key;  // of a map: read, its value is next
  };

  static YamlNode node(const YAML::Mark& mark, YamlNode::Kind kind) {
    YamlNode made;
    made.kind = kind;
    made.line = mark.line + 1;
    made.column = mark.column + 1;
    return made;
  }
  static void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) throw Refused{mark, "found an anchor (expected none)"};
  }
  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    throw Refused{mark, fmt::format("found the tag {} (expected none)", json_string(tag))};
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (stack_.size() >= kMaxDepth) {
      throw Refused{mark, fmt::format("found nesting deeper than {} (expected less)", kMaxDepth)};
    }
    stack_.push_back({node(mark, kind), std::nullopt});
  }

  void close() {
    YamlNode done = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(done));
  }

  void add(YamlNode child) {
    if (stack_.empty()) {
      root_ = std::move(child);
      return;
    }
    Frame& frame = stack_.back();
    if (frame.node.kind == YamlNode::Kind::kList) {
      frame.node.items.push_back(std::move(child));
    } else if (!frame.key) {
      frame.key = std::move(child);
    } else {
      add_entry(frame, std::move(child));
    }
  }

  void add_entry(Frame& frame, YamlNode value) {
    YamlNode key = std::move(*frame.key);
    frame.key.reset();
    if (key.kind != YamlNode::Kind::kScalar) {
      problems_.add(key, fmt::format("found {} as a key (expected a word)", key.found()));
      return;
    }
    const auto first = std::find_if(frame.node.entries.begin(), frame.node.entries.end(),
                                    [&](const auto& e) { return e.key.text == key.text; });
    if (first != frame.node.entries.end()) {
      problems_.add(key, fmt::format("key {} found twice (expected once; first on line {})",
                                     key.found(), first->key.line));
      return;
    }
    if (frame.node.entries.size() >= kMaxEntries) {
      YAML::Mark mark;
      mark.line = key.line - 1;
      mark.column = key.column - 1;
      throw Refused{mark, fmt::format("found more than {} keys (expected fewer)", kMaxEntries)};
    }
    frame.node.entries.push_back({std::move(key), std::move(value)});
  }

  YamlProblems& problems_;
  std::vector<Frame> stack_;
  std::optional<YamlNode> root_;
};

/// Reads a string_view without copying it.
class ViewBuffer final : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // the get area is never written
    setg(begin, begin, begin + text.size());
  }
};

/// The first character that no configuration needs: a control character, broken UTF-8, or a tab
/// in the indentation, which YAML forbids and every editor shows differently.
std::optional<std::string> bad_character(std::string_view text) {
  int line = 1;
  int column = 1;
  bool indentation = true;
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_length(text, i);
    const bool control = (c < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7f;
    if (length == 0 || control) {
      return fmt::format(
          "{}:{}: found byte 0x{:02x} (expected UTF-8 text without control "
          "characters)",
          line, column, c);
    }
    if (c == '\t' && indentation &&
        text.find_first_not_of(" \t", i) < text.find_first_of("\r\n", i)) {
      return fmt::format("{}:{}: found a tab in the indentation (expected spaces)", line, column);
    }
    indentation = c == '\n' || (indentation && c == ' ');
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n' ? 1 : 0;
    i += length;
  }
  return std::nullopt;
}

}  // namespace

std::string YamlNode::found(size_t max_bytes) const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
    case Kind::kScalar:
      break;
  }
  return quote(text, max_bytes);
}

std::string YamlNode::flow() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kScalar:
      return json_string(text);
    case Kind::kList:
    case Kind::kMap:
      break;
  }
  std::vector<std::string> parts;
  for (const YamlNode& item : items) parts.push_back(item.flow());
  for (const auto& [key, value] : entries) parts.push_back(key.flow() + ": " + value.flow());
  const std::string inside = fmt::format("{}", fmt::join(parts, ", "));
  return kind == Kind::kList ? "[" + inside + "]" : "{" + inside + "}";
}

void YamlProblems::add(const YamlNode& at, std::string_view key, std::string_view expected) {
  add(at, fmt::format("{}: found {} (expected {})", key, at.found(), expected));
}

Result<YamlNode> parse_yaml(std::string_view text, const std::string& label,
                            YamlProblems& problems) {
  if (const auto bad = bad_character(text)) {
    return Status(Code::kInvalidArgument, label + ":" + *bad);
  }
  const auto refusal = [&](const YAML::Mark& mark, const std::string& what) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}:{}:{}: {}", label, mark.line + 1, mark.column + 1, what));
  };
  try {
    ViewBuffer buffer(text);
    std::istream stream(&buffer);
    YAML::Parser parser(stream);
    TreeBuilder builder(problems);
    if (!parser.HandleNextDocument(builder)) {
      return Status(Code::kInvalidArgument, label + ":1:1: found an empty file (expected a map)");
    }
    YamlNode root = builder.take_root();
    TreeBuilder rest(problems);
    if (parser.HandleNextDocument(rest)) {
      return Status(Code::kInvalidArgument,
                    fmt::format("{}:{}:1: found a second document (expected one)", label,
                                rest.take_root().line));
    }
    return root;
  } catch (const Refused& refused) {
    return refusal(refused.mark, refused.text);
  } catch (const YAML::Exception& error) {
    return refusal(error.mark, fmt::format("not YAML: {}", error.msg));
  } catch (const std::exception& error) {
    return Status(Code::kInvalidArgument, fmt::format("{}: not YAML: {}", label, error.what()));
  }
}

}  // namespace chimera
