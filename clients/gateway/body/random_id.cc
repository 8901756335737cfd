#include "clients/gateway/body/random_id.h"

#include <fmt/format.h>

#include <random>

namespace chimera::gateway {

std::string random_id(std::string_view prefix) {
  static thread_local std::mt19937_64 random{std::random_device()()};
  return fmt::format("{}{:016x}", prefix, random());
}

std::string new_call_id(Dialect dialect, std::string_view prefix) {
  if (dialect == Dialect::kMistral) return random_id("").substr(0, 9);
  return random_id(prefix);
}

}  // namespace chimera::gateway
