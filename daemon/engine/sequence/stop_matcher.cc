#include "daemon/engine/sequence/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace chimera {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

StopMatcher::Piece StopMatcher::push(std::string_view text) {
  if (stops_.empty()) return {std::string(text), false};
  pending_ += text;
  size_t first = std::string::npos;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = pending_.find(stop);
    if (at == std::string::npos) continue;
    const size_t stop_end = at + stop.size();
    if (stop_end < end || (stop_end == end && at < first)) {
      first = at;
      end = stop_end;
    }
  }
  Piece piece;
  piece.matched = first != std::string::npos;
  piece.text = pending_.substr(0, piece.matched ? first : pending_.size() - held_back());
  pending_.erase(0, piece.matched ? std::string::npos : piece.text.size());
  return piece;
}

std::string StopMatcher::flush() { return std::exchange(pending_, {}); }

/// Bytes at the end of the pending text that begin some stop string.
size_t StopMatcher::held_back() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    size_t n = std::min(pending_.size(), stop.size() - 1);
    for (; n > longest; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) longest = n;
    }
  }
  return longest;
}

}  // namespace chimera
