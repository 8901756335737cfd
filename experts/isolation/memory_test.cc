// The shared memory, with both ends in this process and a host that lies.
#include "experts/isolation/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "experts/isolation/memory_layout.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr HostGeometry kGeometry{48, 10};
/// Passes only where what is waited for never comes.
constexpr milliseconds kPatience{60000};

struct Ends {
  std::unique_ptr<HostPort> daemon;
  std::unique_ptr<HostServePort> host;
};

Ends make_ends(const HostGeometry& geometry = kGeometry) {
  Ends ends;
  auto daemon = HostPort::create(geometry);
  EXPECT_TRUE(daemon.ok()) << daemon.status().to_string();
  ends.daemon = std::move(*daemon);
  auto host =
      HostServePort::attach(geometry, ends.daemon->to_host_fd(), ends.daemon->from_host_fd());
  EXPECT_TRUE(host.ok()) << host.status().to_string();
  ends.host = std::move(*host);
  return ends;
}

/// A call of `rows` rows of zeros, on no table.
HostPort::Call zeros(uint32_t rows) {
  static const std::vector<float> x(kGeometry.hidden * kGeometry.slot_rows);
  HostPort::Call call;
  call.rows = rows;
  call.x = x.data();
  return call;
}

/// y = 2 x + row, and says the layer in the expert's place.
void serve(HostServePort& host, int calls) {
  for (int done = 0; done < calls;) {
    HostServePort::Call call;
    const Result<bool> got = host.next(kPatience, &call);
    ASSERT_TRUE(got.ok()) << got.status().to_string();
    if (!*got) continue;
    ++done;
    if (call.request.expert == 99) {
      host.reply({Code::kInvalidArgument, "no expert 99"}, 1);
      continue;
    }
    for (uint32_t r = 0; r < call.request.rows; ++r) {
      for (uint64_t i = 0; i < kGeometry.hidden; ++i) {
        call.y[r * kGeometry.hidden + i] =
            2 * call.x[r * kGeometry.hidden + i] + static_cast<float>(r);
      }
    }
    host.reply({}, 5);
  }
}

TEST(HostMemory, CallsComeBackInOrderThroughManyRounds) {
  Ends ends = make_ends();
  constexpr int kCalls = 500;
  std::thread host([&] { serve(*ends.host, kCalls); });
  std::mt19937 random(3);
  int sent = 0;
  std::vector<uint32_t> rows;
  for (int taken = 0; taken < kCalls; ++taken) {
    while (sent < kCalls && ends.daemon->in_flight() < kHostSlots) {
      rows.push_back(static_cast<uint32_t>(random() % (kGeometry.slot_rows + 1)));
      std::vector<float> x(rows.back() * kGeometry.hidden);
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(sent) + static_cast<float>(i);
      HostPort::Call call;
      call.layer = 1;
      call.expert = sent % 7 == 6 ? 99 : 2;
      call.rows = rows.back();
      call.x = x.data();
      ends.daemon->submit(call);
      ++sent;
    }
    HostPort::Answer answer;
    ASSERT_EQ(ends.daemon->take(Clock::now() + kPatience, &answer), HostPort::Wait::kDone)
        << answer.status.to_string();
    ASSERT_TRUE(answer.guards_intact);
    if (taken % 7 == 6) {
      EXPECT_EQ(answer.status.code(), Code::kInvalidArgument);
      EXPECT_EQ(answer.status.message(), "no expert 99");
    } else {
      ASSERT_TRUE(answer.status.ok());
      const auto n = rows[static_cast<size_t>(taken)];
      for (uint64_t i = 0; i < n * kGeometry.hidden; ++i) {
        const float x = static_cast<float>(taken) + static_cast<float>(i);
        const uint64_t row = i / kGeometry.hidden;
        ASSERT_EQ(answer.y[i], 2 * x + static_cast<float>(row));
      }
    }
    ends.daemon->release();
  }
  host.join();
}

TEST(HostMemory, CountersMayWrap) {
  // 2^32 calls are not made here; that slots follow the low bits is what makes the wrap harmless.
  for (const uint32_t sequence : {0u, 1u, 0xffffffffu}) {
    EXPECT_EQ(kGeometry.x_offset(sequence), kGeometry.x_offset(sequence % kHostSlots));
    EXPECT_EQ(kGeometry.y_offset(sequence) % 64, 0u);
    EXPECT_EQ(kGeometry.x_offset(sequence) % 64, 0u);
  }
  static_assert((kHostSlots & (kHostSlots - 1)) == 0);
}

