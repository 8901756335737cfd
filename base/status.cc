#include "base/status.h"

namespace chimera {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kAlreadyExists:
      return "already_exists";
    case Code::kFailedPrecondition:
      return "failed_precondition";
    case Code::kPermissionDenied:
      return "permission_denied";
    case Code::kResourceExhausted:
      return "resource_exhausted";
    case Code::kDeadlineExceeded:
      return "deadline_exceeded";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDataCorrupt:
      return "data_corrupt";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kUnimplemented:
      return "unimplemented";
    case Code::kInternal:
      return "internal";
  }
  return "internal";  // a number from outside the set, e.g. from a plugin
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  std::string text = message_.empty() ? std::string(code_name(code_)) : message_;
  if (hint_.empty()) return text;
  if (text.back() != '.') text += '.';
  return text + ' ' + hint_;
}

Status Status::with_context(std::string_view what) const {
  if (ok()) return *this;
  return Status(code_, std::string(what) + ": " + message_, hint_);
}

}  // namespace chimera
