#include "text/tokenizer/stages/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/tokenizer/stages/pattern.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

constexpr std::string_view kSupportedPreTokenizers =
    "ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, Sequence, Split, "
    "Whitespace, WhitespaceSplit";
// GPT-2's expression, which ByteLevel uses with use_regex.
constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Whitespace's words and what is between them. Its \w is that of Rust's regex library, which has
// the two joiners besides Oniguruma's.
constexpr std::string_view kWhitespacePattern =
    "[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+";
// FixedLength without a length.
constexpr int64_t kDefaultLength = 5;
constexpr int64_t kMaxLength = 1 << 20;

}  // namespace

// Receives the contiguous segments of a piece in order, each a match or the text between two, and
// forms pieces from them as `behavior` says.
class PreTokenizer::Collector {
 public:
  Collector(std::string_view text, Behavior behavior, std::vector<std::string_view>& out)
      : text_(text), behavior_(behavior), out_(out) {}

  void segment(size_t begin, size_t end, bool match) {
    switch (behavior_) {
      case Behavior::kRemoved:
        if (!match) emit(begin, end);
        break;
      case Behavior::kIsolated:
        emit(begin, end);
        break;
      case Behavior::kMergedWithPrevious:
        extend_or_start(begin, end, match && !previous_match_);
        break;
      case Behavior::kContiguous:
        extend_or_start(begin, end, match == previous_match_);
        break;
      case Behavior::kMergedWithNext:
        // A match waits for what follows; text takes a waiting match along.
        if (match) {
          flush();
          start(begin, end);
        } else {
          emit(open_ ? open_begin_ : begin, end);
          open_ = false;
        }
        break;
    }
    previous_match_ = match;
  }

  void finish() { flush(); }

 private:
  void emit(size_t begin, size_t end) {
    if (begin < end) out_.push_back(text_.substr(begin, end - begin));
  }
  void start(size_t begin, size_t end) {
    open_ = true;
    open_begin_ = begin;
    open_end_ = end;
  }
  void flush() {
    if (open_) emit(open_begin_, open_end_);
    open_ = false;
  }
  void extend_or_start(size_t begin, size_t end, bool extend) {
    if (extend && open_) {
      open_end_ = end;
      return;
    }
    flush();
    start(begin, end);
  }

  std::string_view text_;
  Behavior behavior_;
  std::vector<std::string_view>& out_;
  bool previous_match_ = false;
  bool open_ = false;  // [open_begin_, open_end_) may still grow
  size_t open_begin_ = 0;
  size_t open_end_ = 0;
};

Result<PreTokenizer> PreTokenizer::from_json(const Json& json) {
  PreTokenizer result;
  CHIMERA_RETURN_IF_ERROR(read(json, "pre_tokenizer", result.steps_));
  result.ends_with_bytes_ =
      !result.steps_.empty() && std::holds_alternative<ByteLevel>(result.steps_.back());
  return result;
}

