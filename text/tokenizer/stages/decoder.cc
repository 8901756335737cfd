#include "text/tokenizer/stages/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

constexpr std::string_view kSupportedDecoders =
    "ByteLevel, ByteFallback, BPEDecoder, Fuse, Metaspace, Replace (String pattern), Strip, "
    "Sequence";

// fresh() by copying the settings, which Derived keeps in its constructor arguments.
template <class Derived>
class Stage : public DecodeStage {
 public:
  std::unique_ptr<DecodeStage> fresh() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }
};

class JoinBySpaces : public Stage<JoinBySpaces> {
 public:
  void take(std::string_view token, const Next& next) override {
    if (!first_) next(" ");
    first_ = false;
    next(token);
  }

 private:
  bool first_ = true;
};

class ByteLevel : public Stage<ByteLevel> {
 public:
  void take(std::string_view token, const Next& next) override {
    pending_ += from_byte_level(token);
    drain(false, next);
  }
  void finish(const Next& next) override { drain(true, next); }
  std::string bytes_of(std::string token) const override { return from_byte_level(token); }

 private:
  void drain(bool final, const Next& next) {
    std::string text;
    drain_lossy(pending_, final, text);
    if (!text.empty()) next(text);
  }
  std::string pending_;  // bytes of a character that is not complete
};

// The byte that a token such as <0x0A> stands for.
std::optional<char> byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  uint32_t value = 0;
  for (const char c : token.substr(3, 2)) {
    const char lower = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') {
      value = value * 16 + static_cast<uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + static_cast<uint32_t>(lower - 'a') + 10;
    } else {
      return std::nullopt;
    }
  }
  return static_cast<char>(value);
}

// A run of byte tokens is text when the whole run is valid UTF-8, else one U+FFFD per byte; it is
// therefore held back until another token ends it.
class ByteFallback : public Stage<ByteFallback> {
 public:
  void take(std::string_view token, const Next& next) override {
    if (const auto byte = byte_token(token)) {
      run_ += *byte;
      return;
    }
    finish(next);
    next(token);
  }
  void finish(const Next& next) override {
    if (run_.empty()) return;
    if (!find_invalid_utf8(run_)) {
      next(run_);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next(kReplacementCharacter);
    }
    run_.clear();
  }
  std::string bytes_of(std::string token) const override {
    const auto byte = byte_token(token);
    return byte ? std::string(1, *byte) : std::move(token);
  }

 private:
  std::string run_;
};

class Replace : public Stage<Replace> {
 public:
  Replace(std::string pattern, std::string content, bool fused)
      : pattern_(std::move(pattern)), content_(std::move(content)), fused_(fused) {}

  void take(std::string_view token, const Next& next) override {
    held_ += token;
    std::string out;
    size_t done = replace_into(out);
    // In fused text a match may go on in what follows: keep a tail that could begin one.
    size_t keep = fused_ ? std::min(held_.size() - done, pattern_.size() - 1) : 0;
    while (keep > 0 && held_.compare(held_.size() - keep, keep, pattern_, 0, keep) != 0) --keep;
    out.append(held_, done, held_.size() - keep - done);
    held_.erase(0, held_.size() - keep);
    next(out);
  }
  void finish(const Next& next) override {
    if (!held_.empty()) next(std::exchange(held_, {}));
  }
  std::string bytes_of(std::string token) const override {
    Replace once(pattern_, content_, false);
    once.held_ = std::move(token);
    std::string out;
    const size_t done = once.replace_into(out);
    return out.append(once.held_, done);
  }

 private:
  // Replaces every match in held_; returns where the text behind the last one begins.
  size_t replace_into(std::string& out) const {
    size_t done = 0;
    for (size_t at = held_.find(pattern_); at != std::string::npos;
         at = held_.find(pattern_, done)) {
      out.append(held_, done, at - done);
      out += content_;
      done = at + pattern_.size();
    }
    return done;
  }

  std::string pattern_;  // not empty
  std::string content_;
  bool fused_;
  std::string held_;
};

// Removes up to `start` characters `content` at the beginning and up to `stop` at the end: of
// every token, or of the whole text once tokens are fused.
class Strip : public Stage<Strip> {
 public:
  Strip(std::string content, size_t start, size_t stop, bool fused)
      : content_(std::move(content)), start_(start), stop_(stop), fused_(fused), left_(start) {}

