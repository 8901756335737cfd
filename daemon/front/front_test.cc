// The front between plain sockets: a peer outside, a listener in the place of libzmq.
#include "daemon/front/front.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "daemon/front/listener.h"

namespace chimera {
namespace {

constexpr int kPatienceMs = 60'000;

bool readable(int fd, int ms = kPatienceMs) {
  pollfd item{fd, POLLIN, 0};
  return ::poll(&item, 1, ms) == 1;
}
/// `count` bytes, or fewer when the end came.
std::string read_bytes(int fd, size_t count) {
  std::string out;
  while (out.size() < count && readable(fd)) {
    char buffer[4096];
    const ssize_t n = ::recv(fd, buffer, std::min(sizeof buffer, count - out.size()), 0);
    if (n <= 0) break;
    out.append(buffer, static_cast<size_t>(n));
  }
  return out;
}
bool ended(int fd) {
  char byte;
  return readable(fd) && ::recv(fd, &byte, 1, 0) <= 0;
}
void send_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      pollfd item{fd, POLLOUT, 0};
      ::poll(&item, 1, kPatienceMs);
      continue;
    }
    ASSERT_GT(n, 0);
    at += static_cast<size_t>(n);
  }
}

/// Connects a descriptor that is there already.
bool connect_existing(int fd, const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0;
}

std::string greeting(const std::string& mechanism) {
  std::string name = mechanism;
  name.resize(20, '\0');
  return "\xff" + std::string(8, '\0') + "\x7f\x03\x01" + name + std::string(32, '\0');
}
std::string ready() {
  const std::string body =
      std::string("\x05READY\x0bSocket-Type") + std::string("\0\0\0\x06", 4) + "DEALER";
  return "\x04" + std::string(1, static_cast<char>(body.size())) + body;
}

class Fronts : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / "chimera-front-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    auto inner = Listener::bind("ipc://" + dir_ + "/inner", 0600);
    ASSERT_TRUE(inner.ok());
    inner_ = std::make_unique<Listener>(std::move(inner).value());
    options_.endpoints = {{"ipc://" + dir_ + "/outer", Mechanism::kNull, 0600, dir_ + "/inner"}};
    options_.admit = [](const FrontPeer&) { return ReadyProperties{}; };
  }
  void TearDown() override {
    front_.reset();
    inner_.reset();
    std::filesystem::remove_all(dir_);
  }
  void start() {
    auto front = Front::start(options_);
    ASSERT_TRUE(front.ok()) << front.status().to_string();
    front_ = std::move(front).value();
  }
  OwnedFd connect() const { return connect_to(dir_ + "/outer"); }
  OwnedFd accept() const {
    EXPECT_TRUE(readable(inner_->fd()));
    return inner_->accept();
  }

  std::string dir_;
  std::unique_ptr<Listener> inner_;
  Front::Options options_;
  std::unique_ptr<Front> front_;
};

TEST_F(Fronts, BytesGoBothWaysWholeAndInOrder) {
  start();
  OwnedFd peer = connect(), zmq = accept();
  const std::string opening = greeting("NULL") + ready();
  send_all(peer.get(), opening);
  EXPECT_EQ(read_bytes(zmq.get(), opening.size()), opening);
  std::string big;  // frames, as anything else would end it
  for (int i = 0; big.size() < (4u << 20); ++i) {
    const std::string text = std::to_string(i) + std::string(100, 'x');
    big += std::string("\0", 1) + static_cast<char>(text.size()) + text;
  }
  for (auto [from, to] : {std::pair{peer.get(), zmq.get()}, std::pair{zmq.get(), peer.get()}}) {
    std::thread sender([&, at = from] { send_all(at, big); });
    EXPECT_TRUE(read_bytes(to, big.size()) == big);
    sender.join();
  }
  const auto told = front_->next_accepted(0);
  ASSERT_TRUE(told);
  EXPECT_EQ(told->uid, geteuid());
  EXPECT_FALSE(front_->next_accepted(0));
}

TEST_F(Fronts, AnEndIsHandedOnAfterWhatCameBefore) {
  start();
  {
    OwnedFd peer = connect(), zmq = accept();
    send_all(zmq.get(), "last words");
    zmq.reset();
    EXPECT_EQ(read_bytes(peer.get(), 100), "last words");
  }
  OwnedFd peer = connect(), zmq = accept();
  send_all(peer.get(), greeting("NULL"));
  peer.reset();
  EXPECT_EQ(read_bytes(zmq.get(), 100), greeting("NULL"));
  EXPECT_TRUE(ended(zmq.get()));
}

// libzmq ends its process when a connection hangs up that it is not reading (link.h).
TEST_F(Fronts, WhatLibzmqHoldsNeverHangsUp) {
  start();
  const auto hung_up = [](int fd) {
    pollfd item{fd, 0, 0};
    return ::poll(&item, 1, 0) != 0;
  };
  for (const bool told_by_number : {false, true}) {
    OwnedFd peer = connect(), zmq = accept();
    const auto known = front_->next_accepted(0);
    ASSERT_TRUE(known);
    send_all(peer.get(), greeting("NULL") + ready());
    if (told_by_number) {
      EXPECT_EQ(read_bytes(zmq.get(), 1).size(), 1u);  // so that it was passed on
      front_->hang_up(known->number);
      EXPECT_TRUE(ended(peer.get()));
    } else {
      peer.reset();
    }
    while (!ended(zmq.get())) {
    }
    EXPECT_FALSE(hung_up(zmq.get()));
    send_all(zmq.get(), std::string(4u << 20, 'x'));  // and what it writes goes somewhere
    EXPECT_FALSE(hung_up(zmq.get()));
  }
}

