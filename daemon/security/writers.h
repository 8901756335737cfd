// Who else may write what the daemon trusts.
//
// Thread safety: pure function of the file system.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

/// permission_denied when anybody but this user and root can write the file or directory.
Status check_writers(const std::string& path);

/// permission_denied when everybody can write the directory, or anything above it that is not a
/// shared temporary folder (sticky): then anybody can put something else in its place.
Status check_not_everybodys(const std::string& path);

/// The same for code that the daemon will run: nobody but this user and root may be able to change
/// it, nor any directory above it.
Status check_code_place(const std::string& path);

}  // namespace chimera
