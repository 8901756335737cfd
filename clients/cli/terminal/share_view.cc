#include "terminal/share_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace chimera::cli {
namespace {

constexpr std::string_view kBackbone = "backbone";

/// Foreground colours that are told apart on light and dark ground; reused when there are more
/// modules.
constexpr std::array<int, 6> kColours = {36, 33, 35, 32, 34, 31};

/// The name with the largest share; a map is ordered, so the first of equals is the first by name.
const std::string& largest(const std::map<std::string, double>& shares) {
  return std::max_element(shares.begin(), shares.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

std::string painted(const std::string& text, int colour) {
  if (text.empty() || colour == 0) return text;
  return fmt::format("\x1b[{}m{}\x1b[0m", colour, text);
}

}  // namespace

void ShareView::show(const client::Token& token) {
  if (token.shares.empty()) return out_.stream(token.text);
  Answerer& answered = answerer(largest(token.shares));
  ++answered.tokens;
  if (out_.coloured()) {
    out_.raw(painted(harmless(token.text), answered.colour));
  } else {
    out_.stream((answered.name == last_ ? "" : "[" + answered.name + "]") + token.text);
  }
  last_ = answered.name;
}

void ShareView::legend() const {
  int64_t tokens = 0;
  size_t columns = 0;
  for (const Answerer& one : answerers_) {
    tokens += one.tokens;
    columns = std::max(columns, width(one.name));
  }
  out_.line("");
  for (const Answerer& one : answerers_) {
    const std::string name = out_.coloured() ? painted(one.name, one.colour) : "[" + one.name + "]";
    const std::string space(columns - width(one.name) + 2, ' ');
    out_.line(fmt::format("{}{}{} of {} tokens", name, space, one.tokens, tokens));
  }
}

ShareView::Answerer& ShareView::answerer(const std::string& name) {
  const auto known = std::find_if(answerers_.begin(), answerers_.end(),
                                  [&](const Answerer& one) { return one.name == name; });
  if (known != answerers_.end()) return *known;
  const int colour = name == kBackbone ? 0 : kColours[modules_++ % kColours.size()];
  return answerers_.emplace_back(Answerer{name, colour, 0});
}

}  // namespace chimera::cli
