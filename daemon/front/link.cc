#include "daemon/front/link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log/log.h"

namespace chimera {
namespace {

// What ZAP answers to those who are not admitted.
constexpr std::string_view kRefused = "400";
// Some messages of the largest kind (4 MiB) may wait to be taken.
constexpr uint64_t kMostHeld = 16u << 20;
// Reads of 16 KiB before the other connections get their turn.
constexpr int kReadBatch = 16;

}  // namespace

bool Pipe::write_to(int fd) {
  while (!empty()) {
    const ssize_t n = ::send(fd, bytes_.data() + at_, bytes_.size() - at_, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    at_ += static_cast<size_t>(n);
  }
  bytes_.clear();
  at_ = 0;
  return true;
}

Link::Link(FrontPeer peer, std::string origin, OwnedFd outer, OwnedFd inner, Handshake handshake,
           bool admitted)
    : peer_(std::move(peer)),
      origin_(std::move(origin)),
      outer_(std::move(outer)),
      inner_(std::move(inner)),
      handshake_(std::move(handshake)),
      meter_(handshake_.mechanism()),
      admitted_(admitted) {}

Link::Read Link::read(int fd, size_t most, std::string* out) {
  std::array<char, 16 << 10> buffer;
  const ssize_t n = ::recv(fd, buffer.data(), std::min(most, buffer.size()), 0);
  if (n > 0) return out->append(buffer.data(), static_cast<size_t>(n)), Read::kSome;
  if (n == 0) return Read::kEnd;
  return errno == EAGAIN || errno == EINTR ? Read::kNothing : Read::kBroken;
}

Result<std::string> Link::look_at(std::string bytes) {
  const size_t greeting = std::min(handshake_.greeting_missing(), bytes.size());
  auto passed_on =
      handshake_.done() ? Result<std::string>(std::move(bytes)) : handshake_.feed(bytes);
  if (!passed_on.ok()) return passed_on;
  CHIMERA_RETURN_IF_ERROR(meter_.feed(std::string_view(*passed_on).substr(greeting)));
  return passed_on;
}

bool Link::has_to_wait() {
  waits_ = held() > kMostHeld;
  if (!waits_) return false;
  peer_.taken->waited_for = true;
  waits_ = held() > kMostHeld;  // what was taken before the server could know is seen now
  return waits_;
}

bool Link::take_outer() {
  for (int i = 0; i < kReadBatch; ++i) {
    if (outer_ended_ || to_inner_.room() == 0 || has_to_wait()) return true;
    std::string bytes;
    switch (read(outer_.get(), to_inner_.room(), &bytes)) {
      case Read::kBroken:
        return false;
      case Read::kEnd:
        outer_ended_ = true;
        continue;
      case Read::kNothing:
        return true;
      case Read::kSome:
        break;
    }
    auto passed_on = look_at(std::move(bytes));
    if (!passed_on.ok()) {
      log::debug("connection_refused",
                 {{"peer", peer_.address}, {"reason", passed_on.status().message()}});
      return false;
    }
    if (handshake_.done() && !admitted_) {
      // It reads that and goes; else libzmq, who waits for its READY, ends the connection.
      if (!std::exchange(told_no_, true)) to_outer_.add(error_command(kRefused));
      if (!to_outer_.write_to(outer_.get())) return false;
      continue;
    }
    progress_ += passed_on->size();
    to_inner_.add(*passed_on);
    if (!to_inner_.write_to(inner_.get())) return false;
  }
  return true;
}

bool Link::take_inner() {
  for (int i = 0; i < kReadBatch; ++i) {
    if (inner_ended_ || to_outer_.room() == 0) return true;
    std::string bytes;
    switch (read(inner_.get(), to_outer_.room(), &bytes)) {
      case Read::kBroken:
        return false;
      case Read::kEnd:
        inner_ended_ = true;
        continue;
      case Read::kNothing:
        return true;
      case Read::kSome:
        break;
    }
    if (!admitted_) {  // libzmq's READY would come before our ERROR
      bytes.resize(std::min(bytes.size(), greeting_left_));
      greeting_left_ -= bytes.size();
    }
    to_outer_.add(bytes);
    if (!to_outer_.write_to(outer_.get())) return false;
  }
  return true;
}

bool Link::move() {
  if (!to_inner_.write_to(inner_.get())) return false;
  if (!to_outer_.write_to(outer_.get())) return false;
  // libzmq's heartbeats end one that takes nothing.
  if (closing_) return !to_outer_.empty() && await_inner_end();
  if (!take_outer() || !take_inner()) return false;
  // Who has ended gets what the other still had to say, and nothing is waited for.
  if (outer_ended_) return !to_inner_.empty();
  return !inner_ended_ || !to_outer_.empty();
}

void Link::part() {
  parting_ = true;
  outer_.reset();
  told[static_cast<size_t>(Side::kOuter)] = 0;  // epoll forgets what is closed
  to_inner_ = to_outer_ = {};
  ::shutdown(inner_.get(), SHUT_WR);
}

bool Link::await_inner_end() {
  for (int i = 0; i < kReadBatch; ++i) {
    std::string bytes;
    switch (read(inner_.get(), Pipe::kMost, &bytes)) {
      case Read::kSome:
        continue;
      case Read::kNothing:
        return true;
      case Read::kEnd:
      case Read::kBroken:
        return false;
    }
  }
  return true;
}

bool Link::pump() {
  if (!parting_ && !move()) part();
  return !parting_ || await_inner_end();
}

uint32_t Link::interest(Side side) const {
  const bool outer = side == Side::kOuter;
  if (parting_) return outer ? 0 : uint32_t{EPOLLIN};
  const bool goes_on = outer ? !outer_ended_ && !waits_ && to_inner_.room() > 0
                             : !inner_ended_ && to_outer_.room() > 0;
  const bool reads = closing_ ? !outer : goes_on;
  const bool writes = !(outer ? to_outer_ : to_inner_).empty();
  return (reads ? uint32_t{EPOLLIN} : 0) | (writes ? uint32_t{EPOLLOUT} : 0);
}

}  // namespace chimera
