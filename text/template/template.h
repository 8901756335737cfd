// A sandboxed interpreter of the Jinja subset that Hugging Face chat templates are written in.
//
// It gives byte for byte what jinja2's ImmutableSandboxedEnvironment gives with transformers'
// settings (trim_blocks, lstrip_blocks, loop controls, generation blocks, its `tojson`,
// `raise_exception` and `strftime_now`). It does not load other templates, call into the host or
// change values, and integers have 64 bits. Work, memory, recursion and output are bounded
// (builtins/runtime.h), whatever the template and the data.
//
// Thread safety: immutable after parse; renders may run concurrently.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/span.h"
#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

struct ParsedTemplate;

struct Rendered {
  std::string text;
  std::vector<TextSpan> client_text;  // sorted ranges that came from values marked as a client's
};

class Template {
 public:
  /// data_corrupt naming the line; unimplemented for tags of template inheritance. At most 1 MiB.
  static Result<std::shared_ptr<const Template>> parse(std::string_view source);
  ~Template();

  /// `now` is the local time that strftime_now tells. invalid_argument naming the line when the
  /// template raises, the data does not fit it, or one of the `encoded` texts (borrowed; null for
  /// none) is needed as the object it encodes; resource_exhausted past a bound.
  Result<Rendered> render(const Dict& variables, const std::tm& now, size_t max_steps = kMaxSteps,
                          const EncodedObjects* encoded = nullptr) const;

 private:
  explicit Template(std::unique_ptr<const ParsedTemplate> parsed);
  std::unique_ptr<const ParsedTemplate> parsed_;
};

}  // namespace chimera::jinja
