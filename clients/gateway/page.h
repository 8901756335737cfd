// Files that the gateway serves besides its APIs: the console. The door for whoever embeds them.
//
// Thread safety: free function.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

namespace chimera::gateway {

struct PageFile {
  std::string_view bytes;         // lives as long as the program
  std::string_view content_type;  // "text/html; charset=utf-8"
};

/// The file of a path ("/", "/assets/app.js"), if there is one.
using FindPage = std::function<std::optional<PageFile>(std::string_view path)>;

}  // namespace chimera::gateway
