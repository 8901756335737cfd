// What a file really is when something else was expected: pointers of large-file stores, pages and
// archives that a download left in its place, models in another format.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace chimera {

/// As many bytes of its beginning decide.
inline constexpr size_t kForeignFileBytes = 64;

/// data_corrupt "PATH: is a Git LFS pointer, not the file itself" with what to do when `begin`, the
/// first kForeignFileBytes bytes of a file (or all), are those of such a stand-in.
Status refuse_pointer_file(std::string_view begin, const std::string& path);
/// The same for these and for files of another format; for readers of binary files.
Status refuse_foreign_file(std::string_view begin, const std::string& path);

}  // namespace chimera
