// AdapterSource: an adapter that is in memory only while it is needed. Its module is loaded as any
// other; what it adds is read again when a request uses it (daemon/adapters).
//
// Thread safety: all methods from any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "experts/lora/adapter.h"

namespace chimera {

class AdapterSource {
 public:
  AdapterSource() = default;
  virtual ~AdapterSource() = default;
  AdapterSource(const AdapterSource&) = delete;
  AdapterSource& operator=(const AdapterSource&) = delete;

  /// The adapter, which stays in memory for as long as the answer is kept; null when it is not
  /// there and has to be fetched first.
  virtual std::shared_ptr<const Adapter> hold() const = 0;
  /// Held now.
  virtual uint64_t resident_bytes() const = 0;
};

}  // namespace chimera
