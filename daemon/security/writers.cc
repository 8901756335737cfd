#include "daemon/security/writers.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

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

}  // namespace

Status check_writers(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_status(path, errno);
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

namespace {

/// The path itself and every directory above it.
std::vector<std::string> components(std::string path) {
  std::vector<std::string> out;
  while (path.size() > 1) {
    out.push_back(path);
    path = parent_directory(path);
    if (path == ".") break;
  }
  out.emplace_back("/");
  return out;
}

}  // namespace

Status check_not_everybodys(const std::string& path) {
  for (const std::string& part : components(path)) {
    struct stat info {};
    if (::stat(part.c_str(), &info) != 0) return errno_status(part, errno);
    const bool shared = part != path && (info.st_mode & S_ISVTX) != 0;
    if ((info.st_mode & 02) == 0 || shared) continue;
    return {Code::kPermissionDenied,
            fmt::format("{}: found mode {:04o} (expected that not everybody can write it)", part,
                        info.st_mode & 07777),
            "chmod o-w, or choose another place"};
  }
  return {};
}

Status check_code_place(const std::string& path) {
  CHIMERA_RETURN_IF_ERROR(check_not_everybodys(path));
  for (const std::string& part : components(path)) CHIMERA_RETURN_IF_ERROR(check_writers(part));
  return {};
}

}  // namespace chimera
