#include "clients/gateway/dialect/input.h"

#include <algorithm>

#include "clients/gateway/dialect/marks.h"

namespace chimera::gateway {
namespace {

/// Bytes at the end of `text` with which `mark` may begin.
size_t begun(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n) {
    if (text.ends_with(mark.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

std::string Input::take(size_t bytes) {
  std::string out(rest().substr(0, bytes));
  at_ += out.size();
  // What was read goes once it is the larger part, so that each byte moves a bounded number of
  // times.
  if (at_ > text_.size() / 2) {
    text_.erase(0, at_);
    at_ = 0;
  }
  return out;
}

std::optional<size_t> Input::find(std::initializer_list<std::string_view> marks,
                                  std::string* before) {
  const std::string_view text = rest();
  size_t first = std::string_view::npos, which = 0, held = 0, index = 0;
  for (const std::string_view mark : marks) {
    const size_t found = text.find(mark);
    if (found < first) {
      first = found;
      which = index;
    }
    held = std::max(held, begun(text, mark));
    ++index;
  }
  if (first != std::string_view::npos) {
    *before = take(first);
    take(marks.begin()[which].size());
    return which;
  }
  *before = take(ended_ ? text.size() : text.size() - held);
  return std::nullopt;
}

std::optional<bool> Input::starts_with(std::string_view mark) const {
  const std::string_view text = rest();
  if (text.size() >= mark.size()) return text.starts_with(mark);
  if (ended_ || !mark.starts_with(text)) return false;
  return std::nullopt;
}

bool Input::skip_space() {
  const size_t n = rest().find_first_not_of(mark::kSpace);
  take(n == std::string_view::npos ? rest().size() : n);
  return n != std::string_view::npos || ended_;
}

std::optional<size_t> JsonEnd::look(std::string_view text) {
  for (; seen_ < text.size(); ++seen_) {
    const char c = text[seen_];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      if (--depth_ == 0) return ++seen_;
    }
  }
  return std::nullopt;
}

}  // namespace chimera::gateway
