// Stop strings over streamed text.
//
// Text comes in pieces whose borders carry no meaning: the result depends on their concatenation
// alone. The first stop string to be *complete* ends the text, in front of its first byte (several
// complete at the same byte: the longest). Text that may still become the beginning of a stop
// string is held back.
//
// Thread safety: none; one per sequence, on the engine thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace chimera {

class StopMatcher {
 public:
  /// `stops` must not hold empty strings.
  explicit StopMatcher(std::vector<std::string> stops);

  struct Piece {
    std::string text;      // certain to be in front of every stop string
    bool matched = false;  // a stop string is complete: nothing may follow
  };
  Piece push(std::string_view text);
  /// The held back text, when no more will come.
  std::string flush();

 private:
  size_t held_back() const;

  std::vector<std::string> stops_;
  std::string pending_;
};

}  // namespace chimera
