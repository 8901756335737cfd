#include "daemon/front/handshake.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

std::string greeting_of(const std::string& mechanism, char revision = 3) {
  std::string out = "\xff" + std::string(8, '\0') + "\x7f";
  out.push_back(revision);
  out.push_back(1);
  std::string name = mechanism;
  name.resize(20, '\0');
  return out + name + std::string(32, '\0');
}
std::string property(const std::string& name, const std::string& value) {
  std::string out(1, static_cast<char>(name.size()));
  out += name + std::string(3, '\0');
  out.push_back(static_cast<char>(value.size()));
  return out + value;
}
std::string ready(const std::string& properties) {
  const std::string body = "\x05READY" + properties;
  std::string out(1, '\x04');
  out.push_back(static_cast<char>(body.size()));
  return out + body;
}
const std::string kDealer = property("Socket-Type", "DEALER");

TEST(Handshake, ReadyTellsTheTypeAloneAndWhatWeSay) {
  Handshake null(Mechanism::kNull, {{"X-Mark", "uid:7"}});
  const auto out = null.feed(greeting_of("NULL") +
                             ready(kDealer + property("Identity", std::string("\0\0\0\0\1", 5)) +
                                   property("X-Mark", "uid:0") + property("User-Id", "root")) +
                             "and what follows");
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  EXPECT_TRUE(null.done());
  EXPECT_EQ(*out, greeting_of("NULL") + ready(kDealer + property("X-Mark", "uid:7")) +
                      "and what follows");
}

TEST(Handshake, TheGreetingGoesOnAsItComes) {
  Handshake null(Mechanism::kNull, {});
  const std::string text = greeting_of("NULL");
  for (const char byte : text) {
    const auto out = null.feed(std::string(1, byte));
    ASSERT_TRUE(out.ok());
    EXPECT_EQ(*out, std::string(1, byte));
  }
  EXPECT_TRUE(null.greeted());
  EXPECT_FALSE(null.done());
}

TEST(Handshake, NamesOfPropertiesAreReadWithoutRegardToCase) {
  Handshake null(Mechanism::kNull, {});
  const auto out = null.feed(greeting_of("NULL") +
                             ready(property("SOCKET-TYPE", "REQ") + property("iDENTITY", "x")));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(*out, greeting_of("NULL") + ready(property("Socket-Type", "REQ")));
}

TEST(Handshake, OfCurveTheGreetingAlone) {
  Handshake curve(Mechanism::kCurve, {});
  EXPECT_EQ(*curve.feed(greeting_of("CURVE") + "secret"), greeting_of("CURVE") + "secret");
  EXPECT_TRUE(curve.done());
}

TEST(Handshake, AnythingElseIsRefused) {
  const auto refused = [](Mechanism mechanism, const std::string& text) {
    return !Handshake(mechanism, {}).feed(text).ok();
  };
  EXPECT_TRUE(refused(Mechanism::kNull, "GET / HTTP/1.1\r\n"));
  EXPECT_TRUE(refused(Mechanism::kNull, std::string("\x01\x00", 2)));  // ZMTP 1.0
  EXPECT_TRUE(refused(Mechanism::kNull, greeting_of("NULL", 1)));
  for (const char* other : {"PLAIN", "CURVE", "GSSAPI", "", "NULLX", "null"}) {
    EXPECT_TRUE(refused(Mechanism::kNull, greeting_of(other))) << other;
  }
  for (const char* other : {"PLAIN", "NULL", "GSSAPI", ""}) {
    EXPECT_TRUE(refused(Mechanism::kCurve, greeting_of(other))) << other;
  }
  const std::string head = greeting_of("NULL");
  EXPECT_TRUE(refused(Mechanism::kNull, head + std::string("\x00\x01x", 3)));  // a message
  EXPECT_TRUE(refused(Mechanism::kNull, head + ready("")));
  EXPECT_TRUE(refused(Mechanism::kNull, head + ready(kDealer + kDealer)));
  EXPECT_TRUE(refused(Mechanism::kNull, head + ready(property("Socket-Type", "PUB"))));
  EXPECT_TRUE(refused(Mechanism::kNull, head + ready(kDealer + "\x08Identity")));
  EXPECT_TRUE(
      refused(Mechanism::kNull, head + ready(kDealer + std::string("\x01x\xff\xff\xff\xff", 6))));
  EXPECT_TRUE(refused(Mechanism::kNull, head + std::string("\x04\x06\x05HELLO", 8)));
  EXPECT_TRUE(refused(Mechanism::kNull, head + "\x06" + std::string(8, '\xff')));
  EXPECT_TRUE(refused(Mechanism::kNull, head + "\x06" + std::string(6, '\0') + "\x10\x01"));
}

TEST(Handshake, LongCommandsAreReadToo) {
  const std::string body = "\x05READY" + kDealer;
  const std::string text = "\x06" + std::string(7, '\0') + static_cast<char>(body.size()) + body;
  Handshake null(Mechanism::kNull, {});
  EXPECT_EQ(*null.feed(greeting_of("NULL") + text), greeting_of("NULL") + ready(kDealer));
}

}  // namespace
}  // namespace chimera
