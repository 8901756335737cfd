// Reads the fields of an answer that a daemon of this protocol must send.
//
// Thread safety: none; lives during one reading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "clients/wire/protocol.h"

namespace chimera::client {

/// The first field that is missing or of another type is the problem; what is read then is empty.
class Answer {
 public:
  /// `body` is borrowed; `problem` may be shared by the readers of inner objects.
  Answer(const Json& body, std::optional<wire::Error>& problem) : body_(body), problem_(problem) {}

  std::string text(std::string_view name);
  int64_t integer(std::string_view name);
  uint64_t natural(std::string_view name);
  double number(std::string_view name);
  std::vector<int32_t> tokens(std::string_view name);
  std::vector<float> numbers(std::string_view name);
  const Json& object(std::string_view name);
  const Json& array(std::string_view name);

 private:
  void fail(std::string_view name);

  const Json& body_;
  std::optional<wire::Error>& problem_;
};

}  // namespace chimera::client