TEST(HostMemory, EpochsAndDeadlinesTravelWithTheirRows) {
  Ends ends = make_ends();
  std::vector<uint64_t> epochs(kGeometry.slot_rows);
  for (size_t i = 0; i < epochs.size(); ++i) epochs[i] = 1000 + i;
  for (int round = 0; round < 2 * static_cast<int>(kHostSlots); ++round) {
    HostPort::Call sent = zeros(static_cast<uint32_t>(kGeometry.slot_rows));
    const bool on_tables = round % 3 != 2;
    if (on_tables) sent.row_epochs = epochs.data();
    sent.deadline_ns = static_cast<uint64_t>(round);
    sent.limit_ns = 77;
    ends.daemon->submit(sent);
    HostServePort::Call call;
    ASSERT_TRUE(*ends.host->next(kPatience, &call));
    EXPECT_EQ(call.request.deadline_ns, static_cast<uint64_t>(round));
    EXPECT_EQ(call.request.limit_ns, 77u);
    ASSERT_EQ(call.row_epochs != nullptr, on_tables) << round;
    if (on_tables) {
      EXPECT_EQ(std::memcmp(call.row_epochs, epochs.data(), epochs.size() * sizeof(uint64_t)), 0);
    }
    ends.host->reply({}, 0);
    HostPort::Answer answer;
    ASSERT_EQ(ends.daemon->take(Clock::now() + kPatience, &answer), HostPort::Wait::kDone);
    ends.daemon->release();
    epochs[0] += 1;
  }
}

TEST(HostMemory, ALateHostIsWaitedForNoLongerThanSaid) {
  Ends ends = make_ends();
  ends.daemon->submit(zeros(1));
  HostPort::Answer answer;
  const auto start = Clock::now();
  EXPECT_EQ(ends.daemon->take(start + milliseconds(30), &answer), HostPort::Wait::kLate);
  EXPECT_GE(Clock::now() - start, milliseconds(30));
}

TEST(HostMemory, LossWakesTheWaiter) {
  Ends ends = make_ends();
  ends.daemon->submit(zeros(1));
  std::thread keeper([&] {
    std::this_thread::sleep_for(milliseconds(20));
    ends.daemon->lose();
  });
  HostPort::Answer answer;
  EXPECT_EQ(ends.daemon->take(Clock::now() + kPatience, &answer), HostPort::Wait::kLost);
  keeper.join();
}

TEST(HostMemory, AnAnswerThatCameBeforeTheEndCounts) {
  Ends ends = make_ends();
  ends.daemon->submit(zeros(0));
  serve(*ends.host, 1);
  ends.daemon->lose();
  HostPort::Answer answer;
  EXPECT_EQ(ends.daemon->take(Clock::now(), &answer), HostPort::Wait::kDone);
}

TEST(HostMemory, WhatThePluginLeavesOutIsNaN) {
  Ends ends = make_ends();
  for (int round = 0; round < 2 * static_cast<int>(kHostSlots); ++round) {
    ends.daemon->submit(zeros(2));
    HostServePort::Call call;
    ASSERT_TRUE(*ends.host->next(kPatience, &call));
    call.y[0] = 1.0f;  // and no more
    ends.host->reply({}, 0);
    HostPort::Answer answer;
    ASSERT_EQ(ends.daemon->take(Clock::now() + kPatience, &answer), HostPort::Wait::kDone);
    EXPECT_EQ(answer.y[0], 1.0f);
    for (uint64_t i = 1; i < 2 * kGeometry.hidden; ++i) ASSERT_TRUE(std::isnan(answer.y[i])) << i;
    ends.daemon->release();
  }
}

TEST(HostMemory, WritesPastTheRowsAreSeen) {
  for (const int64_t at : {int64_t{-1}, static_cast<int64_t>(3 * kGeometry.hidden)}) {
    Ends ends = make_ends();
    ends.daemon->submit(zeros(3));
    HostServePort::Call call;
    ASSERT_TRUE(*ends.host->next(kPatience, &call));
    std::fill_n(call.y, 3 * kGeometry.hidden, 1.0f);
    call.y[at] = 1.0f;
    ends.host->reply({}, 0);
    HostPort::Answer answer;
    ASSERT_EQ(ends.daemon->take(Clock::now() + kPatience, &answer), HostPort::Wait::kDone);
    EXPECT_FALSE(answer.guards_intact) << at;
  }
}

TEST(HostMemory, TheHostCannotWriteWhatTheDaemonWrites) {
  Ends ends = make_ends();
  void* mapping = mmap(nullptr, kGeometry.to_host_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED,
                       ends.daemon->to_host_fd(), 0);
  EXPECT_EQ(mapping, MAP_FAILED);
  EXPECT_NE(ftruncate(ends.daemon->from_host_fd(), 0), 0);
}

