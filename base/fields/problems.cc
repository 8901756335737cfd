#include "base/fields/problems.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera {

void Problems::add(Place at, Problem problem) {
  const auto same = [&](const Noted& noted) {
    return noted.at.line == at.line && noted.at.column == at.column &&
           noted.problem.text == problem.text;
  };
  if (std::any_of(problems_.begin(), problems_.end(), same)) return;
  if (problems_.size() >= most_) {
    ++dropped_;
    return;
  }
  problems_.push_back({at, std::move(problem)});
}

std::string Problems::line_of(const Noted& noted) const {
  const auto& [at, problem] = noted;
  if (label_.empty()) return problem.text;
  if (at.line == 0) return fmt::format("{}: {}", label_, problem.text);
  return fmt::format("{}:{}:{}: {}", label_, at.line, at.column, problem.text);
}

Status Problems::status(std::string hint) const {
  if (problems_.empty()) return {};
  std::vector<Noted> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Noted& a, const Noted& b) {
    return std::pair(a.at.line, a.at.column) < std::pair(b.at.line, b.at.column);
  });
  std::string text;
  for (const Noted& noted : sorted) {
    if (!text.empty()) text += '\n';
    text += line_of(noted);
  }
  if (dropped_ > 0) {
    text += fmt::format("\n{}and {} more problems", label_.empty() ? "" : label_ + ": ", dropped_);
  }
  const Problem& first = sorted.front().problem;
  return {first.code, std::move(text), hint.empty() ? first.hint : std::move(hint)};
}

}  // namespace chimera
