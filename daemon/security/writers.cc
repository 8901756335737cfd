#include "daemon/security/writers.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <cerrno>

#include "base/io/env.h"

namespace chimera {
namespace {

/// The group that many systems make for each user, of his name and with nobody else in it: what it
/// may write, nobody else can.
bool is_of_this_user_alone(gid_t group) {
  const passwd* user = ::getpwuid(::geteuid());
  if (user == nullptr || user->pw_gid != group) return false;
  const std::string name = user->pw_name;
  const struct group* found = ::getgrgid(group);
  return found != nullptr && name == found->gr_name && *found->gr_mem == nullptr;
}

Result<struct stat> stat_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_status(path, errno);
  return info;
}

Status check_writers(const std::string& path, const struct stat& info) {
  const bool foreign = info.st_uid != ::geteuid() && info.st_uid != 0;
  const bool by_group = (info.st_mode & 020) != 0 && !is_of_this_user_alone(info.st_gid);
  // Of a shared temporary folder nobody can rename away what is another's.
  const bool open = (by_group || (info.st_mode & 02) != 0) && (info.st_mode & S_ISVTX) == 0;
  if (!foreign && !open) return {};
  return {Code::kPermissionDenied,
          fmt::format("{}: found owner {} and mode {:04o} (expected that nobody else can write it)",
                      path, info.st_uid, info.st_mode & 07777),
          "whoever can write it decides for the daemon: chmod go-w, or choose another place"};
}

/// `check(part, its stat)` of the path itself and of every directory above it, up to the first that
/// is refused.
template <class Check>
Status check_components(const std::string& path, KnownPlaces* known, const Check& check) {
  KnownPlaces alone;
  if (known == nullptr) known = &alone;
  for (std::string part = path;; part = parent_directory(part)) {
    if (part.size() <= 1) part = "/";
    const Result<struct stat> info = part == path ? stat_of(part) : known->find(part);
    if (!info.ok()) return info.status();
    CHIMERA_RETURN_IF_ERROR(check(part, *info));
    if (part == "/") return {};
  }
}

}  // namespace

Result<struct stat> KnownPlaces::find(const std::string& directory) {
  const auto known = found_.find(directory);
  if (known != found_.end()) return known->second;
  const Result<struct stat> info = stat_of(directory);
  if (info.ok()) found_.emplace(directory, *info);
  return info;
}

Status check_writers(const std::string& path) {
  const Result<struct stat> info = stat_of(path);
  return info.ok() ? check_writers(path, *info) : info.status();
}

Status check_not_everybodys(const std::string& path, KnownPlaces* known) {
  return check_components(path, known, [&](const std::string& part, const struct stat& info) {
    const bool shared = part != path && (info.st_mode & S_ISVTX) != 0;
    if ((info.st_mode & 02) == 0 || shared) return Status();
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: found mode {:04o} (expected that not everybody can write it)",
                              part, info.st_mode & 07777),
                  "chmod o-w, or choose another place");
  });
}

Status check_code_place(const std::string& path, KnownPlaces* known) {
  CHIMERA_RETURN_IF_ERROR(check_not_everybodys(path, known));
  return check_components(path, known, [](const std::string& part, const struct stat& info) {
    return check_writers(part, info);
  });
}

}  // namespace chimera
