// Drafter: guesses which tokens a sequence will say next, from what it holds (prompt lookup: where
// its last tokens stood before, what followed then follows again).
//
// A guess is run together with the token that is due and believed only as far as it is what would
// have been drawn (speculative decoding, arXiv 2211.17192, with a draft that is certain): no
// token depends on it, only how many a step gives.
//
// How much is guessed follows success: twice as much after a draft that held throughout, as much as
// held after one that did not, and where nothing held nothing for a while, longer each time. In a
// Mixture-of-Experts model every row reads experts of its own, so wrong guesses cost memory reads.
//
// Thread safety: none; by the owner of its sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chimera {

class Drafter {
 public:
  /// Longest draft; a step has as many rows more.
  static constexpr int64_t kMost = 8;
  /// Fewest tokens that must have stood together before. Pairs come again by chance.
  static constexpr int64_t kLeastMatch = 3;

  /// The draft that follows `tokens`, at most `room` of them; empty when nothing is guessed.
  std::vector<int32_t> draft(std::span<const int32_t> tokens, int64_t room);
  /// Of the last draft that was run, how many of its tokens were drawn.
  void record(int64_t drafted, int64_t held);

 private:
  int64_t most_ = 2;
  int64_t rest_ = 0;     // calls of draft() that give nothing, after the next failure
  int64_t resting_ = 0;  // of them left
};

}  // namespace chimera
