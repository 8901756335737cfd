// Lines of a person or a file: with editing and history on a terminal, plain otherwise. Lines are
// bytes as they came; on a terminal, UTF-8.
//
// Thread safety: none. On a terminal the constructor sets the character encoding of the process
// (LC_CTYPE), so nothing else may depend on that meanwhile.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace chimera::cli {

class LineReader {
 public:
  /// `prompt` is shown on a terminal only.
  explicit LineReader(std::string prompt);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool interactive() const { return editor_ != nullptr; }
  /// The next line without its end; nullopt at the end of input (Ctrl-D). Ctrl-C drops the line
  /// that is being written and begins another.
  std::optional<std::string> next();

 private:
  struct Editor;
  std::string prompt_;
  std::unique_ptr<Editor> editor_;  // null when input is no terminal
};

}  // namespace chimera::cli
