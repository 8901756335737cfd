// Status and Result: how every fallible call of the engine reports failure.
//
// A Status is a code of the closed set shared with the wire and the plugin ABI, a message that
// names the thing, what was found and what was expected, and a hint with the next step.
// Exceptions stay inside translation units that use a throwing library and become a Status there.
//
// Thread safety: values; distinct objects are independent.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "chimera/status_code.h"

namespace chimera {

enum class Code : int {
  kOk = CHIMERA_OK,
  kInvalidArgument = CHIMERA_INVALID_ARGUMENT,
  kNotFound = CHIMERA_NOT_FOUND,
  kAlreadyExists = CHIMERA_ALREADY_EXISTS,
  kFailedPrecondition = CHIMERA_FAILED_PRECONDITION,
  kPermissionDenied = CHIMERA_PERMISSION_DENIED,
  kResourceExhausted = CHIMERA_RESOURCE_EXHAUSTED,
  kDeadlineExceeded = CHIMERA_DEADLINE_EXCEEDED,
  kCancelled = CHIMERA_CANCELLED,
  kDataCorrupt = CHIMERA_DATA_CORRUPT,
  kUnavailable = CHIMERA_UNAVAILABLE,
  kUnimplemented = CHIMERA_UNIMPLEMENTED,
  kInternal = CHIMERA_INTERNAL,
};

/// The wire spelling, e.g. "invalid_argument".
std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message, std::string hint = {})
      : code_(code), message_(std::move(message)), hint_(std::move(hint)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

  /// "message. hint" for people; "ok" when ok.
  std::string to_string() const;
  /// The same status with `what + ": "` put before the message.
  Status with_context(std::string_view what) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
  std::string hint_;
};

/// A value or the Status that explains its absence. Never holds an ok Status.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {}

  bool ok() const { return state_.index() == 0; }
  /// Ok when a value is held.
  Status status() const { return ok() ? Status() : std::get<1>(state_); }
  /// REQUIRES: ok().
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace chimera

/// Returns from the enclosing function (of type Status or Result) when `expr` is not ok.
#define CHIMERA_RETURN_IF_ERROR(expr)                                                              \
  do {                                                                                             \
    if (::chimera::Status chimera_status_ = (expr); !chimera_status_.ok()) return chimera_status_; \
  } while (false)