  void take(std::string_view token, const Next& next) override {
    if (!fused_) left_ = start_;
    held_ += token;
    size_t begin = 0;
    while (left_ > 0 && held_.compare(begin, content_.size(), content_) == 0) {
      begin += content_.size();
      --left_;
    }
    if (begin < held_.size()) left_ = 0;  // another character: the beginning is over
    size_t end = held_.size();
    for (size_t n = 0; n < stop_ && ends_with_content(begin, end); ++n) end -= content_.size();
    // A token that is stripped to nothing still is a token for what follows.
    if (begin < end || !fused_)
      next(std::string_view(held_).substr(begin, std::max(begin, end) - begin));
    held_.erase(0, end);
    if (!fused_) held_.clear();
  }
  std::string bytes_of(std::string token) const override {
    if (fused_) return token;
    size_t begin = 0;
    size_t end = token.size();
    for (size_t n = 0; n < start_ && token.compare(begin, content_.size(), content_) == 0; ++n) {
      begin += content_.size();
    }
    for (size_t n = 0; n < stop_ && end - begin >= content_.size() &&
                       token.compare(end - content_.size(), content_.size(), content_) == 0;
         ++n) {
      end -= content_.size();
    }
    return token.substr(begin, end - begin);
  }

 private:
  bool ends_with_content(size_t begin, size_t end) const {
    return end - begin >= content_.size() &&
           held_.compare(end - content_.size(), content_.size(), content_) == 0;
  }

  std::string content_;  // one character
  size_t start_;
  size_t stop_;
  bool fused_;
  size_t left_;       // how many may still be removed at the beginning
  std::string held_;  // trailing `content` that may turn out to be the end
};

class Metaspace : public Stage<Metaspace> {
 public:
  Metaspace(std::string replacement, bool prepended, bool fused)
      : replacement_(std::move(replacement)), prepended_(prepended), fused_(fused) {}

  void take(std::string_view token, const Next& next) override {
    next(replaced(token, first_ && prepended_ ? "" : " "));
    if (!fused_) first_ = false;
  }
  std::string bytes_of(std::string token) const override { return replaced(token, " "); }

 private:
  std::string replaced(std::string_view token, std::string_view by) const {
    std::string out;
    for (size_t pos = 0; pos < token.size();) {
      const size_t n = char_length(token[pos]);
      const std::string_view c = token.substr(pos, n);
      out += c == replacement_ ? by : c;
      pos += n;
    }
    return out;
  }

  std::string replacement_;  // one character
  bool prepended_;
  bool fused_;
  bool first_ = true;
};

// The end-of-word suffix of the original BPE becomes a space, and nothing in the last token, which
// is known only when the next one comes.
class WordSuffix : public Stage<WordSuffix> {
 public:
  explicit WordSuffix(std::string suffix) : suffix_(std::move(suffix)) {}

  void take(std::string_view token, const Next& next) override {
    if (held_) next(replaced(*held_, " "));
    held_ = token;
  }
  void finish(const Next& next) override {
    if (held_) next(replaced(*held_, ""));
    held_.reset();
  }
  std::string bytes_of(std::string token) const override { return replaced(token, " "); }

 private:
  std::string replaced(std::string_view token, std::string_view by) const {
    std::string out;
    size_t done = 0;
    for (size_t at = token.find(suffix_); at != std::string_view::npos;
         at = token.find(suffix_, done)) {
      out += token.substr(done, at - done);
      out += by;
      done = at + suffix_.size();
    }
    return out.append(token.substr(done));
  }

  std::string suffix_;  // not empty
  std::optional<std::string> held_;
};

std::string read_character(Fields& fields, const char* key) {
  std::string c;
  append_char(fields.character(key), c);
  return c;
}

// Strip counts of 2^16 are beyond any use.
constexpr int64_t kMaxStrip = 1 << 16;