Status PreTokenizer::read(const Json& json, const std::string& where, std::vector<Step>& steps) {
  if (json.is_null()) return {};
  Fields fields(json, where);
  const std::string type = fields.string("type");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence") {
    const Json* members = fields.array("pretokenizers");
    for (size_t i = 0; i < members->size(); ++i) {
      CHIMERA_RETURN_IF_ERROR(
          read((*members)[i], fmt::format("{}.pretokenizers[{}]", where, i), steps));
    }
  } else if (type == "Split") {
    CHIMERA_RETURN_IF_ERROR(read_split(fields, steps));
  } else if (type == "ByteLevel") {
    CHIMERA_RETURN_IF_ERROR(read_byte_level(fields, steps));
  } else if (type == "Metaspace") {
    CHIMERA_RETURN_IF_ERROR(read_metaspace(fields, steps));
  } else if (type == "Digits") {
    const bool individual = fields.boolean_or("individual_digits", false);
    steps.emplace_back(
        SplitChars{&is_numeric, individual ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "Punctuation") {
    steps.emplace_back(SplitChars{&is_punctuation, read_behavior(fields, "Isolated")});
  } else if (type == "CharDelimiterSplit") {
    steps.emplace_back(SplitDelimiter{fields.character("delimiter")});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(SplitChars{&is_white_space, Behavior::kRemoved});
  } else if (type == "Whitespace") {
    Result<Regex> pattern = Regex::compile(kWhitespacePattern);
    if (!pattern.ok()) return pattern.status();
    steps.emplace_back(SplitRegex{*pattern, Behavior::kRemoved, /*invert=*/true});
  } else if (type == "FixedLength") {
    const int64_t length =
        fields.has("length") ? fields.integer("length", kMaxLength) : kDefaultLength;
    if (length == 0) fields.fail("\"length\" is 0, expected at least 1");
    steps.emplace_back(FixedLength{static_cast<size_t>(length)});
  } else {
    return unsupported_component(where, type, kSupportedPreTokenizers);
  }
  return fields.status();
}

Status PreTokenizer::read_split(Fields& fields, std::vector<Step>& steps) {
  Result<Regex> pattern = read_pattern(fields);
  if (!pattern.ok()) return pattern.status();
  const Behavior behavior = read_behavior(fields, "");
  steps.emplace_back(SplitRegex{*pattern, behavior, fields.boolean_or("invert", false)});
  return fields.status();
}

Status PreTokenizer::read_byte_level(Fields& fields, std::vector<Step>& steps) {
  ByteLevel step{fields.boolean_or("add_prefix_space", true), std::nullopt};
  if (fields.boolean_or("use_regex", true)) {
    Result<Regex> pattern = Regex::compile(kGpt2Pattern);
    if (!pattern.ok()) return pattern.status();
    step.words = SplitRegex{*pattern, Behavior::kIsolated, /*invert=*/false};
  }
  steps.emplace_back(std::move(step));
  return fields.status();
}

Status PreTokenizer::read_metaspace(Fields& fields, std::vector<Step>& steps) {
  const std::string scheme = fields.string_or("prepend_scheme", "always");
  Metaspace step{fields.character("replacement"), Metaspace::Prepend::kAlways,
                 fields.boolean_or("split", true)};
  if (scheme == "first") {
    step.prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = Metaspace::Prepend::kNever;
  } else if (scheme != "always") {
    fields.fail(
        fmt::format("\"prepend_scheme\" is \"{}\", expected always, first or never", scheme));
  }
  // Files older than prepend_scheme say it with add_prefix_space.
  if (!fields.boolean_or("add_prefix_space", true)) {
    if (fields.has("prepend_scheme") && scheme != "never") {
      fields.fail(
          fmt::format("\"add_prefix_space\" is false but \"prepend_scheme\" is \"{}\"", scheme));
    }
    step.prepend = Metaspace::Prepend::kNever;
  }
  steps.emplace_back(step);
  return fields.status();
}

PreTokenizer::Behavior PreTokenizer::read_behavior(Fields& fields, std::string_view fallback) {
  const std::string name =
      fallback.empty() ? fields.string("behavior") : fields.string_or("behavior", fallback);
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name != "Removed") {
    fields.fail(
        fmt::format("\"behavior\" is \"{}\", expected Removed, Isolated, "
                    "MergedWithPrevious, MergedWithNext or Contiguous",
                    name));
  }
  return Behavior::kRemoved;
}

Status PreTokenizer::split(std::string_view text, bool at_start, Pieces& out) const {
  out.items.clear();
  out.rewritten.clear();
  if (text.empty()) return {};
  out.items.push_back(text);
  std::vector<std::string_view> previous;
  bool start = at_start;  // the first piece begins where the text did
  for (size_t i = 0; i < steps_.size(); ++i) {
    const bool last = i + 1 == steps_.size();
    previous.clear();
    previous.swap(out.items);
    out.items.reserve(previous.size());
    for (size_t k = 0; k < previous.size(); ++k) {
      Context context{start && k == 0, /*map_bytes=*/!(last && ends_with_bytes_), out};
      CHIMERA_RETURN_IF_ERROR(
          std::visit([&](const auto& step) { return run(step, previous[k], context); }, steps_[i]));
      if (k == 0) start = start && !out.items.empty() && !context.drops_start;
    }
  }
  return {};
}

// Whether the pieces from `first` on begin with something else than `whole` did.
bool PreTokenizer::start_dropped(const Pieces& pieces, size_t first, std::string_view whole) {
  return first == pieces.items.size() || pieces.items[first].data() != whole.data();
}

