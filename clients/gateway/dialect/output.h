// The pieces of an answer, gathered. Private to the room.
//
// Blanks beside reasoning and calls belong to how these are written down and go: those at both ends
// of reasoning, those of the words behind it and on both sides of a call.
//
// Thread safety: none.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clients/gateway/dialect/parser.h"

namespace chimera::gateway {

class Output {
 public:
  void text(std::string_view words) { words_.add(words, Piece::Kind::kText, pieces_); }
  void reasoning(std::string_view words) {
    reasoning_.add(words, Piece::Kind::kReasoning, pieces_);
  }
  void end_reasoning();
  void call(std::string name, std::string arguments);
  /// No piece will follow.
  void finish();
  std::vector<Piece> take() { return std::exchange(pieces_, {}); }

 private:
  struct Stretch {
    std::string held{};   // blanks that go unless words follow
    bool begins = false;  // blanks go until words come
    void add(std::string_view words, Piece::Kind kind, std::vector<Piece>& out);
  };
  static void append(std::string_view words, Piece::Kind kind, std::vector<Piece>& out);

  Stretch words_{}, reasoning_{.held = {}, .begins = true};
  std::vector<Piece> pieces_;
};

}  // namespace chimera::gateway
