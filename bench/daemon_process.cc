#include "daemon_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "clients/keys/certificate.h"
#include "stats.h"

extern char** environ;

namespace chimera::bench {
namespace {

/// A port of the loopback interface that is free now.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool bound = fd >= 0 && ::bind(fd, any, size) == 0 && ::getsockname(fd, any, &size) == 0;
  if (fd >= 0) ::close(fd);
  if (!bound) throw std::runtime_error(fmt::format("a free port: {}", std::strerror(errno)));
  return ntohs(address.sin_port);
}

keys::Certificate make_keys(const std::string& dir, const std::string& name) {
  const auto made = keys::make_certificate(name);
  const Status status = made.ok() ? keys::write_certificate(*made, dir) : made.status();
  if (!status.ok()) throw std::runtime_error(status.to_string());
  return *made;
}

/// Keys of both sides, and what the deployment says of them.
std::string write_security(const std::string& dir) {
  (void)make_keys(dir, "server");
  const keys::Certificate client = make_keys(dir, "client");
  std::ofstream(dir + "/clients.yaml") << "chimera: clients/1\nclients:\n  - {name: bench, roles: "
                                          "[admin], modules: all, public_key: '"
                                       << client.public_key << "'}\n";
  return fmt::format("security: {{key: {}/server.key, clients: {}/clients.yaml}}\n", dir, dir);
}

std::string write_config(const std::string& dir, const std::string& serve,
                         const DeploymentOptions& o) {
  std::string text = fmt::format(
      "chimera: deployment/1\nbackbone:\n  path: {}\n  precision: {}\nserve:\n"
      "  endpoint: {}\n  max_sequences: {}\n  max_context: {}\n  max_queue: {}\ncontrol:\n"
      "  endpoint: ipc://{}/control.sock\nstate: {}/state\nthreads: {}\n"
      "libraries: {{in_process: allow}}\n",
      std::filesystem::absolute(o.backbone).string(), o.precision, serve, o.max_sequences,
      o.max_context, o.max_queue, dir, dir, o.threads == 0 ? "auto" : std::to_string(o.threads));
  if (o.curve) text += write_security(dir);
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

DaemonProcess::DaemonProcess(const DeploymentOptions& options) : curve_(options.curve) {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/chimera-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error(fmt::format("{}: {}", pattern, std::strerror(errno)));
  dir_ = pattern;
  serve_ =
      curve_ ? fmt::format("tcp://127.0.0.1:{}", free_port()) : "ipc://" + dir_ + "/serve.sock";
  const std::string config = write_config(dir_, serve_, options);
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
