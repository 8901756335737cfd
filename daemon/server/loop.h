// The IO thread: owns both ROUTER sockets and the table of live requests.
//
// It knows frames, ids and clients, and nothing of what a call means: that is the handler's.
// Thread safety: public methods may be called from any thread; the handler runs on the IO thread
// and must not block.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "clients/wire/protocol.h"
#include "daemon/security/audit_log.h"
#include "daemon/security/authority.h"
#include "daemon/server/answers/live.h"
#include "daemon/server/decoding/decoder.h"
#include "daemon/server/private_directory.h"
#include "daemon/server/socket.h"

namespace chimera {

struct ServerCounters {
  std::atomic<uint64_t> requests{0};      // decoded
  std::atomic<uint64_t> refused{0};       // answered with an error before any work
  std::atomic<uint64_t> slow_clients{0};  // requests ended because nobody read their answers
  std::atomic<uint64_t> gone_clients{0};  // connections lost with requests in progress
  std::atomic<uint64_t> live{0};          // now
  std::atomic<uint64_t> clients{0};       // connections with requests in progress, now
};

/// Answers to changes that are made, until the record of each is on disk.
class UnrecordedAnswers {
 public:
  void add() {
    const MutexLock lock(mutex_);
    ++count_;
  }
  void remove() {
    const MutexLock lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  /// Whether there are none any more, in the end.
  bool wait(std::chrono::milliseconds timeout) {
    const MutexLock lock(mutex_);
    return none_.wait_for(mutex_, timeout, [this]() REQUIRES(mutex_) { return count_ == 0; });
  }

 private:
  Mutex mutex_;
  CondVar none_;
  size_t count_ GUARDED_BY(mutex_) = 0;
};

class ServerLoop {
 public:
  struct Options {
    std::string serve_endpoint, control_endpoint;
    bool serve_insecure = false;                // over tcp without keys
    std::string secret_key;                     // of the daemon, Z85; for tcp
    bool other_users = false;                   // ipc sockets that other users may open
    std::string private_directory;              // made for the time of the loop
    size_t max_connections = 256;               // a quarter of them kept for control
    Authority* authority = nullptr;             // outlives the loop
    AuditLog* audit = nullptr;                  // likewise; null: no record
    std::function<uint64_t()> epoch = nullptr;  // of the record; empty: 0
    /// Ends the job of that id; false when there is none in progress. Empty: there are no jobs.
    std::function<bool(const std::string& id)> cancel_job = nullptr;
    size_t live_per_client = 64;
    size_t queued_per_request = 256;
    std::chrono::milliseconds slow_cutoff{10'000};  // a full pipe for this long: cut off
    std::chrono::milliseconds flush{1'000};         // for what is left at the end
    /// So long a connection outlives the refusal of its last request, for its peer to read it.
    std::chrono::milliseconds last_word{200};
    /// So long a connection outlives its last answer when the loop ends: a peer may lose what it
    /// has not read yet when it learns of the end (ZMQ_IMMEDIATE does that).
    std::chrono::milliseconds hang_up{200};
    Decoder::Decode decode = chimera::decode;  // but for tests
  };
  /// `counters` outlives the loop.
  /// Takes a decoded request; it ends when `live` got its done, error or answer.
  using Handler = std::function<void(std::shared_ptr<Live> live, wire::Call call)>;

  static Result<std::unique_ptr<ServerLoop>> start(Options options, ServerCounters& counters,
                                                   Handler handler);
  /// stop()
  ~ServerLoop();

  /// Cancels what is live, sends what is queued (at most options.flush) and closes the sockets.
  void stop();
  /// Waits until no change that was made keeps its answer for want of its record on disk; false
  /// when `timeout` passed first. What is not recorded when the loop stops is not answered any
  /// more.
  bool await_records(std::chrono::milliseconds timeout) const { return unrecorded_->wait(timeout); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Client {
    std::map<std::string, std::shared_ptr<Live>> live;  // by request id
    int fd = -1;
  };
  using ClientKey = std::pair<size_t, std::string>;  // port, routing id
  struct Blocked {
    std::shared_ptr<Live> live;
    Clock::time_point since;
  };

  ServerLoop(Options options, ServerCounters& counters, Handler handler);
  Status open_sockets();
  void run();
  bool step();  // false: time to end
  void begin_stop();
  void receive(size_t port);
  /// A message of two frames: small ones are read at once, unless larger ones of the same peer are
  /// being read.
  void handle(Incoming incoming);
  void handle_decoded();
  /// `fd`: of the peer's connection; -1 when that has ended.
  void handle(Peer& peer, int fd, Decoded decoded);
  /// Who asks; refuses and returns false if he is no client (any more).
  bool known(Peer& peer, std::string_view id, int fd);
  /// Whether he may; refuses and returns false if not.
  bool allowed(const Peer& peer, const wire::Request& request, const AuditEntry& entry);
  /// `entry`: of the record. `text`: of the frame that the request was in.
  void dispatch(const Peer& peer, wire::Request request, const AuditEntry& entry, std::string text);
  /// What only the loop knows.
  void carry_out(const Peer& peer, const wire::Request& request, AuditEntry entry);
  /// The entry of a call as far as it is known when it comes; "" of one that could not be read.
  AuditEntry audit_entry(const Peer& peer, std::string_view call, Json arguments) const;
  /// `then` is called once it is on disk; empty: nobody waits for that.
  void record(AuditEntry entry, const Status& outcome, std::function<void()> then = nullptr) const;
  void record_unread(const Peer& peer, const wire::Error& error) const;
  /// The rights of clients have changed: ends what may not go on.
  void review_rights();
  /// Whether whoever sent it still may.
  Status review(const Live& live, PrincipalPtr* now) const;
  /// Takes note of a request that is answered, or whose client is gone: a change may still be made.
  void leave(const std::shared_ptr<Live>& live);
  void cut_off_later(size_t port, int fd);
  void cut_off();
  void answer_cancel(const Peer& peer, const wire::Request& request);
  void answer_cancel_any(const Peer& peer, const wire::Request& request);
  void answer_requests(const Peer& peer, const wire::Request& request);
  void refuse(const Peer& peer, std::string_view id, const wire::Error& error);
  void notice_disconnects(size_t port);
  bool pump(const std::shared_ptr<Live>& live);  // false: its pipe is full
  void retry_blocked();
  /// Whether a peer may still be reading an answer; one that hung up has read it.
  bool answers_being_read();
  void forget(const Live& live);
  void drop_client(const ClientKey& key, std::atomic<uint64_t>& counter);

  const Options options_;
  ServerCounters& counters_;
  const Handler handler_;
  const std::shared_ptr<Ready> ready_ = std::make_shared<Ready>();
  // The record may outlast the loop.
  const std::shared_ptr<UnrecordedAnswers> unrecorded_ = std::make_shared<UnrecordedAnswers>();
  std::atomic<bool> stopping_{false};
  std::atomic<bool> rights_changed_{false};
  std::thread thread_;

  // IO thread only, from here on.
  std::unique_ptr<PrivateDirectory> directory_;
  std::unique_ptr<Front> front_;
  std::shared_ptr<SocketContext> context_;
  std::array<std::unique_ptr<RouterSocket>, 2> sockets_;
  std::map<ClientKey, Client> clients_;
  std::vector<std::weak_ptr<Live>> left_;  // for as long as whoever makes the change keeps them
  std::vector<Blocked> blocked_;
  using Descriptor = std::pair<size_t, int>;  // port, descriptor
  std::map<Descriptor, Clock::time_point> answered_;
  struct Cut {
    size_t port;
    int fd;
    Clock::time_point at;
  };
  std::map<Descriptor, Peer> connections_;  // that asked for something
  struct Sender {
    Peer peer;
    int fd = -1;  // -1: its connection has ended
  };
  /// Of what the decoder holds. By routing id: the next connection may have the descriptor before
  /// the message was read, and must not be taken for its sender.
  std::map<Decoder::Connection, Sender> senders_;
  std::vector<Cut> cuts_;
  std::optional<Clock::time_point> stop_at_;
  Decoder decoder_;
};

}  // namespace chimera
