#include "daemon_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "stats.h"

extern char** environ;

namespace chimera::bench {
namespace {

std::string write_config(const std::string& dir, const DeploymentOptions& o) {
  std::string text = fmt::format(
      "chimera: deployment/1\nbackbone:\n  path: {}\n  precision: {}\nserve:\n"
      "  endpoint: ipc://{}/serve.sock\n  max_sequences: {}\n  max_context: {}\n"
      "  max_queue: {}\ncontrol:\n"
      "  endpoint: ipc://{}/control.sock\nstate: {}/state\nthreads: {}\n"
      "libraries: {{in_process: allow}}\n",
      std::filesystem::absolute(o.backbone).string(), o.precision, dir, o.max_sequences,
      o.max_context, o.max_queue, dir, dir, o.threads == 0 ? "auto" : std::to_string(o.threads));
  if (o.top_k > 0 || !o.modules.empty()) text += "composition:\n";
  if (o.top_k > 0) text += fmt::format("  top_k: {}\n", o.top_k);
  if (!o.modules.empty()) text += "  modules:\n";
  for (const std::string& m : o.modules)
    text += fmt::format("    - path: {}\n", std::filesystem::absolute(m).string());
  const std::string path = dir + "/deployment.yaml";
  std::ofstream(path) << text;
  return path;
}

}  // namespace

DaemonProcess::DaemonProcess(const DeploymentOptions& options) {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/chimera-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error(fmt::format("{}: {}", pattern, std::strerror(errno)));
  dir_ = pattern;
  const std::string config = write_config(dir_, options);
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path().string() + "/chimerad";
  const std::string log = dir_ + "/daemon.log";

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  const char* argv[] = {program.c_str(), "--config", config.c_str(), nullptr};
  started_at_ = now_s();
  const int error = posix_spawn(&pid_, program.c_str(), &actions, nullptr,
                                const_cast<char* const*>(argv), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    std::filesystem::remove_all(dir_);
    throw std::runtime_error(fmt::format("{}: {}", program, std::strerror(error)));
  }
}

DaemonProcess::~DaemonProcess() {
  ::kill(pid_, SIGTERM);
  ::kill(pid_, SIGTERM);  // the second one stops at once
  ::waitpid(pid_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

}  // namespace chimera::bench
