// Who else may write what the daemon trusts.
//
// Thread safety: functions of the file system; a KnownPlaces by one thread at a time.
#pragma once

#include <sys/stat.h>

#include <string>
#include <unordered_map>

#include "base/status.h"

namespace chimera {

/// What was found of directories, for looking at many places that lie in the same ones: each of
/// these is asked for once. It knows nothing of what changes while it lives, so it is for one look
/// at all of them (a plan), never for the next.
class KnownPlaces {
 public:
  /// stat(2) of a directory above a place that is looked at.
  Result<struct stat> find(const std::string& directory);
  /// Directories that the system was asked for (for tests).
  size_t size() const { return found_.size(); }

 private:
  std::unordered_map<std::string, struct stat> found_;
};

/// permission_denied when anybody but this user and root can write the file or directory.
Status check_writers(const std::string& path);

/// permission_denied when everybody can write the directory, or anything above it that is not a
/// shared temporary folder (sticky): then anybody can put something else in its place. What is
/// above it is taken from `known`, where there is one; the directory itself never is.
Status check_not_everybodys(const std::string& path, KnownPlaces* known = nullptr);

/// The same for code that the daemon will run: nobody but this user and root may be able to change
/// it, nor any directory above it.
Status check_code_place(const std::string& path, KnownPlaces* known = nullptr);

}  // namespace chimera
