// Who asks, as far as the APIs care.
//
// Thread safety: values.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace chimera::gateway {

struct Caller {
  std::optional<std::vector<std::string>> modules{};  // all it may use; else every one
  std::shared_ptr<void> slot{};                       // held while its request is in progress
  std::string traceparent{};                          // of its request
};

}  // namespace chimera::gateway
