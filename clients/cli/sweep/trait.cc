// Traits of answers as regular expressions.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>

#include "sweep/sweep.h"

namespace chimera::cli {
namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct Trait::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* const code;
};

std::variant<Trait, Error> Trait::compile(const std::string& expression) {
  int code = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_MULTILINE, &code, &at, nullptr);
  if (compiled == nullptr) {
    return bad_usage(fmt::format("--trait: {} at place {} of {} (expected a regular expression)",
                                 message_of(code), at, expression),
                     "for instance --trait '(?i)shall'");
  }
  Trait out;
  out.code_ = std::make_shared<const Code>(compiled);
  return out;
}

std::variant<bool, Error> Trait::match(const std::string& text) const {
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code_->code, nullptr);
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                0, 0, data, nullptr);
  pcre2_match_data_free(data);
  if (found >= 0 || found == PCRE2_ERROR_NOMATCH) return found >= 0;
  return Error("invalid_argument", "--trait: " + message_of(found) + " (expected an answer to it)",
               "simplify the expression");
}

}  // namespace chimera::cli
