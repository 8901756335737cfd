// A value or the error that explains its absence, for programs that use the client library.
//
// The engine's own Result is out of reach on purpose: clients know the wire and nothing behind it.
//
// Thread safety: a value.
#pragma once

#include <utility>
#include <variant>

#include "clients/wire/protocol.h"

namespace chimera::client {

using wire::Error;

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  /// REQUIRES: !ok().
  const Error& error() const { return std::get<1>(state_); }
  /// REQUIRES: ok().
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace chimera::client
