// The files of clients/console/dist as they were when the program was built; written by
// embed.cmake.
//
// Thread safety: constants. Lifetime: static.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace chimera::gateway::page {

struct EmbeddedFile {
  std::string_view name;    // "console.js"
  std::string_view digest;  // SHA-256, hexadecimal
  const unsigned char* bytes;
  size_t size;
};

std::span<const EmbeddedFile> embedded_files();

}  // namespace chimera::gateway::page
