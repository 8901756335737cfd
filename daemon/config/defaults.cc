// Where daemon and command line meet when the deployment names nothing.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/io/env.h"
#include "clients/wire/endpoints.h"
#include "daemon/config/config.h"

namespace chimera {
namespace {

// A directory that only this user can enter: created 0700, or found so. Anything else could be
// somebody else's trap in a shared temporary folder.
Status check_private(const std::string& dir) {
  struct stat info {};
  if (lstat(dir.c_str(), &info) != 0) return errno_status("directory " + dir, errno);
  const char* found = nullptr;
  if (!S_ISDIR(info.st_mode)) found = "something that is no directory";
  if (S_ISLNK(info.st_mode)) found = "a symbolic link";
  if (found != nullptr) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("{}: found {} (expected a directory)", dir, found),
                  "Remove it or name endpoints in the deployment");
  }
  if (info.st_uid != geteuid()) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: found owner {} (expected {})", dir, info.st_uid, geteuid()),
                  "Name endpoints in the deployment");
  }
  if ((info.st_mode & 077) != 0) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: found mode {:04o} (expected 0700)", dir, info.st_mode & 07777),
                  "chmod 700 " + dir);
  }
  return Status();
}

Status private_directory(const std::string& dir) {
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return errno_status("directory " + dir, errno);
  }
  return check_private(dir);
}

const char* absolute_variable(const char* name) {
  const char* value = std::getenv(name);
  // The base directory specification: relative values are invalid and ignored.
  return value != nullptr && value[0] == '/' ? value : nullptr;
}

}  // namespace

Result<std::string> default_runtime_dir() {
  const std::string dir = wire::runtime_dir();
  const Status status = private_directory(dir);
  if (!status.ok()) return status;
  return dir;
}

Status check_runtime_dir() {
  struct stat info {};
  const std::string dir = wire::runtime_dir();
  return lstat(dir.c_str(), &info) != 0 && errno == ENOENT ? Status() : check_private(dir);
}

Result<std::string> default_state_dir() {
  if (const char* state = absolute_variable("XDG_STATE_HOME")) {
    return std::string(state) + "/chimera";
  }
  if (const char* home = absolute_variable("HOME")) {
    return std::string(home) + "/.local/state/chimera";
  }
  return Status(Code::kFailedPrecondition,
                "state: found neither XDG_STATE_HOME nor HOME (expected a directory)",
                "Set `state:` in the deployment");
}

Status fill_defaults(DeploymentConfig* config) {
  if (config->serve.endpoint.empty() || config->control.endpoint.empty()) {
    const Result<std::string> dir = default_runtime_dir();
    if (!dir.ok()) return dir.status();
    if (config->serve.endpoint.empty()) config->serve.endpoint = wire::default_serve_endpoint();
    if (config->control.endpoint.empty()) {
      config->control.endpoint = wire::default_control_endpoint();
    }
  }
  if (config->serve.endpoint == config->control.endpoint) {
    return Status(Code::kInvalidArgument, "serve.endpoint: found " + config->serve.endpoint +
                                              " for control as well (expected two endpoints)");
  }
  if (!config->state_dir.empty()) return Status();
  Result<std::string> dir = default_state_dir();
  if (!dir.ok()) return dir.status();
  config->state_dir = std::move(*dir);
  return Status();
}

}  // namespace chimera