Status read_replace(Fields& fields, bool fused,
                    std::vector<std::shared_ptr<const DecodeStage>>& stages) {
  const Json* object = fields.object("pattern");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  Fields pattern(*object, fields.where() + ".pattern");
  if (pattern.has("Regex")) {
    return Status(Code::kUnimplemented,
                  pattern.where() + ": \"Regex\" is not supported in a decoder",
                  "supported: a \"String\" pattern");
  }
  const std::string text = pattern.string("String");
  if (text.empty()) pattern.fail("\"String\" is empty");
  CHIMERA_RETURN_IF_ERROR(pattern.status());
  stages.push_back(std::make_shared<Replace>(text, fields.string("content"), fused));
  return fields.status();
}

}  // namespace

void DecodeStage::Next::operator()(std::string_view text) const {
  stream_.pass(stage_, text, out_);
}

void DecodeStage::finish(const Next&) {}

std::string DecodeStage::bytes_of(std::string token) const { return token; }

Result<Decoder> Decoder::from_json(const Json& json) {
  Decoder decoder;
  bool fused = false;
  if (json.is_null()) {
    decoder.stages_.push_back(std::make_shared<JoinBySpaces>());
  } else {
    CHIMERA_RETURN_IF_ERROR(read(json, "decoder", fused, decoder.stages_));
  }
  return decoder;
}

// `fused`: from here on stages see pieces of one text instead of tokens.
Status Decoder::read(const Json& json, const std::string& where, bool& fused, Stages& stages) {
  Fields fields(json, where);
  const std::string type = fields.string("type");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  const bool needs_tokens = type == "ByteLevel" || type == "ByteFallback" || type == "BPEDecoder";
  if (needs_tokens && fused) {
    return Status(Code::kUnimplemented,
                  fmt::format("{}: {} after the tokens were fused is not supported", where, type),
                  "put it before Fuse and ByteLevel");
  }
  if (type == "Sequence") {
    const Json* members = fields.array("decoders");
    for (size_t i = 0; i < members->size(); ++i) {
      CHIMERA_RETURN_IF_ERROR(
          read((*members)[i], fmt::format("{}.decoders[{}]", where, i), fused, stages));
    }
  } else if (type == "ByteLevel") {
    stages.push_back(std::make_shared<ByteLevel>());
    fused = true;
  } else if (type == "ByteFallback") {
    stages.push_back(std::make_shared<ByteFallback>());
  } else if (type == "Fuse") {
    fused = true;
  } else if (type == "Replace") {
    CHIMERA_RETURN_IF_ERROR(read_replace(fields, fused, stages));
  } else if (type == "Strip") {
    const auto start = static_cast<size_t>(fields.integer("start", kMaxStrip));
    const auto stop = static_cast<size_t>(fields.integer("stop", kMaxStrip));
    stages.push_back(
        std::make_shared<Strip>(read_character(fields, "content"), start, stop, fused));
  } else if (type == "BPEDecoder") {
    const std::string suffix = fields.string_or("suffix", "</w>");
    if (suffix.empty()) fields.fail("\"suffix\" is empty");
    stages.push_back(std::make_shared<WordSuffix>(suffix));
  } else if (type == "Metaspace") {
    const bool prepended = fields.boolean_or("add_prefix_space", true) &&
                           fields.string_or("prepend_scheme", "always") != "never";
    stages.push_back(
        std::make_shared<Metaspace>(read_character(fields, "replacement"), prepended, fused));
  } else {
    return unsupported_component(where, type, kSupportedDecoders);
  }
  return fields.status();
}

std::string Decoder::bytes_of(std::string_view token) const {
  std::string bytes(token);
  for (const auto& stage : stages_) bytes = stage->bytes_of(std::move(bytes));
  return bytes;
}

DecodeStream::DecodeStream(const Decoder& decoder) {
  stages_.reserve(decoder.stages_.size());
  for (const auto& stage : decoder.stages_) stages_.push_back(stage->fresh());
}

void DecodeStream::pass(size_t stage, std::string_view token, std::string& out) {
  if (stage == stages_.size()) {
    out += token;
    return;
  }
  stages_[stage]->take(token, DecodeStage::Next(*this, stage + 1, out));
}

void DecodeStream::finish(std::string& out) {
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    stages_[stage]->finish(DecodeStage::Next(*this, stage + 1, out));
  }
}

}  // namespace chimera::tokenizer
