// A request and a response of HTTP as plain values.
//
// Thread safety: values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::gateway {

/// Names in lower case, in the order they came.
using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;  // "GET"
  std::string path;    // as sent, "/v1/models/demo%3Alegal"
  std::string query;   // behind the "?", as sent
  Headers headers;
  std::string body;
  std::string peer;           // address of the client, for the log
  bool secure = false;        // came over TLS
  std::string traceparent{};  // of the gateway's part of its trace (trace.h)

  /// The first header of that name (lower case), or null.
  const std::string* header(std::string_view name) const;
};

struct Response {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body{};
  Headers headers{};
};

/// "Not Found" of 404.
std::string_view reason_phrase(unsigned status);

/// Undoes %XX; nothing when an escape is broken or hides a NUL.
std::optional<std::string> percent_decode(std::string_view text);

/// Value of a parameter of a query string, decoded; nothing when absent or broken.
std::optional<std::string> query_parameter(std::string_view query, std::string_view name);

}  // namespace chimera::gateway
