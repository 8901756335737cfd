// Account: on whose account a request runs, as far as the engine has to know it to be fair.
//
// Thread safety: values; a shared one is immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace chimera {

struct Account {
  std::string name;  // requests of one name are one account, whatever their limits
  std::optional<int64_t> in_flight = std::nullopt;  // sequences at once; further ones wait
  std::optional<int64_t> queued = std::nullopt;     // that wait at most
};

/// Null: the account of those that nobody is told of.
using AccountPtr = std::shared_ptr<const Account>;

}  // namespace chimera
