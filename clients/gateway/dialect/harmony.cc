// <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
//
// Channels: `analysis` is reasoning, `final` the answer, `commentary` words before a call. A call
// is a message to a function:
// <|start|>assistant<|channel|>commentary to=functions.f
// <|constrain|>json<|message|>{"a":1}<|call|> with the recipient before or behind the channel. The
// prompt ends with <|start|>assistant.
#include "clients/gateway/dialect/marks.h"
#include "clients/gateway/dialect/reader.h"

namespace chimera::gateway {
namespace {

constexpr std::string_view kRecipient = "to=", kFunctions = "functions.";

class Harmony : public Reader {
 public:
  explicit Harmony(bool tools) : tools_(tools) {}

 protected:
  bool step() override { return in_header_ ? header() : body(); }

 private:
  enum class Kind : uint8_t { kWords, kReasoning, kCall };

  bool header() {
    std::string before;
    // Where a header has no message, the model has left the format; its words are kept.
    const bool found = in_.find({mark::kMessage}, &before).has_value();
    header_ += before;
    if (found) {
      read_header();
      in_header_ = false;
      return true;
    }
    if (in_.ended()) out_.text(words_of_header());
    return false;
  }

  void read_header() {
    body_.clear();
    recipient_.clear();
    const size_t to = header_.find(kRecipient);
    if (to != std::string::npos) {
      recipient_ = header_.substr(to + kRecipient.size());
      recipient_.resize(std::min(recipient_.find_first_of(" \t\r\n<"), recipient_.size()));
    }
    const bool function = recipient_.starts_with(kFunctions);
    if (function) recipient_.erase(0, kFunctions.size());
    const size_t channel = header_.find(mark::kChannel);
    const bool analysis =
        channel != std::string::npos &&
        std::string_view(header_).substr(channel + mark::kChannel.size()).starts_with("analysis");
    kind_ = function && tools_ ? Kind::kCall
            // What goes to tools that nobody offered is the model's own business.
            : analysis || !recipient_.empty() ? Kind::kReasoning
                                              : Kind::kWords;
    head_ = std::exchange(header_, {});
  }

  /// Without what the format would have put there.
  std::string words_of_header() const {
    for (const std::string_view part : {mark::kStart, mark::kChannel, kRecipient}) {
      if (header_.find(part) != std::string::npos) return {};
    }
    return header_ == "assistant" ? "" : header_;
  }

  bool body() {
    std::string before;
    const auto found =
        in_.find({mark::kEnd, mark::kCall, mark::kReturn, mark::kStart, mark::kChannel}, &before);
    switch (kind_) {
      case Kind::kWords:
        out_.text(before);
        break;
      case Kind::kReasoning:
        out_.reasoning(before);
        break;
      case Kind::kCall:
        body_ += before;
        break;
    }
    if (!found && !in_.ended()) return false;
    end_message();
    in_header_ = true;
    if (found && *found == 4) header_ = mark::kChannel;  // of the message after this one
    return true;
  }

  void end_message() {
    if (kind_ == Kind::kReasoning) out_.end_reasoning();
    if (kind_ != Kind::kCall) return;
    const auto value = json_of_text(body_.empty() ? "{}" : std::string_view(body_));
    auto arguments = value ? arguments_of(*value) : std::nullopt;
    if (arguments && !recipient_.empty()) {
      out_.call(recipient_, std::move(*arguments));
    } else {
      out_.text(head_ + std::string(mark::kMessage) + body_);
    }
  }

  const bool tools_;
  bool in_header_ = true;
  Kind kind_ = Kind::kWords;
  std::string header_, head_, recipient_, body_;
};

}  // namespace

std::unique_ptr<Parser> make_harmony(bool tools) { return std::make_unique<Harmony>(tools); }

}  // namespace chimera::gateway
