// The vectors of all inputs as one answer.
#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>

#include "base/json/writer.h"
#include "clients/gateway/openai/embedding.h"
#include "clients/gateway/run/tally.h"

namespace chimera::gateway::openai {
namespace {

// With more at once the daemon's steps get no fuller, and its queue is left to others.
constexpr size_t kInputsAtOnce = 8;
// Bytes of an answer. 2,048 inputs of a model that is 4,096 wide, as base64, are 45 MB.
constexpr size_t kMaxAnswerBytes = size_t{64} << 20;
// Of a value as a number at most: "-1.17549435e-38,".
constexpr size_t kNumberBytes = 16;

std::vector<float> vector_of(const Json& list) {
  std::vector<float> out;
  out.reserve(list.size());
  for (const Json& item : list) out.push_back(static_cast<float>(item.number().value_or(0.0)));
  return out;
}

/// `"…"` of the values as they lie in memory, which is little-endian.
std::string base64_text(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string out(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(bytes.data()),
                    bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  out.pop_back();  // its NUL
  return "\"" + out + "\"";
}

/// With the fewest digits that give the same float32 back, as they came.
std::string number_text(const std::vector<float>& values) {
  return fmt::format("[{}]", fmt::join(values, ","));
}

class EmbeddingAnswer : public Answerer {
 public:
  EmbeddingAnswer(std::string model, bool base64, size_t inputs)
      : model_(std::move(model)), base64_(base64), vectors_(inputs) {
    begin_anew();
  }

  std::string on_token(size_t, const Json&) override { return {}; }
  std::string on_done(size_t choice, const Json& done) override {
    vectors_[choice] = vector_of(done["embedding"]);
    width_ = vectors_[choice].size();
    tally_->done(choice, done);
    return {};
  }
  void begin_anew() final { tally_.emplace(vectors_.size()); }
  /// As soon as the first vector says how wide they are, not when all have been computed.
  std::optional<ApiError> problem() const override {
    const size_t vector =
        base64_ ? sodium_base64_encoded_len(width_ * sizeof(float), sodium_base64_VARIANT_ORIGINAL)
                : width_ * kNumberBytes;
    const size_t most = std::max<size_t>(kMaxAnswerBytes / std::max<size_t>(vector, 1), 1);
    if (vectors_.size() <= most) return std::nullopt;
    return bad_field(
        "input",
        fmt::format("{} of them, whose vectors have {} values each (expected at most {})",
                    vectors_.size(), width_, most),
        base64_ ? "send fewer at once" : "send fewer at once, or ask for base64");
  }
  // There are no streams of vectors.
  std::string end() override { return {}; }
  std::string failed(const ApiError& error) override {
    return error_body(ErrorShape::kOpenAi, error);
  }

  /// Written by hand but for what is small: as values of JSON the numbers of a large request would
  /// take ten times their room.
  std::string whole() override {
    std::string out = R"({"object":"list","data":[)";
    for (size_t i = 0; i < vectors_.size(); ++i) {
      fmt::format_to(std::back_inserter(out),
                     R"({}{{"object":"embedding","index":{},"embedding":{}}})", i == 0 ? "" : ",",
                     i, base64_ ? base64_text(vectors_[i]) : number_text(vectors_[i]));
    }
    const Json rest = {
        {"model", model_},
        {"usage",
         {{"prompt_tokens", tally_->prompt_tokens}, {"total_tokens", tally_->prompt_tokens}}},
        {"chimera", tally_->provenance()}};
    return out + "]," + write_json(rest).substr(1);
  }
  const Tally& tally() const override { return *tally_; }

 private:
  const std::string model_;
  const bool base64_;
  std::vector<std::vector<float>> vectors_;  // by input
  size_t width_ = 0;                         // of them
  std::optional<Tally> tally_;               // always there; begins anew
};

}  // namespace

Job job_of(EmbeddingRequest asked) {
  Job job{.at_once = kInputsAtOnce, .model = asked.model, .shape = ErrorShape::kOpenAi};
  if (asked.calls.size() > 1) job.choice_name = "input";
  job.answerer = std::make_unique<EmbeddingAnswer>(asked.model, asked.base64, asked.calls.size());
  job.calls = std::move(asked.calls);
  return job;
}

}  // namespace chimera::gateway::openai
