#include "scoring/lines.h"

#include <fmt/format.h>
#include <zstd.h>

namespace chimera::cli {
namespace {

constexpr size_t kPieceBytes = size_t{64} << 10;

class PlainBytes final : public ByteSource {
 public:
  PlainBytes(File file, std::string label) : file_(std::move(file)), label_(std::move(label)) {}

  std::variant<bool, Error> read(std::string& out) override {
    const size_t before = out.size();
    out.resize(before + kPieceBytes);
    const size_t got = std::fread(out.data() + before, 1, kPieceBytes, file_.get());
    out.resize(before + got);
    if (std::ferror(file_.get()) != 0) {
      return Error{"invalid_argument", label_ + ": cannot be read (expected a file)",
                   "check the path"};
    }
    return got > 0;
  }

 private:
  const File file_;
  const std::string label_;
};

class ZstdBytes final : public ByteSource {
 public:
  ZstdBytes(File file, std::string label)
      : packed_(std::move(file), label), label_(std::move(label)), context_(ZSTD_createDCtx()) {}

  std::variant<bool, Error> read(std::string& out) override {
    if (context_ == nullptr) return broken("out of memory");
    while (true) {
      if (in_.pos == in_.size) {
        input_.clear();
        auto more = packed_.read(input_);
        if (std::holds_alternative<Error>(more)) return more;
        if (!std::get<bool>(more)) {
          if (inside_frame_) return broken("it ends in the middle of a frame");
          return false;
        }
        in_ = {input_.data(), input_.size(), 0};
      }
      const size_t before = out.size();
      out.resize(before + ZSTD_DStreamOutSize());
      ZSTD_outBuffer to{out.data() + before, out.size() - before, 0};
      const size_t left = ZSTD_decompressStream(context_.get(), &to, &in_);
      out.resize(before + to.pos);
      if (ZSTD_isError(left) != 0) return broken(ZSTD_getErrorName(left));
      inside_frame_ = left != 0;
      if (to.pos > 0) return true;
    }
  }

 private:
  Error broken(std::string_view why) const {
    return {"invalid_argument", fmt::format("{}: {} (expected a zstd file)", label_, why),
            "is the file whole?"};
  }
  struct ContextFree {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };

  PlainBytes packed_;
  const std::string label_;
  const std::unique_ptr<ZSTD_DCtx, ContextFree> context_;
  std::string input_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool inside_frame_ = true;  // an empty file is none of zstd
};

}  // namespace

std::unique_ptr<ByteSource> plain_bytes(File file, std::string label) {
  return std::make_unique<PlainBytes>(std::move(file), std::move(label));
}

std::unique_ptr<ByteSource> zstd_bytes(File file, std::string label) {
  return std::make_unique<ZstdBytes>(std::move(file), std::move(label));
}

std::variant<std::optional<std::string_view>, Error> Lines::next() {
  size_t searched = at_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    const size_t length = (end == std::string::npos ? buffer_.size() : end) - at_;
    if (length > kMaxLineBytes) {
      return Error{"invalid_argument",
                   fmt::format("{}:{}: a line of more than {} MiB (expected less)", label_,
                               number_ + 1, kMaxLineBytes >> 20),
                   "one document per line"};
    }
    if (end != std::string::npos || ended_) {
      if (length == 0 && end == std::string::npos) return std::nullopt;
      const std::string_view line(buffer_.data() + at_, length);
      at_ += length + (end == std::string::npos ? 0 : 1);
      ++number_;
      return line;
    }
    buffer_.erase(0, at_);
    at_ = 0;
    searched = buffer_.size();
    auto more = bytes_->read(buffer_);
    if (auto* error = std::get_if<Error>(&more)) return *error;
    ended_ = !std::get<bool>(more);
  }
}

}  // namespace chimera::cli
