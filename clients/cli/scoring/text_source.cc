#include "scoring/text_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/json/reader.h"
#include "base/utf8.h"
#include "scoring/lines.h"

namespace chimera::cli {
namespace {

// Pieces of a plain file: long enough that the token put before each does not matter.
constexpr size_t kPieceBytes = size_t{64} << 10;
// Written by tools of all kinds, and only the text counts.
constexpr JsonLimits kLineLimits{.max_bytes = kMaxLineBytes,
                                 .duplicates = DuplicateKeys::kLastCounts};

Error not_utf8(const std::string& label, size_t at) {
  return {"invalid_argument",
          fmt::format("{}: byte {} is not UTF-8 (expected UTF-8 text)", label, at),
          "convert it, for instance with iconv"};
}

/// Counts the text handed out and cuts it at the limit.
class Limited : public TextSource {
 public:
  Limited(std::string label, uint64_t limit) : label_(std::move(label)), left_(limit) {}
  std::variant<std::optional<std::string>, Error> next() final {
    if (left_ == 0) return std::nullopt;
    auto piece = read();
    auto* text = std::get_if<std::optional<std::string>>(&piece);
    if (text == nullptr || !*text) return piece;
    if (const auto at = find_invalid_utf8(**text)) return not_utf8(label_, given_ + *at);
    if ((*text)->size() > left_)
      (*text)->resize(cut_utf8(**text, static_cast<size_t>(left_)).size());
    left_ = (*text)->empty() ? 0 : left_ - (*text)->size();
    given_ += (*text)->size();
    if ((*text)->empty()) return std::nullopt;
    return piece;
  }

 protected:
  virtual std::variant<std::optional<std::string>, Error> read() = 0;
  const std::string label_;

 private:
  uint64_t left_;
  uint64_t given_ = 0;
};

class Plain final : public Limited {
 public:
  Plain(std::string label, File file, uint64_t size, uint64_t limit)
      : Limited(std::move(label), limit), file_(std::move(file)), size_(size) {}

  double fraction() const override {
    return size_ == 0 ? 0.0 : static_cast<double>(read_) / static_cast<double>(size_);
  }

 protected:
  std::variant<std::optional<std::string>, Error> read() override {
    std::string part(kPieceBytes, '\0');
    while (!ended_ && buffer_.size() < kPieceBytes) {
      const size_t got = std::fread(part.data(), 1, part.size(), file_.get());
      buffer_.append(part, 0, got);
      read_ += got;
      ended_ = got == 0;
    }
    if (std::ferror(file_.get()) != 0) {
      return Error{"invalid_argument", label_ + ": cannot be read (expected a file)",
                   "check the path"};
    }
    if (buffer_.empty()) return std::nullopt;
    size_t cut = buffer_.size();
    if (!ended_) {
      const size_t line = buffer_.rfind('\n', kPieceBytes - 1);
      cut = line == std::string::npos ? cut_utf8(buffer_, kPieceBytes).size() : line + 1;
      if (cut == 0) cut = buffer_.size();  // not UTF-8 at all; the check will say so
    }
    std::string piece = buffer_.substr(0, cut);
    buffer_.erase(0, cut);
    return piece;
  }

 private:
  File file_;
  const uint64_t size_;
  uint64_t read_ = 0;
  std::string buffer_;
  bool ended_ = false;
};

/// One JSON object with "text" per line.
class Documents final : public Limited {
 public:
  Documents(std::string label, std::unique_ptr<ByteSource> bytes, uint64_t limit)
      : Limited(label, limit), lines_(std::move(bytes), std::move(label)) {}
  double fraction() const override { return 0.0; }

 protected:
  std::variant<std::optional<std::string>, Error> read() override {
    while (true) {
      const auto next = lines_.next();
      if (const auto* error = std::get_if<Error>(&next)) return *error;
      const std::optional<std::string_view> line = std::get<0>(next);
      if (!line) return std::nullopt;
      if (line->find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const auto document = parse_json(*line, kLineLimits);
      const std::string* text = document.ok() ? (*document)["text"].string() : nullptr;
      if (text == nullptr) return problem("no JSON object with a \"text\"");
      if (!text->empty()) return *text;
    }
  }

 private:
  Error problem(std::string_view what) const {
    return {"invalid_argument",
            fmt::format("{}:{}: {} (expected {{\"text\": …}})", label_, lines_.number(), what),
            "one document per line"};
  }

  Lines lines_;
};

}  // namespace

std::variant<std::unique_ptr<TextSource>, Error> open_text(const std::string& file,
                                                           uint64_t limit_bytes) {
  using Source = std::unique_ptr<TextSource>;
  if (file == "-")
    return Source(std::make_unique<Plain>(file, File(fdopen(dup(0), "rb")), 0, limit_bytes));
  struct stat found {};
  File opened(stat(file.c_str(), &found) == 0 ? std::fopen(file.c_str(), "rbe") : nullptr);
  if (!opened || S_ISDIR(found.st_mode)) {
    return Error{"not_found",
                 fmt::format("{}: {} (expected a text file)", file,
                             opened ? "a directory" : std::strerror(errno)),
                 "check the path"};
  }
  if (file.ends_with(".jsonl.zst")) {
    return Source(
        std::make_unique<Documents>(file, zstd_bytes(std::move(opened), file), limit_bytes));
  }
  if (file.ends_with(".jsonl")) {
    return Source(
        std::make_unique<Documents>(file, plain_bytes(std::move(opened), file), limit_bytes));
  }
  const auto size = static_cast<uint64_t>(std::max<off_t>(found.st_size, 0));
  return Source(std::make_unique<Plain>(file, std::move(opened), size, limit_bytes));
}

}  // namespace chimera::cli
