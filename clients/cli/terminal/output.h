// Output of the `chimera` command: tables for people, one JSON object per line for programs.
//
// Thread safety: none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "clients/wire/protocol.h"

namespace chimera::cli {

enum class Style { kPlain, kBold, kDim, kGood, kBad };

class Output {
 public:
  explicit Output(bool json);

  bool json() const { return json_; }
  bool terminal() const { return terminal_; }              // of standard output
  bool error_terminal() const { return error_terminal_; }  // of standard error
  /// Something that was printed is lost: whoever goes on prints for nobody.
  bool lost() const;

  /// One line of JSON.
  void object(const Json& value) const;
  void line(std::string_view text) const;
  /// Text of the model as it comes; control bytes are made harmless on a terminal.
  void stream(std::string_view text) const;
  /// Bytes as they are, for whoever made the model's part harmless already.
  void raw(std::string_view bytes) const;
  /// `text` in a style where standard output is a terminal.
  std::string styled(std::string_view text, Style style) const;
  /// Standard output is a terminal whose user did not refuse colours (NO_COLOR).
  bool coloured() const;
  /// Columns wide enough for their cells; the last is cut so that lines stay within 80 characters
  /// on a terminal. `right` lists the columns that hold numbers.
  void table(const std::vector<std::string>& header,
             const std::vector<std::vector<std::string>>& rows,
             const std::vector<size_t>& right = {}) const;
  /// Names and values, one per line.
  void pairs(const std::vector<std::pair<std::string, std::string>>& pairs) const;

 private:
  bool json_;
  bool terminal_;
  bool error_terminal_;
};

/// `chimera: WHAT: FOUND (expected …). HINT` on standard error; one JSON object for programs.
void print_error(const wire::Error& error, bool json);

/// Characters (code points) of UTF-8 text, which is what a column counts.
size_t width(std::string_view text);
/// Control bytes but newline and tab become '?', so that no text can drive the terminal.
std::string harmless(std::string_view text);
std::string human_bytes(double bytes);              // "1.5 MiB"
std::string percent(double fraction);               // "31.0 %"
std::string short_digest(std::string_view digest);  // "sha256:0123456789ab"
/// A bar of `cells` characters for a fraction of 0..1.
std::string bar(double fraction, int cells);

}  // namespace chimera::cli
