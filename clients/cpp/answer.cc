#include "chimera_client/answer.h"

#include <fmt/format.h>

#include <utility>

namespace chimera::client {

void Answer::fail(std::string_view name) {
  if (problem_) return;
  problem_ = {"internal", fmt::format("answer: {} is missing or of another type", name),
              "client and daemon may be of different versions"};
}

std::string Answer::text(std::string_view name) {
  const std::string* found = body_[name].string();
  if (found == nullptr) fail(name);
  return found == nullptr ? std::string() : *found;
}

int64_t Answer::integer(std::string_view name) {
  const std::optional<int64_t> found = body_[name].integer();
  if (!found) fail(name);
  return found.value_or(0);
}

uint64_t Answer::natural(std::string_view name) {
  const std::optional<uint64_t> found = body_[name].natural();
  if (!found) fail(name);
  return found.value_or(0);
}

double Answer::number(std::string_view name) {
  const std::optional<double> found = body_[name].number();
  if (!found) fail(name);
  return found.value_or(0.0);
}

std::vector<int32_t> Answer::tokens(std::string_view name) {
  std::vector<int32_t> out;
  for (const Json& item : array(name)) {
    const std::optional<int64_t> id = item.integer();
    if (!id || !std::in_range<int32_t>(*id)) fail(name);
    out.push_back(static_cast<int32_t>(id.value_or(0)));
  }
  return out;
}

std::vector<float> Answer::numbers(std::string_view name) {
  std::vector<float> out;
  for (const Json& item : array(name)) {
    if (!item.is_number()) fail(name);
    out.push_back(static_cast<float>(item.number().value_or(0.0)));
  }
  return out;
}

const Json& Answer::object(std::string_view name) {
  const Json& found = body_[name];
  if (!found.is_object()) fail(name);
  return found;
}

const Json& Answer::array(std::string_view name) {
  const Json& found = body_[name];
  if (!found.is_array()) fail(name);
  return found;
}

}  // namespace chimera::client
