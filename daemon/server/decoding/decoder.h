// Decoder: reads the JSON of requests on a thread of its own, so that the IO thread never waits for
// a large one of anybody's.
//
// Connections take turns, each with a budget of bytes: one whose message is larger saves up for it
// while the others have theirs (deficit round robin; Shreedhar & Varghese 1995). So whoever sends
// little waits for the message being read and for a turn of the others, however much they sent.
//
// Invariants: (1) what came through one connection is given out in the order in which it came; (2)
// of what was posted for a connection before it was forgotten nothing is given out any more.
//
// What waits is not bounded here: the front, which learns late what was taken, hands on no more
// than some MiB of a connection (daemon/front/frame_meter.h).
//
// Thread safety: all methods may be called from any thread. `woken` is called on the decoder's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/json/json.h"
#include "base/threads/mutex.h"
#include "clients/wire/protocol.h"

namespace chimera {

/// A message whose frames are in order: the text of its request.
struct Undecoded {
  std::string text;
  bool delimiter = false;  // its peer is a REQ socket
  uint64_t cost = 0;       // for the front: FrameMeter::cost_of its frames
};

struct Decoded {
  Undecoded message;
  std::string id;  // "" when it could not be read
  std::variant<wire::Request, wire::Error> request;
  Json arguments;  // of a control call, as the record has them; else empty
};

/// The fields of a control call as they were sent.
Json arguments_of(const wire::Request& request);
/// All of that on the calling thread.
Decoded decode(Undecoded message, wire::Endpoint endpoint);

class Decoder {
 public:
  /// Port and routing id: unlike a descriptor, no other connection ever has it.
  using Connection = std::pair<size_t, std::string>;
  using Decode = std::function<Decoded(Undecoded, wire::Endpoint)>;

  /// A turn's bytes of one connection: JSON is read at some 10 MB/s where it is all brackets and
  /// numbers, so that is 6 ms.
  static constexpr size_t kTurn = 64u << 10;

  /// `woken` is called when take() has something. `decode` but for tests.
  explicit Decoder(std::function<void()> woken, Decode decode = chimera::decode);
  /// Waits for the message being read; the rest is dropped.
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  void post(const Connection& from, Undecoded message);
  /// Whether something of that connection has not been taken yet: what comes after it has to queue.
  bool holds(const Connection& from) const;
  bool idle() const;
  /// The connection is gone: its messages are dropped.
  void forget(const Connection& from);
  /// What was read since the last call.
  std::vector<std::pair<Connection, Decoded>> take();

 private:
  struct Flow {
    Connection connection;
    std::deque<Undecoded> waiting;
    size_t untaken = 0;  // waiting, being read or read
    size_t credit = 0;   // bytes
    bool gone = false;
  };
  using FlowPtr = std::shared_ptr<Flow>;
  void work();
  /// The flow whose message is to be read next.
  FlowPtr next_turn() REQUIRES(mutex_);

  const std::function<void()> woken_;
  const Decode decode_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<Connection, FlowPtr> flows_ GUARDED_BY(mutex_);  // of which something is untaken
  std::deque<FlowPtr> turns_ GUARDED_BY(mutex_);            // of which something waits
  std::vector<std::pair<FlowPtr, Decoded>> read_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chimera
