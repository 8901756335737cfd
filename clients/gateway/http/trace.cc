#include "clients/gateway/http/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <random>

#include "base/trace_parent.h"

namespace chimera::gateway {
namespace {

/// 16 hexadecimal digits, not all 0. Traces of many programs meet in one place, so it begins with
/// more than the 32 bits that a generator is usually given.
std::string random_span() {
  static thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::array<unsigned, 8> words{};
    std::generate(words.begin(), words.end(), std::ref(device));
    std::seed_seq seed(words.begin(), words.end());
    return std::mt19937_64(seed);
  }();
  uint64_t bits = 0;
  while (bits == 0) bits = random();
  return fmt::format("{:016x}", bits);
}

std::optional<TraceParent> named_by(const Headers& headers) {
  const std::string* found = nullptr;
  for (const auto& [name, value] : headers) {
    if (name != "traceparent") continue;
    if (found != nullptr) return std::nullopt;
    found = &value;
  }
  return found == nullptr ? std::nullopt : TraceParent::parse(*found);
}

}  // namespace

std::string trace_of(const Headers& headers) {
  TraceParent trace;
  if (auto named = named_by(headers)) {
    trace = std::move(*named);
  } else {
    trace.trace_id = random_span() + random_span();
  }
  trace.parent_id = random_span();
  return trace.text();
}

}  // namespace chimera::gateway
