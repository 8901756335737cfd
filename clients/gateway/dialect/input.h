// Text that arrives in pieces, read by marks. Private to the room.
//
// Thread safety: none.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace chimera::gateway {

class Input {
 public:
  void add(std::string_view text) { text_ += text; }
  void end() { ended_ = true; }
  bool ended() const { return ended_; }

  /// What was not read yet.
  std::string_view rest() const { return std::string_view(text_).substr(at_); }
  std::string take(size_t bytes);
  std::string take_rest() { return take(rest().size()); }

  /// Reads up to the first of the marks. `before` is what certainly stands before any; the index of
  /// the mark that was found and read, if one was.
  std::optional<size_t> find(std::initializer_list<std::string_view> marks, std::string* before);
  /// Whether `mark` comes next; nothing while that cannot be known. It is not read.
  std::optional<bool> starts_with(std::string_view mark) const;
  /// Reads blanks; false while more may come.
  bool skip_space();

 private:
  std::string text_;
  size_t at_ = 0;
  bool ended_ = false;
};

/// Finds the end of a JSON object or array in a text that grows.
class JsonEnd {
 public:
  /// Bytes of the value at the beginning of `text`, which begins with what it was given before;
  /// nothing while it is incomplete. REQUIRES: text begins with { or [.
  std::optional<size_t> look(std::string_view text);

 private:
  size_t seen_ = 0, depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace chimera::gateway
