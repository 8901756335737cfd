// The last answers of a loop that ends, as a peer reads them that is in no hurry.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <zmq.hpp>

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
                                  [](const std::shared_ptr<Live>& live, const wire::Call&) {
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
  std::unique_ptr<ServerLoop> loop_;
};

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

}  // namespace
}  // namespace chimera
