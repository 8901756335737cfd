#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer/regex/regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <limits>

#include "text/tokenizer/regex/syntax.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// One search of a sane pre-tokenizer takes a few steps back per character it looks at (a run of
// spaces is tried as the beginning of a line end); beyond that it is a runaway expression. JIT
// frames of nested groups may need more than the 32 KiB machine stack PCRE2 starts with.
constexpr size_t kMatchLimit = 1'000'000;
constexpr size_t kStepsPerByte = 8;  // 2^31 for the largest text
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 8 * 1024 * 1024;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};

// What a search writes to. Per thread, because PCRE2 forbids sharing it between matches.
struct Scratch {
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context;
  std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>> stack;
  std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>> data;

  Scratch()
      : context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)),
        data(pcre2_match_data_create(1, nullptr)) {
    if (!context) return;
    if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

uint32_t match_limit(size_t text_size) {
  const size_t limit = kMatchLimit + kStepsPerByte * text_size;
  return static_cast<uint32_t>(std::min<size_t>(limit, std::numeric_limits<uint32_t>::max()));
}

PCRE2_SPTR bytes_of(std::string_view s) {
  // PCRE2 10.42 takes no null pointer even for length 0.
  return reinterpret_cast<PCRE2_SPTR>(s.empty() ? "" : s.data());
}

}  // namespace

Result<Regex> Regex::compile(std::string_view pattern) {
  const Result<std::string> usual = translate_oniguruma(pattern, Tables::kLibrary);
  if (!usual.ok()) return usual.status();
  auto program = build(*usual, /*is_literal=*/false);
  if (!program.ok()) return program.status();
  Regex regex(std::move(*program));
  const Result<std::string> changed = translate_oniguruma(pattern, Tables::kInForce);
  if (!changed.ok()) return changed.status();
  if (*changed == *usual) return regex;
  program = build(*changed, /*is_literal=*/false);
  if (!program.ok()) return program.status();
  regex.changed_ = std::move(*program);
  return regex;
}

Result<Regex> Regex::literal(std::string_view text) {
  auto program = build(text, /*is_literal=*/true);
  if (!program.ok()) return program.status();
  return Regex(std::move(*program));
}

const Regex::Program& Regex::program_for(std::string_view text) const {
  return changed_.code != nullptr && has_changed_characters(text) ? changed_ : usual_;
}

Result<Regex::Program> Regex::build(std::string_view pattern, bool is_literal) {
  // Oniguruma's ^ and $ always match at lines.
  const uint32_t options = is_literal
                               ? PCRE2_UTF | PCRE2_LITERAL
                               : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  if (!context) return Status(Code::kResourceExhausted, "no memory to compile an expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(bytes_of(pattern), pattern.size(), options, &error, &offset, context.get());
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 160> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    const bool lacking = error == PCRE2_ERROR_LOOKBEHIND_NOT_FIXED_LENGTH;
    return Status(
        lacking ? Code::kUnimplemented : Code::kDataCorrupt,
        fmt::format("regular expression rejected: {} (at byte {} of its PCRE2 form \"{}\")",
                    reinterpret_cast<const char*>(text.data()), offset,
                    lossy(pattern.substr(0, 200))));
  }
  // Without JIT (a system that forbids writable code pages) pcre2_match interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  size_t machine_code = 0;
  const bool jit =
      pcre2_pattern_info(code, PCRE2_INFO_JITSIZE, &machine_code) == 0 && machine_code > 0;
  return Program{{code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); }},
                 jit};
}

Regex::Found Regex::find(const Program& program, std::string_view text, size_t from, size_t& begin,
                         size_t& end) {
  Scratch& s = scratch();
  if (!s.context || !s.data) return Found::kLimit;
  pcre2_set_match_limit(s.context.get(), match_limit(text.size()));
  const auto match = program.jit ? &pcre2_jit_match : &pcre2_match;
  const int rc = match(program.code.get(), bytes_of(text), text.size(), from, PCRE2_NO_UTF_CHECK,
                       s.data.get(), s.context.get());
  if (rc == PCRE2_ERROR_NOMATCH) return Found::kNone;
  if (rc < 0) return Found::kLimit;
  const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(s.data.get());
  begin = ovector[0];
  end = ovector[1];
  return Found::kMatch;
}

Status Regex::limit_error(size_t offset, size_t text_size) {
  return Status(Code::kResourceExhausted,
                fmt::format("a pre-tokenizer expression exceeds {} backtracking steps at byte {}",
                            match_limit(text_size), offset),
                "shorten the text; if it happens on ordinary text, simplify the pattern in "
                "tokenizer.json");
}

}  // namespace chimera::tokenizer
