#include "capacity/crowd.h"

#include <utility>

#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int64_t kPromptTokens = 8;

client::Options crowd_options(const DaemonProcess& daemon) {
  client::Options options;
  options.serve = daemon.serve_endpoint();
  options.control = daemon.control_endpoint();
  return options;
}

}  // namespace

Crowd::Crowd(const DaemonProcess& daemon, int64_t vocab, int64_t answer)
    : vocab_(vocab), answer_(answer), client_(crowd_options(daemon)) {}

Crowd::Seen Crowd::run(int clients, std::function<bool(uint64_t)> over) {
  over_ = std::move(over);
  {
    const MutexLock lock(mutex_);
    seen_ = {};
    running_ = clients;
  }
  for (int c = 0; c < clients; ++c) send(static_cast<uint32_t>(c + 1));
  const MutexLock lock(mutex_);
  ended_.wait(mutex_, [this]() REQUIRES(mutex_) { return running_ == 0; });
  return std::move(seen_);
}

void Crowd::send(uint32_t seed) {
  struct Times {
    double sent = now_s(), last = 0.0;
  };
  auto times = std::make_shared<Times>();
  (void)client_.send(greedy_request(prompt_of(kPromptTokens, vocab_, seed), answer_),
                     [this, seed, times](const client::Result<client::Event>& event) {
                       const double now = now_s();
                       if (event.ok() && event->is_token())
                         return note_token(now, times->sent, std::exchange(times->last, now));
                       if (event.ok() && !event->is_final()) return;
                       if (note_end(event.ok() && !event->is_error())) send(seed + 100'000);
                     });
}

void Crowd::note_token(double now, double sent, double last) {
  const MutexLock lock(mutex_);
  ++seen_.tokens;
  if (last == 0.0)
    seen_.first_ms.push_back(1e3 * (now - sent));
  else
    seen_.gap_ms.push_back(1e3 * (now - last));
}

bool Crowd::note_end(bool answered) {
  const MutexLock lock(mutex_);
  ++(answered ? seen_.answers : seen_.failed);
  // One that was refused would only ask again, without end.
  if (answered && !over_(seen_.answers)) return true;
  if (--running_ == 0) ended_.notify_all();
  return false;
}

}  // namespace chimera::bench