TEST_F(Fronts, NoMoreConnectionsThanMayBe) {
  options_.endpoints[0].most = 4;
  start();
  std::vector<OwnedFd> peers, inner;
  for (int i = 0; i < 4; ++i) {
    peers.push_back(connect());
    inner.push_back(accept());
  }
  for (int i = 0; i < 20; ++i) {
    const OwnedFd more = connect();
    EXPECT_TRUE(ended(more.get()));
  }
  peers.pop_back();
  EXPECT_TRUE(ended(inner.back().get()));
  EXPECT_TRUE(ended(connect().get())) << "libzmq has not closed its side yet";
  inner.pop_back();
  for (int i = 0; i < 3000 && !readable(inner_->fd(), 20); ++i) peers.back() = connect();
  EXPECT_TRUE(accept().valid());
}

TEST_F(Fronts, OfOneHostFewer) {
  // The port of a socket that is closed again.
  auto probe = Listener::bind("tcp://127.0.0.1:0", 0);
  ASSERT_TRUE(probe.ok());
  sockaddr_in name{};
  socklen_t size = sizeof name;
  ASSERT_EQ(::getsockname(probe->fd(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  const std::string address = "tcp://127.0.0.1:" + std::to_string(ntohs(name.sin_port));
  { const Listener closed = std::move(probe).value(); }
  options_.endpoints[0].address = address;
  options_.endpoints[0].most_per_host = 2;
  start();
  std::vector<OwnedFd> peers;
  for (int i = 0; i < 3; ++i) {
    peers.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(peers.back().get(), reinterpret_cast<sockaddr*>(&name), size), 0);
  }
  EXPECT_TRUE(ended(peers[2].get()));
  EXPECT_FALSE(readable(peers[0].get(), 0));
  EXPECT_EQ(front_->next_accepted(0)->address.substr(0, 10), "127.0.0.1:");
}

TEST_F(Fronts, WhoIsNotAdmittedIsTold) {
  options_.admit = [](const FrontPeer&) { return std::nullopt; };
  start();
  OwnedFd peer = connect(), zmq = accept();
  send_all(peer.get(), greeting("NULL"));
  EXPECT_EQ(read_bytes(zmq.get(), 64), greeting("NULL"));
  send_all(zmq.get(), greeting("NULL") + ready());
  EXPECT_EQ(read_bytes(peer.get(), 64), greeting("NULL"));
  send_all(peer.get(), ready());
  EXPECT_EQ(read_bytes(peer.get(), 12), std::string("\x04\x0a\x05"
                                                    "ERROR\x03"
                                                    "400"));
  peer.reset();
  EXPECT_TRUE(ended(zmq.get()));  // and nothing of READY
}

TEST_F(Fronts, AConnectionIsHungUpByItsNumber) {
  start();
  OwnedFd one = connect(), of_one = accept(), two = connect(), of_two = accept();
  const auto first = front_->next_accepted(0);
  ASSERT_TRUE(first);
  send_all(of_one.get(), "you are out");
  EXPECT_TRUE(readable(one.get()));
  front_->hang_up(first->number);
  EXPECT_EQ(read_bytes(one.get(), 100), "you are out");
  EXPECT_TRUE(ended(of_one.get()));
  EXPECT_FALSE(readable(two.get(), 0));
}

// Its place is not its own for ever: libzmq's heartbeats end it.
TEST_F(Fronts, WhoIsHungUpAndTakesNothingGoes) {
  options_.endpoints[0].most = 1;
  start();
  OwnedFd peer = connect(), zmq = accept();
  const auto known = front_->next_accepted(0);
  ASSERT_TRUE(known);
  const std::string much(64 << 10, 'x');
  // More than the front and two sockets take.
  pollfd room{zmq.get(), POLLOUT, 0};
  while (::poll(&room, 1, 300) == 1) ::send(zmq.get(), much.data(), much.size(), MSG_NOSIGNAL);
  front_->hang_up(known->number);
  zmq.reset();
  OwnedFd next;
  for (int i = 0; i < 3000 && !readable(inner_->fd(), 20); ++i) next = connect();
  EXPECT_TRUE(accept().valid());
}

TEST_F(Fronts, WithoutDescriptorsItWaitsAndGoesOn) {
  start();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<OwnedFd> peers;
  for (int i = 0; i < 8; ++i) peers.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(peers.back().get()) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  // Connecting needs no new descriptor here; accepting there does.
  for (OwnedFd& peer : peers) {
    EXPECT_TRUE(connect_existing(peer.get(), dir_ + "/outer"));
  }
  EXPECT_FALSE(readable(inner_->fd(), 300));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(accept().valid());
}

TEST_F(Fronts, TheSocketHasItsModeAndGoesWithTheFront) {
  options_.endpoints[0].mode = 0666;
  start();
  struct stat info {};
  ASSERT_EQ(stat((dir_ + "/outer").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777u, 0666u);
  front_.reset();
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/outer"));
}

}  // namespace
}  // namespace chimera
