#include "clients/gateway/http/response_head.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

namespace chimera::gateway {
namespace {

/// Values are of the program or echo what a client sent: no line may end within one.
std::string one_line(std::string_view value) {
  std::string out(value);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return out;
}

}  // namespace

std::string response_head(const Response& response, BodyEnd end, bool close, const Headers& extra) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\ndate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n", response.status,
                  reason_phrase(response.status), fmt::gmtime(std::time(nullptr)));
  const auto add = [&head](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(head), "{}: {}\r\n", name, one_line(value));
  };
  if (response.status != 204 && response.status != 304) {  // which have no body
    add("content-type", response.content_type);
    if (end == BodyEnd::kLength) add("content-length", std::to_string(response.body.size()));
    if (end == BodyEnd::kChunks) add("transfer-encoding", "chunked");
  }
  add("connection", close ? "close" : "keep-alive");
  for (const auto& [name, value] : response.headers) add(name, value);
  for (const auto& [name, value] : extra) add(name, value);
  return head + "\r\n";
}

}  // namespace chimera::gateway
