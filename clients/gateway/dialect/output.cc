#include "clients/gateway/dialect/output.h"

#include "clients/gateway/dialect/marks.h"

namespace chimera::gateway {

void Output::append(std::string_view words, Piece::Kind kind, std::vector<Piece>& out) {
  if (words.empty()) return;
  if (out.empty() || out.back().kind != kind) out.push_back({.kind = kind});
  out.back().text += words;
}

void Output::Stretch::add(std::string_view words, Piece::Kind kind, std::vector<Piece>& out) {
  if (begins) {
    const size_t first = words.find_first_not_of(mark::kSpace);
    words.remove_prefix(first == std::string_view::npos ? words.size() : first);
  }
  if (words.empty()) return;
  begins = false;
  const size_t last = words.find_last_not_of(mark::kSpace);
  if (last == std::string_view::npos) {
    held += words;
    return;
  }
  append(held, kind, out);
  append(words.substr(0, last + 1), kind, out);
  held = words.substr(last + 1);
}

void Output::end_reasoning() {
  reasoning_ = {.held = {}, .begins = true};
  words_ = {.held = {}, .begins = true};
}

void Output::call(std::string name, std::string arguments) {
  words_ = {.held = {}, .begins = true};
  pieces_.push_back(
      {.kind = Piece::Kind::kCall, .text = std::move(name), .arguments = std::move(arguments)});
}

void Output::finish() { append(std::exchange(words_.held, {}), Piece::Kind::kText, pieces_); }

}  // namespace chimera::gateway
