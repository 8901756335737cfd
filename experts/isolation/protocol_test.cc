#include "experts/isolation/protocol.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace chimera {
namespace {

HostLoad example_load() {
  HostLoad m;
  m.module = "legal";
  m.version = "1.2.0";
  m.fingerprint = "sha256:abc";
  m.file = "liblegal.so";
  m.id = "com.example.legal";
  m.config = "lines\nand \xc3\xa4";
  m.deadline_ms = 150;
  m.memory_mib = 64;
  m.hidden_size = 256;
  m.worker_count = 2;
  m.experts = {{0, 1}, {3, 4}};
  m.tensor_table_bytes = 17;
  m.slot_rows = 256;
  return m;
}

TEST(HostProtocol, MessagesComeBackAsTheyWere) {
  const auto load = decode_load(encode(example_load()));
  ASSERT_TRUE(load.ok()) << load.status().to_string();
  EXPECT_EQ(*load, example_load());

  HostReady ready;
  ready.info = {"com.example.legal", "1.2.0", "Example", "build 1", "1.0", false, true, true, 512};
  ready.sandbox = "seccomp; off: landlock";
  ready.resident_bytes = 1u << 20;
  const auto ready_back = decode_ready(encode(ready));
  ASSERT_TRUE(ready_back.ok());
  EXPECT_EQ(ready_back->info.id, ready.info.id);
  EXPECT_EQ(ready_back->info.max_rows, 512);
  EXPECT_FALSE(ready_back->info.bitwise);
  EXPECT_TRUE(ready_back->info.reentrant);
  EXPECT_EQ(ready_back->sandbox, ready.sandbox);

  const auto failed =
      decode_failed(encode(HostFailed{Status(Code::kDataCorrupt, "what", "do this")}));
  ASSERT_TRUE(failed.ok());
  EXPECT_EQ(failed->status.code(), Code::kDataCorrupt);
  EXPECT_EQ(failed->status.message(), "what");
  EXPECT_EQ(failed->status.hint(), "do this");

  const auto log = decode_log(encode(HostLog{LibraryRuntime::Severity::kWarning, "hot"}));
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->severity, LibraryRuntime::Severity::kWarning);
  EXPECT_EQ(log->line, "hot");

  const HostCounters counters = {{"a", 1}, {"b", std::numeric_limits<uint64_t>::max()}};
  const auto counters_back = decode_counters(encode(counters));
  ASSERT_TRUE(counters_back.ok());
  EXPECT_EQ(*counters_back, counters);
}

TEST(HostProtocol, EveryPrefixAndEveryExtensionIsRefused) {
  const std::string whole = encode(example_load());
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_FALSE(decode_load(std::string_view(whole).substr(0, n)).ok()) << n << " bytes";
  }
  EXPECT_FALSE(decode_load(whole + '\0').ok());
}

TEST(HostProtocol, HostileTextsAreMadePrintable) {
  const auto log = decode_log(encode(
      HostLog{LibraryRuntime::Severity::kInfo, "a\x1b[2Jb\nc\xff\xc0\x80\xed\xa0\x80 \xc3\xa4"}));
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->line, "a?[2Jb?c?????? \xc3\xa4");
  // Never cut inside a character.
  EXPECT_EQ(printable("\xc3\xa4\xc3\xa4", 3), "\xc3\xa4");
  EXPECT_EQ(printable("\xf4\x90\x80\x80", 9), "????");
}

TEST(HostProtocol, FramesAreCheckedWhole) {
  const std::string frame = encode_frame(HostMessage::kLog, "payload");
  const auto back = decode_frame(frame);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->type, HostMessage::kLog);
  EXPECT_EQ(back->payload, "payload");
  for (size_t n = 0; n < frame.size(); ++n) {
    EXPECT_FALSE(decode_frame(std::string_view(frame).substr(0, n)).ok());
  }
  EXPECT_FALSE(decode_frame(frame + 'x').ok());
  for (size_t i = 0; i < kHostHeaderBytes; ++i) {
    std::string bad = frame;
    bad[i] = static_cast<char>(bad[i] ^ 0x80);
    EXPECT_FALSE(decode_frame(bad).ok()) << "header byte " << i;
  }
  std::string other_version = frame;
  other_version[4] = 3;
  const auto refused = decode_frame(other_version);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().to_string().find("protocol version 3 (expected 2)"),
            std::string::npos);
}

std::vector<HostTensor> example_table() {
  return {{"a", DType::kF32, {2, 3}, 64, 24},
          {"b", DType::kI8, {5}, 128, 5},
          {"c", DType::kBF16, {}, 192, 2}};
}

TEST(HostProtocol, TensorsMustLieInsideTheirFile) {
  const std::string table = encode(example_table());
  ASSERT_TRUE(decode_tensors(table, 194).ok());
  EXPECT_EQ(*decode_tensors(table, 194), example_table());
  EXPECT_FALSE(decode_tensors(table, 193).ok());

  const auto refused = [](HostTensor t) {
    return !decode_tensors(encode(std::vector<HostTensor>{std::move(t)}), 1u << 20).ok();
  };
  EXPECT_TRUE(refused({"unaligned", DType::kI8, {5}, 65, 5}));
  EXPECT_TRUE(refused({"size", DType::kI8, {5}, 64, 6}));
  EXPECT_TRUE(refused({"negative", DType::kI8, {-1}, 64, 1}));
  EXPECT_TRUE(refused({"wrap", DType::kF32, {int64_t{1} << 62, 4}, 64, 0}));
  EXPECT_TRUE(refused({"far", DType::kI8, {1}, ~uint64_t{63}, 1}));
  EXPECT_TRUE(refused({"rank", DType::kI8, std::vector<int64_t>(9, 1), 64, 1}));
}

// Property: whatever bytes come, decoding ends with a value that encodes to the same bytes or with
// data_corrupt; nothing is read outside of them (the sanitizer builds run this too).
TEST(HostProtocol, ArbitraryBytesAreRefusedOrRoundTrip) {
  std::mt19937_64 random(7);
  const std::string seeds[] = {encode(example_load()), encode(HostReady{}),
                               encode(HostCounters{{"x", 1}}), encode(example_table())};
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = seeds[random() % std::size(seeds)];
    for (uint64_t edits = 1 + random() % 4; edits > 0 && !bytes.empty(); --edits) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 1));
    if (const auto m = decode_load(bytes); m.ok()) {
      const auto again = decode_load(encode(*m));
      ASSERT_TRUE(again.ok());
      EXPECT_EQ(*again, *m);
    }
    (void)decode_ready(bytes);
    (void)decode_failed(bytes);
    (void)decode_log(bytes);
    (void)decode_counters(bytes);
    if (const auto t = decode_tensors(bytes, 256); t.ok()) {
      for (const HostTensor& tensor : *t) EXPECT_LE(tensor.offset + tensor.bytes, 256u);
    }
  }
}

}  // namespace
}  // namespace chimera
