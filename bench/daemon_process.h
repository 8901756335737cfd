// A chimerad of the bench's own: private directory, sockets and state, ended with the object.
//
// Thread safety: by the thread that made it; the accessors from any thread while it lives.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace chimera::bench {

struct DeploymentOptions {
  std::string backbone;              // checkpoint directory
  std::string precision = "bf16";    // f32 | bf16 | q8 | q4
  std::vector<std::string> modules;  // directories loaded at start
  int max_sequences = 16;
  int max_context = 1024;
  int max_queue = 64;
  int threads = 0;     // 0 = auto
  int top_k = 0;       // 0 = the checkpoint's own
  bool curve = false;  // over tcp with keys; else over ipc
};

class DaemonProcess {
 public:
  /// Starts the chimerad beside this program; throws std::runtime_error when it cannot.
  explicit DaemonProcess(const DeploymentOptions& options);
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  std::string serve_endpoint() const { return serve_; }
  std::string control_endpoint() const { return "ipc://" + dir_ + "/control.sock"; }
  /// Files of the client's secret and the daemon's public key; "" without keys.
  std::string key_file() const { return curve_ ? dir_ + "/client.key" : ""; }
  std::string server_key_file() const { return curve_ ? dir_ + "/server.pub" : ""; }
  /// Seconds since the epoch of bench::now_s at which the process was started.
  double started_at() const { return started_at_; }
  pid_t pid() const { return pid_; }

 private:
  std::string dir_, serve_;
  bool curve_ = false;
  pid_t pid_ = -1;
  double started_at_ = 0;
};

}  // namespace chimera::bench
