#include "clients/gateway/page/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "clients/gateway/page/embedded.h"

namespace chimera::gateway::page {
namespace {

// Nothing but the page's own files is run, shown or asked; no other page may frame it.
constexpr std::string_view kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

constexpr std::string_view kIndex = "index.html";

struct Kind {
  std::string_view ending, content_type;
};
constexpr std::array kKinds = {
    Kind{".html", "text/html; charset=utf-8"}, Kind{".js", "text/javascript; charset=utf-8"},
    Kind{".css", "text/css; charset=utf-8"}, Kind{".svg", "image/svg+xml"}};

std::string_view content_type(std::string_view name) {
  for (const Kind& kind : kKinds) {
    if (name.ends_with(kind.ending)) return kind.content_type;
  }
  return "application/octet-stream";
}

const EmbeddedFile* find(std::string_view path) {
  if (!path.starts_with('/')) return nullptr;
  const std::string_view name = path == "/" ? kIndex : path.substr(1);
  const auto files = embedded_files();
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const EmbeddedFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

}  // namespace

bool has(std::string_view path) { return find(path) != nullptr; }

Response answer(const Request& request) {
  const EmbeddedFile& file = *find(request.path);
  const std::string tag = fmt::format("\"{}\"", file.digest.substr(0, 32));
  Response response{.content_type = std::string(content_type(file.name)),
                    // Asked for again each time, so that page and gateway are of one version.
                    .headers = {{"cache-control", "no-cache"},
                                {"etag", tag},
                                {"content-security-policy", std::string(kContentPolicy)},
                                {"referrer-policy", "no-referrer"},
                                {"cross-origin-opener-policy", "same-origin"},
                                {"cross-origin-resource-policy", "same-origin"}}};
  const std::string* known = request.header("if-none-match");
  if (known != nullptr && (*known == "*" || known->find(tag) != std::string::npos)) {
    response.status = 304;
  } else {
    response.body.assign(file.bytes, file.bytes + file.size);
  }
  return response;
}

}  // namespace chimera::gateway::page
