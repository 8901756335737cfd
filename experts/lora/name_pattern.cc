#include "experts/lora/name_pattern.h"

#include <fmt/format.h>

#include <algorithm>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace chimera {
namespace {

// What one match may cost; names are short, and a pattern that needs more is a mistake.
constexpr uint32_t kMatchLimit = 1'000'000;

}  // namespace

struct NamePattern::Compiled {
  ~Compiled() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  pcre2_code* code = nullptr;
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
};

NamePattern::NamePattern(std::unique_ptr<Compiled> code) : code_(std::move(code)) {}
NamePattern::NamePattern(NamePattern&&) noexcept = default;
NamePattern& NamePattern::operator=(NamePattern&&) noexcept = default;
NamePattern::~NamePattern() = default;

Result<NamePattern> NamePattern::compile(std::string_view expression) {
  auto made = std::make_unique<Compiled>();
  int error = 0;
  PCRE2_SIZE at = 0;
  made->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C,
                    &error, &at, nullptr);
  if (made->code == nullptr) {
    return Status(Code::kInvalidArgument,
                  fmt::format("no regular expression: an error at character {}", at));
  }
  made->match = pcre2_match_data_create_from_pattern(made->code, nullptr);
  made->context = pcre2_match_context_create(nullptr);
  if (made->match == nullptr || made->context == nullptr) {
    return Status(Code::kResourceExhausted, "no memory for a regular expression");
  }
  pcre2_set_match_limit(made->context, kMatchLimit);
  return NamePattern(std::move(made));
}

bool NamePattern::matches(std::string_view name) const {
  return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                     code_->match, code_->context) >= 0;
}

bool NameSelection::takes(std::string_view name) const {
  const auto ends = [&](const std::string& last) {
    if (!name.ends_with(last)) return false;
    return name.size() == last.size() || name[name.size() - last.size() - 1] == '.';
  };
  return std::any_of(names.begin(), names.end(), ends) ||
         std::any_of(patterns.begin(), patterns.end(),
                     [&](const NamePattern& pattern) { return pattern.matches(name); });
}

}  // namespace chimera
