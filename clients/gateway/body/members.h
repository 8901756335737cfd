// The members of a request's body, taken by name: what is left over in the end is unknown. null is
// absent, as the API says. The first problem wins.
//
// Thread safety: none; by the thread that reads.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"

namespace chimera::gateway {

class Members {
 public:
  /// `object` is borrowed. `where` is put before names in messages: "stream_options.".
  explicit Members(const Json& object, std::string where = {});

  /// The member, or null when absent.
  const Json* take(std::string_view name);
  void take(std::string_view name, bool& out);
  std::optional<std::string> text(std::string_view name);
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);

  void fail(ApiError error);
  void bad(std::string_view name, const Json& found, std::string_view expected);
  std::string path_of(std::string_view name) const { return where_ + std::string(name); }
  bool ok() const { return !problem_; }
  /// The first problem, else what nobody took.
  std::optional<ApiError> finish();

 private:
  const Json& object_;
  std::string where_;
  std::vector<std::string_view> known_;
  std::optional<ApiError> problem_;
};

/// A value as messages show it.
std::string shown(const Json& value);

}  // namespace chimera::gateway
