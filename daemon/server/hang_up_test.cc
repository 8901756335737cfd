// Ends: the last answers of a loop, as a peer reads them that is in no hurry; and peers that leave
// in the middle of what they say.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <zmq.hpp>

#include "daemon/front/listener.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/loop.h"

namespace chimera {
namespace {

using namespace std::chrono_literals;

/// How long a loop may wait for its readers, where it is not to give up.
constexpr std::chrono::milliseconds kNever{200'000};

class HangUp : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("chimera-hang-" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
    auto authority = Authority::start({});
    ASSERT_TRUE(authority.ok());
    authority_ = std::move(*authority);
    options_.authority = authority_.get();
    options_.private_directory = dir_ / "sockets";
    options_.serve_endpoint = "ipc://" + (dir_ / "serve").string();
    options_.control_endpoint = "ipc://" + (dir_ / "control").string();
  }
  void start(std::chrono::milliseconds hang_up) {
    options_.hang_up = hang_up;
    auto loop = ServerLoop::start(options_, counters_,
                                  [this](const std::shared_ptr<Live>& live, const wire::Call&) {
                                    if (before_answer_) before_answer_();
                                    live->answer(encode_reply(live->id(), {{"status", "ok"}}));
                                  });
    ASSERT_TRUE(loop.ok()) << loop.status().to_string();
    loop_ = std::move(loop).value();
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  /// A peer that queues on completed connections only: libzmq drops what such a one has not read
  /// when it learns of the end of its connection together with the message.
  zmq::socket_t peer() {
    zmq::socket_t socket(context_, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::immediate, true);
    socket.set(zmq::sockopt::rcvtimeo, 60'000);
    socket.connect(options_.serve_endpoint);
    return socket;
  }
  static void ask(zmq::socket_t& socket) {
    socket.send(zmq::buffer(wire::kMagic), zmq::send_flags::sndmore);
    socket.send(zmq::str_buffer(R"({"id":"h","call":"health"})"));
  }
  void wait_until_answered() {
    while (counters_.requests == 0 || counters_.live > 0) std::this_thread::sleep_for(1ms);
  }

  std::filesystem::path dir_;
  zmq::context_t context_;
  std::unique_ptr<Authority> authority_;
  ServerLoop::Options options_;
  ServerCounters counters_;
  std::function<void()> before_answer_;  // on the IO thread
  std::unique_ptr<ServerLoop> loop_;
};

/// A peer that speaks ZMTP itself, up to READY of the other side.
OwnedFd shake_hands(const std::string& path) {
  using namespace std::string_literals;
  OwnedFd fd = connect_to(path);
  const std::string ready = "\x05READY\x0bSocket-Type\0\0\0\x06"s + "DEALER";
  const std::string opening = "\xff"s + std::string(8, '\0') + "\x7f\x03\x01NULL"s +
                              std::string(48, '\0') + "\x04" + static_cast<char>(ready.size()) +
                              ready;
  EXPECT_EQ(::send(fd.get(), opening.data(), opening.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(opening.size()));
  std::string got;
  while (got.find("READY") == std::string::npos) {
    pollfd item{fd.get(), POLLIN, 0};
    char buffer[256];
    if (::poll(&item, 1, 60'000) != 1) break;
    const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (n <= 0) break;
    got.append(buffer, static_cast<size_t>(n));
  }
  EXPECT_NE(got.find("READY"), std::string::npos);
  return fd;
}

TEST_F(HangUp, AnAnswerIsReadAlthoughTheLoopEndsAtOnce) {
  start(kNever);
  zmq::socket_t slow = peer();
  ask(slow);
  wait_until_answered();
  std::thread ending([this] { loop_.reset(); });
  std::this_thread::sleep_for(50ms);
  zmq::message_t frame;
  EXPECT_TRUE(slow.recv(frame)) << "the answer was lost with the connection";
  EXPECT_EQ(frame.to_string(), wire::kMagic);
  ending.join();
}

TEST_F(HangUp, TheLoopDoesNotWaitForWhoReadAndLeft) {
  start(kNever);
  {
    zmq::socket_t quick = peer();
    ask(quick);
    zmq::message_t frame;
    ASSERT_TRUE(quick.recv(frame));
  }
  const auto begin = std::chrono::steady_clock::now();
  loop_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kNever / 2);
}

// Who was answered long ago has read, if ever it will.
TEST_F(HangUp, TheLoopDoesNotWaitForWhoStays) {
  start(200ms);
  zmq::socket_t idle = peer();
  ask(idle);
  wait_until_answered();
  loop_.reset();  // would never return
}

// libzmq stops to read a peer of which 64 messages wait. If the connection hangs up then, an answer
// to a heartbeat behind them, or its own next heartbeat, ends the process (front/link.h).
TEST_F(HangUp, NobodyEndsTheProcessByLeavingBehindAHeartbeat) {
  using namespace std::string_literals;
  std::promise<void> held, go_on;
  before_answer_ = [&, first = true]() mutable {
    if (!std::exchange(first, false)) return;
    held.set_value();
    go_on.get_future().wait();
  };
  start(kNever);
  zmq::socket_t first = peer();
  ask(first);
  held.get_future().wait();  // from here to go_on nothing is received
  const std::string path = dir_ / "serve";
  for (int i = 0; i < 4; ++i) {
    const OwnedFd hostile = shake_hands(path);
    std::string all;
    for (int message = 0; message < 100; ++message) all += "\0\x05hello"s;
    all += "\x04\x07\x04PING\0\0"s;
    EXPECT_EQ(::send(hostile.get(), all.data(), all.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(all.size()));
  }
  // What libzmq was told of those ends it knows when it has shaken hands with others.
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(shake_hands(path).valid());
  go_on.set_value();
  zmq::message_t frame;
  EXPECT_TRUE(first.recv(frame));
  zmq::socket_t next = peer();
  ask(next);
  EXPECT_TRUE(next.recv(frame));
}

}  // namespace
}  // namespace chimera
