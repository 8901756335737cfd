// Authority: who is admitted now. It keeps the clients file as it was read last, reads it again
// when it changes, and tells when somebody's rights did.
//
// A connection is known by its mark, which the handshake gives it and no peer can choose:
// "key:<public key>" over CURVE, "uid:<number>" over ipc, "loopback" where the deployment says
// `insecure: loopback`. What a mark may do is looked up with every call.
//
// A file that cannot be read or has problems changes nothing: the log says so, and who was admitted
// stays so.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/security/clients_file.h"
#include "daemon/security/principal.h"

namespace chimera {

class Authority {
 public:
  struct Options {
    std::string clients;  // file or directory; empty: nobody but this user
    /// How often the file and the clocks are looked at. Who goes is cut off within a second.
    std::chrono::milliseconds interval{250};
  };
  /// Reads the clients file; its problems are this call's.
  static Result<std::unique_ptr<Authority>> start(Options options);
  ~Authority();
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  /// Null when there is no such client, or not any more.
  PrincipalPtr find(const std::string& mark) const;
  /// Whether the list names users other than this one: then others may open the ipc sockets.
  bool admits_other_users() const;
  /// Reads the clients file now, whether or not it changed.
  Status reload();
  /// `changed` is called after the rights of somebody may have changed; one listener, none: {}.
  void listen(std::function<void()> changed);

 private:
  explicit Authority(Options options);
  void watch();
  void look();
  void tell();

  const Options options_;
  const uid_t own_uid_;
  const PrincipalPtr self_, loopback_;

  mutable Mutex mutex_;
  CondVar wake_;
  ClientList list_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  Mutex read_mutex_;  // one reading at a time
  std::string signature_ GUARDED_BY(read_mutex_);
  Mutex listener_mutex_;
  std::function<void()> changed_ GUARDED_BY(listener_mutex_);
  std::chrono::system_clock::time_point last_look_;  // watching thread only
  std::thread thread_;
};

/// Marks, as the handshake writes them.
std::string key_mark(std::string_view public_key);
std::string uid_mark(uid_t uid);
inline constexpr std::string_view kLoopbackMark = "loopback";

}  // namespace chimera
