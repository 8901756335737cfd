// Whose request is next: a full queue, and how clients share it.
#include "daemon/engine/scheduling/accounts.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/engine/scheduling/request_queue.h"

namespace chimera {
namespace {

class Nobody : public EventSink {
 public:
  void on_token(TokenEvent) override {}
  void on_done(DoneEvent) override {}
  void on_error(Status) override {}
};

class AccountsTest : public testing::Test {
 protected:
  static constexpr uint64_t kMaxOutput = 1000;

  static AccountPtr account(const std::string& name, std::optional<int64_t> in_flight = {},
                            std::optional<int64_t> queued = {}) {
    return std::make_shared<const Account>(Account{name, in_flight, queued});
  }
  /// A request that may take `tokens`; 0 when it was refused.
  RequestId add(AccountPtr whose, int64_t tokens = 10, uint64_t output = 0) {
    EngineRequest request;
    request.tokens.assign(1, 1);
    request.account = std::move(whose);
    request.expected_tokens = tokens;
    request.output_bytes = output;
    const auto id = queue_.add(std::move(request), sink_);
    refusal_ = id.status();
    return id.ok() ? *id : 0;
  }
  std::optional<PendingRequest> next() {
    return queue_.take_next([](const PendingRequest&) { return true; });
  }
  /// Name of the account of the next one, which stays in flight; "" when none may start.
  std::string start() {
    auto taken = next();
    if (!taken) return "";
    std::string name = taken->request.account->name;
    running_.emplace(taken->id, std::move(*taken));
    return name;
  }
  void end(RequestId id, int64_t tokens) {
    auto taken = running_.extract(id);
    taken.mapped().ticket.done({});
    const RequestEnd end{id, tokens};
    queue_.ended({&end, 1});
  }

  Doorbell bell_;
  RequestQueue queue_{8, &bell_, kMaxOutput};
  std::shared_ptr<Nobody> sink_ = std::make_shared<Nobody>();
  std::map<RequestId, PendingRequest> running_;
  Status refusal_;
};

TEST_F(AccountsTest, TheOneServedLeastIsNext) {
  for (int i = 0; i < 4; ++i) add(account("a"));
  for (int i = 0; i < 2; ++i) add(account("b"));
  std::string order;
  while (true) {
    const std::string name = start();
    if (name.empty()) break;
    order += name;
  }
  EXPECT_EQ(order, "ababaa");
}

TEST_F(AccountsTest, SharesAreOfTokensNotOfRequests) {
  for (int i = 0; i < 2; ++i) add(account("long"), 100);
  for (int i = 0; i < 5; ++i) add(account("short"), 20);
  std::string order;
  for (int i = 0; i < 7; ++i) order += start()[0];
  EXPECT_EQ(order, "lsssssl");
}

TEST_F(AccountsTest, WhatWasNotTakenIsGivenBack) {
  const RequestId early = add(account("a"), 100);
  EXPECT_EQ(start(), "a");
  add(account("a"), 10), add(account("b"), 10), add(account("b"), 10);
  end(early, 5);  // 5 of 100 tokens: a is at 5; b began without what a had paid in advance, at 0
  std::string order;
  for (int i = 0; i < 3; ++i) order += start();
  EXPECT_EQ(order, "bab");
}

TEST_F(AccountsTest, WhoComesDoesNotWaitForWhatOthersPaidInAdvance) {
  std::vector<RequestId> early;
  for (int i = 0; i < 3; ++i) {
    early.push_back(add(account("a"), 1000));
    EXPECT_EQ(start(), "a");
  }
  add(account("a"), 1000), add(account("b"), 10);
  end(early[0], 5);  // what comes back must not put a before b
  EXPECT_EQ(start(), "b");
}

TEST_F(AccountsTest, NothingIsSavedUpOrOwedAcrossAPause) {
  // An account alone takes a lot; another that was away all the time comes, and gets its half only.
  for (int i = 0; i < 50; ++i) {
    const RequestId id = add(account("busy"), 100);
    EXPECT_EQ(start(), "busy");
    end(id, 100);
  }
  for (int i = 0; i < 4; ++i) add(account("new"));
  for (int i = 0; i < 4; ++i) add(account("busy"));
  std::string order;
  for (int i = 0; i < 8; ++i) order += start()[0];
  EXPECT_EQ(order, "nbnbnbnb");
}

TEST_F(AccountsTest, AFullQueueMakesRoomForWhoHasLessInIt) {
  for (int i = 0; i < 8; ++i) EXPECT_NE(add(account("flood")), 0u);
  EXPECT_EQ(add(account("flood")), 0u);
  EXPECT_EQ(refusal_.code(), Code::kResourceExhausted);
  RequestId newest = 8;
  for (int i = 0; i < 4; ++i) {
    EXPECT_NE(add(account("honest")), 0u) << refusal_.to_string();
    auto displaced = queue_.take_displaced();
    ASSERT_EQ(displaced.size(), 1u);
    EXPECT_EQ(displaced[0].first.id, newest--) << "the newest goes, not who waited longest";
    EXPECT_EQ(displaced[0].second.code(), Code::kResourceExhausted);
    displaced[0].first.ticket.done({});
    const RequestEnd end{displaced[0].first.id, 0};
    queue_.ended({&end, 1});
  }
  // Half and half: nobody makes room any more.
  EXPECT_EQ(add(account("honest")), 0u);
  EXPECT_EQ(add(account("flood")), 0u);
  EXPECT_NE(add(account("third")), 0u);
}

TEST_F(AccountsTest, OwnLimitsHoldOneBackAndNobodyElse) {
  const auto limited = account("limited", 1, 2);
  const RequestId first = add(limited);
  EXPECT_NE(first, 0u);
  EXPECT_NE(add(limited), 0u);
  EXPECT_NE(add(limited), 0u);
  EXPECT_EQ(add(limited), 0u);  // one in flight, two that wait
  EXPECT_EQ(refusal_.code(), Code::kResourceExhausted);
  EXPECT_NE(refusal_.message().find("client limited"), std::string::npos) << refusal_.message();
  add(account("other"));
  EXPECT_EQ(start(), "limited");
  EXPECT_EQ(start(), "other");
  EXPECT_EQ(start(), "");
  end(first, 10);
  EXPECT_EQ(start(), "limited");
  EXPECT_EQ(start(), "");
}

TEST_F(AccountsTest, AnswersThatNobodyReadsHoldTheirClientBack) {
  const auto slow = account("slow");
  const RequestId first = add(slow, 10, 600);
  const RequestId second = add(slow, 10, 600);
  add(account("other"), 10, 600);
  EXPECT_EQ(start(), "slow");
  EXPECT_EQ(start(), "other");
  EXPECT_EQ(start(), "");
  auto unread = running_.at(first).request.output;  // as the answer keeps it
  end(first, 10);
  EXPECT_EQ(start(), "");
  bell_.wait();  // for what was added
  std::thread reader([&unread] { unread.reset(); });
  bell_.wait();  // lost, this would hang
  reader.join();
  EXPECT_EQ(start(), "slow");
  EXPECT_TRUE(running_.contains(second));
}

TEST_F(AccountsTest, ASingleAnswerOfAnySizeCanBeMade) {
  add(account("a"), 10, 50 * kMaxOutput);
  EXPECT_EQ(start(), "a");
}

}  // namespace
}  // namespace chimera
