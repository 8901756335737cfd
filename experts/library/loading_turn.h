// LoadingTurn: control calls of libraries in this process - loading, retiring - come one after
// another, as the dynamic loader and what libraries do to a process are one for all of them. Such a
// call cannot be ended. One that does not come back keeps its turn, and whoever waits behind it is
// told so by name, instead of waiting as well.
//
// Thread safety: take() from any thread; a turn is given back by whichever destroys it.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"

namespace chimera {

class LoadingTurn {
 public:
  /// Waits for those before. unavailable once the one whose turn it is has had it for `most`;
  /// cancelled when the work of this thread is given up (progress.h). `module`: whose call it is.
  static Result<LoadingTurn> take(const std::string& module, std::chrono::milliseconds most);
  LoadingTurn(LoadingTurn&& other) noexcept;
  LoadingTurn& operator=(LoadingTurn&&) = delete;
  ~LoadingTurn();

 private:
  LoadingTurn() = default;
  bool held_ = true;
};

}  // namespace chimera
