// The IO loop against raw ZeroMQ peers, with a handler that stands in for the engine.
#include "daemon/server/loop.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <zmq.hpp>

#include "base/json/testing.h"
#include "base/json/writer.h"
#include "daemon/server/answers/events.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

template <class Condition>
bool eventually(Condition condition, milliseconds patience = milliseconds(60'000)) {
  const auto end = steady_clock::now() + patience;
  while (!condition()) {
    if (steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

/// A client socket that sends and receives raw frames.
class Raw {
 public:
  /// `immediate`: sends wait for the connection.
  Raw(zmq::context_t& context, zmq::socket_type type, const std::string& endpoint,
      bool immediate = false)
      : socket_(context, type) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.set(zmq::sockopt::immediate, immediate);
    socket_.connect(endpoint);
  }
  void close() { socket_.close(); }
  zmq::socket_t& socket() { return socket_; }
  void send(const std::vector<std::string>& frames) {
    for (size_t i = 0; i < frames.size(); ++i) {
      socket_.send(zmq::buffer(frames[i]),
                   i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }
  void request(const Json& body) { send({"CHIMERA/1", write_json(body)}); }
  /// Empty when nothing came in time.
  std::vector<std::string> receive(int timeout_ms = 60'000) {
    std::vector<std::string> frames;
    socket_.set(zmq::sockopt::rcvtimeo, timeout_ms);
    zmq::message_t frame;
    do {
      if (!socket_.recv(frame)) return {};
      frames.push_back(frame.to_string());
    } while (frame.more());
    return frames;
  }
  Json answer(int timeout_ms = 60'000) {
    const auto frames = receive(timeout_ms);
    return frames.size() < 2 ? Json() : json_of(frames[1]);
  }

 private:
  zmq::socket_t socket_;
};

class Loop : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("chimera-loop-" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
    auto authority = Authority::start({});
    ASSERT_TRUE(authority.ok());
    authority_ = std::move(*authority);
    options_.authority = authority_.get();
    options_.private_directory = dir_ / "sockets";
    options_.serve_endpoint = "ipc://" + (dir_ / "serve").string();
    options_.control_endpoint = "ipc://" + (dir_ / "control").string();
  }
  void TearDown() override {
    loop_.reset();
    context_.close();
    std::filesystem::remove_all(dir_);
  }
  void start(ServerLoop::Handler handler) {
    auto loop = ServerLoop::start(options_, counters_, std::move(handler));
    ASSERT_TRUE(loop.ok()) << loop.status().to_string();
    loop_ = std::move(loop).value();
  }
  /// Answers health at once and keeps every generate in progress.
  ServerLoop::Handler keeping() {
    return [this](std::shared_ptr<Live> live, const wire::Call& call) {
      if (std::holds_alternative<wire::Health>(call)) {
        return live->answer(encode_reply(live->id(), {{"status", "ok"}}));
      }
      live->stream = true;
      live->set_canceller([this, id = live->id()] {
        ++cancelled_;
        const MutexLock lock(mutex_);
        if (const auto it = kept_.find(id); it != kept_.end()) {
          DoneEvent done;
          done.finish_reason = FinishReason::kCancelled;
          it->second->on_done(done);
        }
      });
      const MutexLock lock(mutex_);
      kept_[live->id()] = std::move(live);
    };
  }
  std::shared_ptr<Live> kept(const std::string& id) {
    std::shared_ptr<Live> live;
    EXPECT_TRUE(eventually([&] {
      const MutexLock lock(mutex_);
      if (const auto it = kept_.find(id); it != kept_.end()) live = it->second;
      return live != nullptr;
    }));
    return live;
  }

  std::filesystem::path dir_;
  zmq::context_t context_;
  std::unique_ptr<Authority> authority_;
  ServerLoop::Options options_;
  ServerCounters counters_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Live>> kept_ GUARDED_BY(mutex_);
  std::atomic<int> cancelled_{0};
  std::unique_ptr<ServerLoop> loop_;
};

Json health(const std::string& id) { return {{"id", id}, {"call", "health"}}; }
Json generate(const std::string& id) { return {{"id", id}, {"call", "generate"}, {"prompt", "x"}}; }
TokenEvent token(int32_t id) { return {id, "t", std::nullopt, 1}; }

TEST_F(Loop, DealerAndReqGetTheirFrames) {
  start(keeping());
  Raw dealer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  dealer.request(health("h1"));
  EXPECT_EQ(dealer.receive().at(0), "CHIMERA/1");
  Raw req(context_, zmq::socket_type::req,
          options_.serve_endpoint);  // its socket adds and wants the delimiter
  req.request(health("h2"));
  const auto frames = req.receive();
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(json_of(frames[1])["id"], "h2");
}

TEST_F(Loop, SocketsAreForTheirOwnerOnly) {
  start(keeping());
  for (const char* name : {"serve", "control"}) {
    struct stat found {};
    ASSERT_EQ(::stat((dir_ / name).c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777u, 0600u);
  }
}

TEST_F(Loop, MalformedMessagesGetExactlyOneErrorAndTheLoopLivesOn) {
  start(keeping());
  const std::string good = write_json(health("a"));
  const std::vector<std::vector<std::string>> bad = {
      {"x"},
      {""},
      {"", ""},
      {"CHIMERA/1"},
      {"", "CHIMERA/1"},
      {"CHIMERA/2", good},
      {good},
      {"CHIMERA/1", good, "extra"},
      {"CHIMERA/1", good, "a", "b", "c", "d"},
      {"CHIMERA/1", "{"},
      {"CHIMERA/1", ""},
      {"CHIMERA/1", "\xff\xfe"},
      {"CHIMERA/1", R"({"id":"a","call":"load","path":"/x"})"},
      {"", "", "CHIMERA/1", good},
      {"CHIMERA/1", "", good}};
  for (const auto& frames : bad) {
    Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
    peer.send(frames);
    auto answer = peer.receive();
    ASSERT_FALSE(answer.empty()) << "no answer to " << frames[0];
    const Json error = json_of(answer.back());
    EXPECT_EQ(error["event"], "error");
    EXPECT_EQ(error["code"], "invalid_argument");
    peer.request(health("after"));
    EXPECT_EQ(peer.answer().value("id", ""), "after") << "a second error came";
  }
  EXPECT_EQ(counters_.refused, bad.size());
}

TEST_F(Loop, WrongMagicNamesTheExpectedOne) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.send({"HELLO", "{}"});
  EXPECT_NE(peer.answer().value("message", "").find("CHIMERA/1"), std::string::npos);
}

TEST_F(Loop, AFrameBeyondTheLimitEndsThatConnectionOnly) {
  start(keeping());
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(health("h"));
  EXPECT_EQ(other.answer().value("id", ""), "h");
  Raw big(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  big.send({"CHIMERA/1", std::string(wire::kMaxMessageBytes + 1, ' ')});
  EXPECT_TRUE(big.receive(200).empty());
  other.request(health("h2"));
  EXPECT_EQ(other.answer().value("id", ""), "h2");
}

TEST_F(Loop, TokensThenDoneInOrder) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  const auto live = kept("g");
  std::thread engine([&] {
    for (int32_t i = 0; i < 100; ++i) live->on_token(token(i));
    live->on_done({});
  });
  for (int32_t i = 0; i < 100; ++i) ASSERT_EQ(peer.answer().value("token", -1), i);
  EXPECT_EQ(peer.answer().value("event", ""), "done");
  engine.join();
  EXPECT_TRUE(eventually([&] { return counters_.live == 0 && counters_.clients == 0; }));
}

TEST_F(Loop, OnlyTheFirstFinalEventCounts) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  const auto live = kept("g");
  live->on_done({});
  live->on_done({});
  live->on_error(Status(Code::kInternal, "late"));
  live->on_token(token(1));
  EXPECT_EQ(peer.answer().value("event", ""), "done");
  EXPECT_TRUE(peer.receive(100).empty());
}

TEST_F(Loop, AnIdInProgressIsRefusedAndMayBeUsedAgainLater) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  const auto live = kept("g");
  peer.request(generate("g"));
  EXPECT_EQ(peer.answer().value("code", ""), "already_exists");
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(generate("g"));  // ids are per connection
  EXPECT_TRUE(eventually([&] { return counters_.live == 2; }));
  live->on_done({});
  EXPECT_EQ(peer.answer().value("event", ""), "done");
  peer.request(generate("g"));
  EXPECT_TRUE(peer.receive(100).empty());
  EXPECT_EQ(counters_.live, 2u);
}

TEST_F(Loop, RequestsPerConnectionAreBounded) {
  options_.live_per_client = 3;
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  for (const char* id : {"a", "b", "c", "d"}) peer.request(generate(id));
  const Json refused = peer.answer();
  EXPECT_EQ(refused.value("id", ""), "d");
  EXPECT_EQ(refused.value("code", ""), "resource_exhausted");
}

TEST_F(Loop, CancelEndsTheTargetOfTheSameConnectionOnly) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  kept("g");
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request({{"id", "c"}, {"call", "cancel"}, {"target", "g"}});
  EXPECT_FALSE(other.answer().value("cancelled", true));
  EXPECT_EQ(cancelled_, 0);
  peer.request({{"id", "c"}, {"call", "cancel"}, {"target", "g"}});
  std::map<std::string, Json> answers;
  for (int i = 0; i < 2; ++i) {
    const Json answer = peer.answer();
    answers[answer.value("id", "")] = answer;
  }
  EXPECT_TRUE(answers["c"].value("cancelled", false));
  EXPECT_EQ(answers["g"]["finish_reason"], "cancelled");
}

TEST_F(Loop, CancelOnTheControlEndpointEndsRequestsOfAnybodyAndJobs) {
  std::string ended;
  options_.cancel_job = [&](const std::string& id) { return ended = id, id == "job-3"; };
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  kept("g");
  Raw control(context_, zmq::socket_type::dealer, options_.control_endpoint);
  for (const auto& [target, count] : {std::pair("job-3", 1u), {"g", 1u}, {"job-4", 0u}}) {
    control.request({{"id", "c"}, {"call", "cancel"}, {"target", target}});
    EXPECT_EQ(control.answer().value("cancelled", 9u), count) << target;
    EXPECT_EQ(ended, target);
  }
  EXPECT_EQ(cancelled_, 1);
}

TEST_F(Loop, ClosingAConnectionCancelsItsRequestsEvenWhenNothingIsSent) {
  start(keeping());
  Raw survivor(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  survivor.request(generate("s"));
  kept("s");
  for (int i = 0; i < 20; ++i) {
    auto peer = std::make_unique<Raw>(context_, zmq::socket_type::dealer, options_.serve_endpoint);
    peer->request(generate("g" + std::to_string(i)));
    kept("g" + std::to_string(i));
    peer.reset();
    ASSERT_TRUE(eventually([&] { return cancelled_ == i + 1; })) << i;
  }
  EXPECT_EQ(counters_.gone_clients, 20u);
  EXPECT_EQ(counters_.live, 1u) << "the one that stayed keeps its request";
}

TEST_F(Loop, AClientThatDoesNotReadLosesItsRequestAndHoldsUpNobody) {
  options_.slow_cutoff = milliseconds(300);
  start(keeping());
  Raw slow(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  slow.socket().set(zmq::sockopt::rcvhwm, 4);
  slow.request(generate("slow"));
  Raw quick(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  const auto live = kept("slow");
  // Without a bound this would be 2 GB.
  const TokenEvent big{1, std::string(1 << 16, 'x'), std::nullopt, 1};
  // A full pipe ends it, or its missing heartbeats do where filling the pipe takes longer.
  const auto cut_off = [&] { return counters_.slow_clients + counters_.gone_clients > 0; };
  for (int i = 0; i < 32'000 && !cut_off(); ++i) {
    live->on_token(big);
    if (i % 1000 == 0) {
      quick.request(health("h" + std::to_string(i)));
      ASSERT_EQ(quick.answer().value("id", ""), "h" + std::to_string(i));
    }
  }
  EXPECT_TRUE(eventually([&] { return cancelled_ == 1; }));
  EXPECT_TRUE(eventually([&] { return counters_.live == 0; })) << "cut off in time";
  EXPECT_TRUE(cut_off());
}

TEST_F(Loop, AnOverflowEndsWithResourceExhausted) {
  options_.queued_per_request = 8;
  const auto ready = std::make_shared<Ready>();
  const auto live = std::make_shared<Live>("a", Peer{}, options_.queued_per_request, ready);
  live->stream = true;
  for (int32_t i = 0; i < 20; ++i) live->on_token(token(i));
  EXPECT_TRUE(live->take_overflow());
  EXPECT_FALSE(live->take_overflow()) << "told once";
  live->on_done({});
  int tokens = 0;
  std::optional<Answer> last;
  while (auto answer = live->next()) {
    last = answer;
    if (!answer->final) ++tokens;
  }
  EXPECT_EQ(tokens, 8);
  EXPECT_EQ(json_of(last->body)["code"], "resource_exhausted");
}

TEST_F(Loop, ACancelBeforeTheWorkBeganIsNotLost) {
  const auto live = std::make_shared<Live>("a", Peer{}, 8, std::make_shared<Ready>());
  live->cancel();
  int calls = 0;
  live->set_canceller([&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST_F(Loop, BinaryFrameArrivesBitwise) {
  start([](const std::shared_ptr<Live>& live, const wire::Call&) {
    live->kind = EngineRequest::Kind::kScore;
    live->vocab = 3;
    DoneEvent done;
    done.logits = std::make_shared<std::vector<float>>(std::vector<float>{1, -2, 0.5f, 4, 5, 6});
    live->on_done(std::move(done));
  });
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request({{"id", "s"}, {"call", "score"}, {"tokens", Json::array({1, 2})}});
  const auto frames = peer.receive();
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(json_of(frames[1])["logits"]["shape"], Json::array({2, 3}));
  const std::vector<float> expected{1, -2, 0.5f, 4, 5, 6};
  ASSERT_EQ(frames[2].size(), expected.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(frames[2].data(), expected.data(), frames[2].size()), 0);
}

TEST_F(Loop, StoppingCancelsAndStillTellsTheClients) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(generate("g"));
  kept("g");
  loop_.reset();
  EXPECT_EQ(peer.answer().value("finish_reason", ""), "cancelled");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "serve")) << "the socket file goes with the daemon";
}

TEST_F(Loop, ASecondDaemonIsRefusedAndAStaleSocketIsNot) {
  start(keeping());
  ServerCounters others;
  const auto second = ServerLoop::start(options_, others, keeping());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("another daemon answers"), std::string::npos);
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(health("h"));
  EXPECT_EQ(peer.answer().value("id", ""), "h") << "the first one is untouched";

  // A socket file whose owner was killed.
  std::filesystem::rename(dir_ / "serve", dir_ / "aside");
  loop_.reset();
  std::filesystem::rename(dir_ / "aside", dir_ / "serve");
  start(keeping());
}

TEST_F(Loop, EndpointsThatWouldDoHarmAreRefused) {
  std::ofstream(dir_ / "file") << "precious";
  for (const std::string& endpoint :
       {std::string("tcp://0.0.0.0:5555"), std::string("tcp://*:5555"),
        std::string("tcp://192.168.1.1:5555"), std::string("inproc://x"), std::string("pgm://x"),
        std::string("ipc://relative"), std::string("ipc://@abstract"),
        "ipc://" + std::string(200, '/'), "ipc://" + (dir_ / "file").string(),
        "ipc://" + (dir_ / "missing" / "s").string()}) {
    auto options = options_;
    options.serve_endpoint = endpoint;
    const auto loop = ServerLoop::start(options, counters_, keeping());
    ASSERT_FALSE(loop.ok()) << endpoint;
    EXPECT_NE(loop.status().message().find(endpoint), std::string::npos);
    EXPECT_FALSE(loop.status().hint().empty());
  }
  EXPECT_TRUE(std::filesystem::exists(dir_ / "file"));
}

/// Large messages are not read while it is shut.
class Shutter {
 public:
  Decoded read(Undecoded message, wire::Endpoint endpoint) {
    if (message.text.size() > kLarge) {
      const MutexLock lock(mutex_);
      ++reached_;
      changed_.notify_all();
      changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return open_; });
    }
    return decode(std::move(message), endpoint);
  }
  bool reached() {
    const MutexLock lock(mutex_);
    return changed_.wait_for(mutex_, std::chrono::seconds(60),
                             [this]() REQUIRES(mutex_) { return reached_ > 0; });
  }
  void open() {
    const MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  static constexpr size_t kLarge = 64 << 10;

 private:
  Mutex mutex_;
  CondVar changed_;
  int reached_ GUARDED_BY(mutex_) = 0;
  bool open_ GUARDED_BY(mutex_) = false;
};

class LoopBesideLargeMessages : public Loop {
 protected:
  void SetUp() override {
    Loop::SetUp();
    options_.decode = [this](Undecoded message, wire::Endpoint endpoint) {
      return shutter_.read(std::move(message), endpoint);
    };
  }
  void TearDown() override {
    shutter_.open();
    Loop::TearDown();
  }
  static Json large(const std::string& id) {
    return {{"id", id}, {"call", "generate"}, {"prompt", std::string(2 * Shutter::kLarge, 'x')}};
  }

  Shutter shutter_;
};

TEST_F(LoopBesideLargeMessages, OthersAreServedWhileOneIsRead) {
  start(keeping());
  Raw hostile(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(generate("g"));
  const auto live = kept("g");
  for (int i = 0; i < 40; ++i) hostile.request(large("l" + std::to_string(i)));
  ASSERT_TRUE(shutter_.reached());
  other.request(health("h"));
  EXPECT_EQ(other.answer().value("id", ""), "h");
  live->on_token(token(7));
  EXPECT_EQ(other.answer().value("token", 0), 7) << "answers keep flowing";
  other.request({{"id", "c"}, {"call", "cancel"}, {"target", "g"}});
  EXPECT_TRUE(eventually([&] { return cancelled_ == 1; }));
  EXPECT_EQ(counters_.requests, 3u) << "of the large ones none has been read";
  shutter_.open();
  for (int i = 0; i < 40; ++i) kept("l" + std::to_string(i));
}

TEST_F(LoopBesideLargeMessages, ACancelComesAfterTheRequestThatItMeans) {
  start(keeping());
  Raw peer(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer.request(large("g"));
  peer.request({{"id", "c"}, {"call", "cancel"}, {"target", "g"}});
  ASSERT_TRUE(shutter_.reached());
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(health("h"));
  EXPECT_EQ(other.answer().value("id", ""), "h");
  shutter_.open();
  std::map<std::string, Json> answers;
  for (int i = 0; i < 2; ++i) {
    const Json answer = peer.answer();
    answers[answer.value("id", "")] = answer;
  }
  EXPECT_TRUE(answers["c"].value("cancelled", false));
  EXPECT_EQ(answers["g"]["finish_reason"], "cancelled");
}

TEST_F(LoopBesideLargeMessages, WhatAPeerThatLeftHadSentIsNotDone) {
  start(keeping());
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(health("h1"));
  EXPECT_EQ(other.answer().value("id", ""), "h1");
  auto peer = std::make_unique<Raw>(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  peer->request(generate("small"));
  kept("small");
  peer->request(large("large"));
  ASSERT_TRUE(shutter_.reached());
  peer.reset();
  ASSERT_TRUE(eventually([&] { return counters_.gone_clients == 1; }));
  shutter_.open();
  other.request(large("mine"));
  kept("mine");
  EXPECT_EQ(counters_.requests, 3u);
}

// libzmq gives out what it holds of a peer after having told its end, when the next one may have
// the descriptor already.
TEST_F(LoopBesideLargeMessages, NothingOfAPeerThatLeftIsDoneAsTheNextOnes) {
  std::atomic<bool> busy{false}, go_on{false};
  start([&, keep = keeping()](std::shared_ptr<Live> live, wire::Call call) {
    if (live->id() == "busy") {
      busy = true;
      EXPECT_TRUE(eventually([&] { return go_on.load(); }));
    }
    keep(std::move(live), std::move(call));
  });
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  {
    zmq::context_t own;
    Raw leaves(own, zmq::socket_type::dealer, options_.serve_endpoint);
    leaves.socket().set(zmq::sockopt::linger, -1);  // until all is sent
    leaves.request(health("h"));
    EXPECT_EQ(leaves.answer().value("id", ""), "h");
    other.request(generate("busy"));
    ASSERT_TRUE(eventually([&] { return busy.load(); }));
    for (const char* id : {"old1", "old2", "old3"}) leaves.request(large(id));
  }
  std::vector<std::unique_ptr<Raw>> next;
  for (int i = 0; i < 8; ++i) {
    next.push_back(std::make_unique<Raw>(context_, zmq::socket_type::dealer,
                                         options_.serve_endpoint, /*immediate=*/true));
    next.back()->socket().set(zmq::sockopt::sndtimeo, 60'000);
    next.back()->request(large("new" + std::to_string(i)));
  }
  go_on = true;
  ASSERT_TRUE(shutter_.reached());
  for (int i = 0; i < 8; ++i) {  // so that the loop has received what the others sent
    Raw after(context_, zmq::socket_type::dealer, options_.serve_endpoint);
    after.request(health("h"));
    EXPECT_EQ(after.answer().value("id", ""), "h");
  }
  shutter_.open();
  std::set<std::string> identities;
  for (int i = 0; i < 8; ++i) identities.insert(kept("new" + std::to_string(i))->peer().identity);
  EXPECT_EQ(identities.size(), next.size());
  const MutexLock lock(mutex_);
  for (const char* id : {"old1", "old2", "old3"}) {
    const auto old = kept_.find(id);
    if (old == kept_.end()) continue;
    EXPECT_FALSE(identities.contains(old->second->peer().identity)) << id;
  }
}

// What waits to be read is not taken yet for the front, which then reads no more of such a peer.
TEST_F(LoopBesideLargeMessages, APeerMayNotFillTheMemory) {
  start(keeping());
  Raw hostile(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  hostile.socket().set(zmq::sockopt::sndhwm, 1);
  hostile.socket().set(zmq::sockopt::sndtimeo, 1'000);
  const std::string message(size_t{1} << 20, ' ');
  const auto sent = [&] {
    return hostile.socket().send(zmq::buffer(wire::kMagic), zmq::send_flags::sndmore) &&
           hostile.socket().send(zmq::buffer(message), zmq::send_flags::none);
  };
  int count = 0;
  while (count < 100 && sent()) ++count;
  EXPECT_LT(count, 100) << "nothing stopped it";
  Raw other(context_, zmq::socket_type::dealer, options_.serve_endpoint);
  other.request(health("h"));
  EXPECT_EQ(other.answer().value("id", ""), "h");
}

// A load may go on when it was answered (wait: false) and when its client is gone (detach).
TEST_F(Loop, WhoseRightsGoHasNoChangesUnderWayEither) {
  const std::string list = dir_ / "clients.yaml";
  const auto roles = [&](const std::string& names) {
    std::ofstream(list) << "chimera: clients/1\nclients:\n  - {name: me, uid: " << geteuid()
                        << ", roles: [" << names << "], modules: all}\n";
  };
  roles("operate");
  auto authority = Authority::start({.clients = list});
  ASSERT_TRUE(authority.ok()) << authority.status().to_string();
  options_.authority = authority->get();
  start([this](std::shared_ptr<Live> live, const wire::Call&) {
    if (live->id() == "answered") live->answer(encode_reply(live->id(), {{"job", "job-1"}}));
    const MutexLock lock(mutex_);
    kept_[live->id()] = std::move(live);
  });
  const auto load = [](const std::string& id) {
    return Json{{"id", id}, {"call", "load"}, {"path", "/x"}};
  };
  Raw stays(context_, zmq::socket_type::dealer, options_.control_endpoint);
  Raw goes(context_, zmq::socket_type::dealer, options_.control_endpoint);
  stays.request(load("answered"));
  EXPECT_EQ(stays.answer().value("job", ""), "job-1");
  goes.request(load("detached"));
  const auto answered = kept("answered"), detached = kept("detached");
  goes.close();
  ASSERT_TRUE(eventually([&] { return counters_.gone_clients == 1; }));

  roles("observe");
  ASSERT_TRUE((*authority)->reload().ok());
  for (const auto& live : {answered, detached}) {
    EXPECT_TRUE(eventually([&] { return live->withdrawal().has_value(); })) << live->id();
    EXPECT_EQ(live->withdrawal().value_or(Status()).code(), Code::kPermissionDenied);
  }
  loop_.reset();  // before its authority
}

}  // namespace
}  // namespace chimera
