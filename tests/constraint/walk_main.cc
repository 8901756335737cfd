// Random answers under constraints, for system/test_constraint_walk.py: what a model might say.
//
//   constraint_walk TOKENIZER ANSWERS < SCHEMAS    (one to a line; a list is one of parts)
//
// For each schema ANSWERS lines {"end": "stop" | "length" | what went wrong, "text"}, or one line
// {"refused": why}. Tokens that close strings, arrays and objects, and those that are marks, are
// preferred more or less, or few answers would end.
#include <charconv>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/writer.h"
#include "text/constraint/constraint.h"

namespace {

using namespace chimera;
using namespace chimera::constraint;

constexpr int kMaxTokens = 400;

class Walk {
 public:
  explicit Walk(std::shared_ptr<const Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)),
        // Behind the vocabulary, so that it is none of the tokenizer's.
        end_(static_cast<int32_t>(tokenizer_->vocab_size())),
        table_(
            std::make_shared<const TokenTable>(tokenizer_, end_ + 1, std::vector<int32_t>{end_})) {}

  Json refused_or_null(const std::string& schema) {
    const auto kind = schema.starts_with('[') ? Spec::Kind::kParts : Spec::Kind::kJsonSchema;
    auto made = Constraint::compile({kind, schema}, table_);
    if (!made.ok()) return Json{{"refused", made.status().message()}};
    constraint_ = *made;
    return {};
  }

  Json answer(unsigned closing_percent) {
    Guide guide(constraint_);
    std::vector<int32_t> ids;
    std::string end = "length";
    for (int i = 0; i < kMaxTokens && end == "length"; ++i) {
      const auto mask = guide.closed() ? Result<TokenMaskPtr>(nullptr) : guide.allowed();
      if (!mask.ok()) return Json{{"end", mask.status().message()}, {"text", ""}};
      const int32_t token = *mask ? draw(**mask, i < 100 ? closing_percent : 95) : end_;
      if (token == end_) {
        end = guide.complete() ? "stop" : "ended where it is not complete";
      } else if (const Status taken = guide.take(token); taken.ok()) {
        ids.push_back(token);
      } else {
        end = taken.message();
      }
    }
    const auto text = tokenizer_->decode(ids, /*skip_special=*/false);
    return Json{{"end", end}, {"text", text.ok() ? *text : ""}};
  }

 private:
  int32_t draw(const TokenMask& mask, unsigned closing_percent) {
    if (mask.contains(end_) && random_() % 2 == 0) return end_;
    std::vector<int32_t> all, closing;
    for (int32_t id = 0; id < end_; ++id) {
      if (!mask.contains(id)) continue;
      all.push_back(id);
      const std::string_view bytes = tokenizer_->token_bytes(id);
      const bool mark = bytes.size() > 4 && (bytes[0] == '<' || bytes[0] == '[');
      if (mark || std::string_view("\"}]").find(bytes[0]) != std::string_view::npos)
        closing.push_back(id);
    }
    if (all.empty()) return end_;
    const auto& from = !closing.empty() && random_() % 100 < closing_percent ? closing : all;
    return from[random_() % from.size()];
  }

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int32_t end_;
  const std::shared_ptr<const TokenTable> table_;
  ConstraintPtr constraint_;
  std::mt19937 random_{7};
};

}  // namespace

int main(int argc, char** argv) {
  int answers = 0;
  if (argc == 3) std::from_chars(argv[2], argv[2] + std::string_view(argv[2]).size(), answers);
  if (answers < 1) {
    std::cerr << "usage: constraint_walk TOKENIZER ANSWERS < SCHEMAS\n";
    return 2;
  }
  const auto tokenizer = Tokenizer::load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().to_string() << "\n";
    return 1;
  }
  Walk walk(*tokenizer);
  std::string schema;
  while (std::getline(std::cin, schema)) {
    const Json refused = walk.refused_or_null(schema);
    if (!refused.is_null()) {
      std::cout << write_json(refused) << "\n";
      continue;
    }
    for (int i = 0; i < answers; ++i)
      std::cout << write_json(walk.answer(static_cast<unsigned>(i % 4) * 25)) << "\n";
  }
}