TEST(HostMemory, WrongSizesAreRefused) {
  Ends ends = make_ends();
  const HostGeometry larger{kGeometry.hidden, 100000};
  const auto host =
      HostServePort::attach(larger, ends.daemon->to_host_fd(), ends.daemon->from_host_fd());
  ASSERT_FALSE(host.ok());
  EXPECT_EQ(host.status().code(), Code::kDataCorrupt);
  EXPECT_FALSE(HostPort::create({0, 1}).ok());
  EXPECT_FALSE(HostPort::create({uint64_t{1} << 50, 1}).ok());
  EXPECT_FALSE(HostPort::create({uint64_t{1} << 20, uint64_t{1} << 40}).ok());
}

/// A host that writes whatever it likes: `lie` changes its side of the memory after one request.
HostPort::Wait after_lie(const std::function<void(host_layout::FromHost&)>& lie, Status* why) {
  auto port = HostPort::create(kGeometry);
  EXPECT_TRUE(port.ok());
  (*port)->submit(zeros(4));
  auto region = host_layout::map_file((*port)->from_host_fd(), boost::interprocess::read_write,
                                      kGeometry.from_host_bytes());
  EXPECT_TRUE(region.ok());
  lie(*static_cast<host_layout::FromHost*>(region->get_address()));
  HostPort::Answer answer;
  const HostPort::Wait wait = (*port)->take(Clock::now() + milliseconds(50), &answer);
  *why = answer.status;
  return wait;
}

TEST(HostMemory, LiesAreFoundOut) {
  Status why;
  using From = host_layout::FromHost;
  const auto posted = [](From& from, uint32_t n) { from.counters.posted.value = n; };
  EXPECT_EQ(after_lie([&](From& f) { posted(f, 2); }, &why), HostPort::Wait::kCorrupt);
  EXPECT_NE(why.message().find("2 responses"), std::string::npos) << why.message();
  EXPECT_EQ(after_lie([&](From& f) { posted(f, 0xffffffff); }, &why), HostPort::Wait::kCorrupt);
  const auto response = [&](HostResponse r) {
    return after_lie(
        [&](From& f) {
          f.slots[0] = r;
          posted(f, 1);
        },
        &why);
  };
  HostResponse good;
  EXPECT_EQ(response(good), HostPort::Wait::kDone);
  HostResponse r = good;
  r.sequence = 1;
  EXPECT_EQ(response(r), HostPort::Wait::kCorrupt);
  r = good;
  r.code = 13;
  EXPECT_EQ(response(r), HostPort::Wait::kCorrupt);
  r = good;
  r.code = 1;
  r.text_bytes = kHostTextBytes + 1;
  EXPECT_EQ(response(r), HostPort::Wait::kCorrupt);
  r = good;
  r.text_bytes = 1;  // a text with an ok
  EXPECT_EQ(response(r), HostPort::Wait::kCorrupt);
  r = good;
  r.reserved[4] = 1;
  EXPECT_EQ(response(r), HostPort::Wait::kCorrupt);
}

// Property: whatever a descriptor holds, what the check lets through stays inside the memory.
TEST(HostMemory, ArbitraryDescriptorsAreRefusedOrHarmless) {
  std::mt19937_64 random(11);
  int passed = 0;
  for (int i = 0; i < 100000; ++i) {
    const auto sequence = static_cast<uint32_t>(random());
    HostRequest request;
    request.sequence = sequence;
    request.rows = static_cast<uint32_t>(random() % (2 * kGeometry.slot_rows));
    request.x_offset = kGeometry.x_offset(sequence);
    request.y_offset = kGeometry.y_offset(sequence);
    if (random() % 2 == 0) request.epochs_offset = kGeometry.epochs_offset(sequence);
    if (random() % 4 == 0) {
      unsigned char bytes[sizeof(request)];
      std::memcpy(bytes, &request, sizeof(request));
      bytes[random() % sizeof(bytes)] ^= static_cast<unsigned char>(1 + random() % 255);
      std::memcpy(&request, bytes, sizeof(request));
    }
    if (!check_request(request, sequence, kGeometry).ok()) continue;
    ++passed;
    const uint64_t bytes = request.rows * kGeometry.row_bytes();
    ASSERT_LE(request.x_offset + bytes, kGeometry.to_host_bytes());
    ASSERT_LE(request.epochs_offset + request.rows * sizeof(uint64_t), kGeometry.to_host_bytes());
    ASSERT_LE(request.y_offset + bytes + kHostGuardBytes, kGeometry.from_host_bytes());
    ASSERT_GE(request.y_offset, host_layout::kFromHostRows + kHostGuardBytes);
  }
  EXPECT_GT(passed, 1000);
}

}  // namespace
}  // namespace chimera