Status PreTokenizer::run(const SplitRegex& step, std::string_view piece, Context& context) {
  const size_t first = context.pieces.items.size();
  Collector collector(piece, step.behavior, context.pieces.items);
  size_t covered = 0;
  CHIMERA_RETURN_IF_ERROR(step.pattern.for_each_match(piece, [&](size_t begin, size_t end) {
    if (covered != begin) collector.segment(covered, begin, step.invert);
    collector.segment(begin, end, !step.invert);
    covered = end;
  }));
  if (covered != piece.size()) collector.segment(covered, piece.size(), step.invert);
  collector.finish();
  context.drops_start = start_dropped(context.pieces, first, piece);
  return {};
}

Status PreTokenizer::run(const SplitChars& step, std::string_view piece, Context& context) {
  const size_t first = context.pieces.items.size();
  Collector collector(piece, step.behavior, context.pieces.items);
  size_t covered = 0;
  for (size_t pos = 0; pos < piece.size();) {
    const DecodedChar c = decode_char(piece, pos);
    if (step.is_match(c.code_point)) {
      if (covered != pos) collector.segment(covered, pos, false);
      covered = pos + c.length;
      collector.segment(pos, covered, true);
    }
    pos += c.length;
  }
  if (covered != piece.size()) collector.segment(covered, piece.size(), false);
  collector.finish();
  context.drops_start = start_dropped(context.pieces, first, piece);
  return {};
}

Status PreTokenizer::run(const FixedLength& step, std::string_view piece, Context& context) {
  size_t begin = 0;
  size_t characters = 0;
  for (size_t pos = 0; pos < piece.size(); pos += char_length(piece[pos])) {
    if (characters == step.length) {
      context.pieces.items.push_back(piece.substr(begin, pos - begin));
      begin = pos;
      characters = 0;
    }
    ++characters;
  }
  context.pieces.items.push_back(piece.substr(begin));
  return {};
}

Status PreTokenizer::run(const SplitDelimiter& step, std::string_view piece, Context& context) {
  std::string delimiter;
  append_char(step.delimiter, delimiter);
  size_t begin = 0;
  while (begin <= piece.size()) {
    const size_t end = std::min(piece.find(delimiter, begin), piece.size());
    if (begin < end) context.pieces.items.push_back(piece.substr(begin, end - begin));
    begin = end + delimiter.size();
  }
  context.drops_start = piece.starts_with(delimiter);
  return {};
}

Status PreTokenizer::run(const ByteLevel& step, std::string_view piece, Context& context) {
  Pieces& pieces = context.pieces;
  if (step.add_prefix_space && piece.front() != ' ') {
    pieces.rewritten.push_back(" " + std::string(piece));
    piece = pieces.rewritten.back();
  }
  const size_t first = pieces.items.size();
  if (step.words) {
    CHIMERA_RETURN_IF_ERROR(run(*step.words, piece, context));
  } else {
    pieces.items.push_back(piece);
  }
  if (!context.map_bytes) return {};
  for (size_t i = first; i < pieces.items.size(); ++i) {
    pieces.rewritten.push_back(to_byte_level(pieces.items[i]));
    pieces.items[i] = pieces.rewritten.back();
  }
  return {};
}

Status PreTokenizer::run(const Metaspace& step, std::string_view piece, Context& context) {
  std::string mark;
  append_char(step.replacement, mark);
  std::string text;
  text.reserve(piece.size() + mark.size());
  for (const char c : piece) {
    if (c == ' ') {
      text += mark;
    } else {
      text += c;
    }
  }
  const bool wanted = step.prepend == Metaspace::Prepend::kAlways ||
                      (step.prepend == Metaspace::Prepend::kFirst && context.at_start);
  if (wanted && text.compare(0, mark.size(), mark) != 0) text.insert(0, mark);
  context.pieces.rewritten.push_back(std::move(text));
  const std::string_view view = context.pieces.rewritten.back();
  if (!step.split) {
    context.pieces.items.push_back(view);
    return {};
  }
  // Every mark begins a piece (MergedWithNext), except one that another mark follows.
  Collector collector(view, Behavior::kMergedWithNext, context.pieces.items);
  size_t covered = 0;
  for (size_t at = view.find(mark); at != std::string_view::npos; at = view.find(mark, covered)) {
    if (covered != at) collector.segment(covered, at, false);
    covered = at + mark.size();
    collector.segment(at, covered, true);
  }
  if (covered != view.size()) collector.segment(covered, view.size(), false);
  collector.finish();
  return {};
}

}  // namespace chimera::tokenizer
