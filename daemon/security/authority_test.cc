// The clients file, who is admitted, and what libzmq is answered.
#include "daemon/security/authority.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "clients/keys/certificate.h"
#include "daemon/security/zap.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using Frames = std::vector<std::string>;

const std::string kHead = "chimera: clients/1\nclients:\n";

class Clients : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / "chimera-clients-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    alice_ = keys::make_certificate("alice")->public_key;
    bob_ = keys::make_certificate("bob")->public_key;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string file() const { return dir_ + "/clients.yaml"; }
  /// Whole or not at all, as an editor or `mv` does it.
  void write(const std::string& text) {
    std::ofstream(dir_ + "/new.tmp") << text;
    std::filesystem::rename(dir_ + "/new.tmp", file());
  }
  std::string entry(const std::string& name, const std::string& key,
                    const std::string& more = "roles: [use], modules: all") {
    return "  - {name: " + name + ", public_key: '" + key + "', " + more + "}\n";
  }
  Status parse(const std::string& text) {
    const ClientsText one{"c.yaml", text};
    return parse_clients({&one, 1}).status();
  }
  std::string dir_, alice_, bob_;
};

template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

TEST_F(Clients, EveryProblemAtOnceWithItsPlace) {
  const Status status = parse(kHead + entry("a b", "short", "roles: [root], modules: 3, x: 1") +
                              "  - {uid: -1, roles: [], modules: [''], expires: 2027-02-30}\n"
                              "  - {name: c, roles: [observe], modules: [legal], uid: 7}\n");
  for (const char* part :
       {"c.yaml:3:", "clients[0].name: found a b",
        "clients[0].public_key: found \"short\" (expected a key", "clients[0].roles: found root",
        "clients[0].modules: found 3", "clients[0].x: unknown key", "clients[1].name: missing",
        "clients[1].uid: found -1", "clients[1].roles: found a list",
        "clients[1].modules: found \"\"", "clients[1].expires: found 2027-02-30",
        "clients[2].modules: found a list (expected all, for the roles observe"}) {
    EXPECT_THAT(status.message(), HasSubstr(part));
  }
  EXPECT_THAT(parse("clients: []\n").message(), HasSubstr("chimera: missing (expected clients/1)"));
  EXPECT_TRUE(parse(kHead).ok());
}

TEST_F(Clients, NamesKeysAndUsersAreOnesAlone) {
  EXPECT_THAT(parse(kHead + entry("a", alice_) + entry("a", bob_)).message(),
              HasSubstr("a name that no other client has"));
  EXPECT_THAT(parse(kHead + entry("a", alice_) + entry("b", alice_)).message(),
              HasSubstr("a key that no other client has"));
  const std::string user = ", uid: 5, roles: [use], modules: all}\n";
  EXPECT_THAT(parse(kHead + "  - {name: a" + user + "  - {name: b" + user).message(),
              HasSubstr("a user that no other client is"));
}

TEST_F(Clients, WithoutAFileThisUserMayAll) {
  const auto authority = Authority::start({});
  ASSERT_TRUE(authority.ok());
  const PrincipalPtr self = (*authority)->find(uid_mark(geteuid()));
  ASSERT_NE(self, nullptr);
  EXPECT_TRUE(self->roles.has(Role::kAdmin));
  EXPECT_EQ((*authority)->find(uid_mark(geteuid() + 1)), nullptr);
  EXPECT_EQ((*authority)->find(key_mark(alice_)), nullptr);
  for (const char* odd : {"", "uid:", "uid:x", "uid:1x", "key:", "admin"}) {
    EXPECT_EQ((*authority)->find(odd), nullptr) << odd;
  }
  const PrincipalPtr loopback = (*authority)->find(std::string(kLoopbackMark));
  ASSERT_NE(loopback, nullptr);
  EXPECT_EQ(loopback->roles, Roles(Role::kUse));
}

TEST_F(Clients, ChangesTakeEffectAndMistakesDoNot) {
  write(kHead + entry("alice", alice_));
  auto started = Authority::start({.clients = file(), .interval = milliseconds(1)});
  ASSERT_TRUE(started.ok()) << started.status().to_string();
  Authority& authority = **started;
  std::atomic<int> told{0};
  authority.listen([&] { ++told; });
  EXPECT_NE(authority.find(key_mark(alice_)), nullptr);
  EXPECT_EQ(authority.find(key_mark(bob_)), nullptr);
  write(kHead + entry("bob", bob_));
  EXPECT_TRUE(eventually([&] { return authority.find(key_mark(bob_)) != nullptr; }));
  EXPECT_EQ(authority.find(key_mark(alice_)), nullptr);
  EXPECT_TRUE(eventually([&] { return told > 0; }));
  write("chimera: clients/1\nclients: [nonsense]\n");
  EXPECT_FALSE(authority.reload().ok());
  EXPECT_NE(authority.find(key_mark(bob_)), nullptr);
  std::filesystem::remove(file());
  EXPECT_FALSE(authority.reload().ok());
  EXPECT_NE(authority.find(key_mark(bob_)), nullptr);
}

TEST_F(Clients, WhoseTimeIsUpIsGoneAndIsTold) {
  const auto soon = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()) + 2;
  char text[32];
  std::tm tm{};
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&soon, &tm));
  write(kHead +
        entry("alice", alice_, "roles: [use], modules: all, expires: '" + std::string(text) + "'") +
        entry("bob", bob_, "roles: [use], modules: all, expires: 2001-01-01"));
  auto started = Authority::start({.clients = file(), .interval = milliseconds(1)});
  ASSERT_TRUE(started.ok()) << started.status().to_string();
  std::atomic<int> told{0};
  (*started)->listen([&] { ++told; });
  EXPECT_EQ((*started)->find(key_mark(bob_)), nullptr);
  EXPECT_TRUE(eventually([&] { return (*started)->find(key_mark(alice_)) == nullptr; }));
  EXPECT_TRUE(eventually([&] { return told > 0; }));
}

TEST_F(Clients, ADirectoryOfFiles) {
  std::filesystem::create_directory(dir_ + "/d");
  std::ofstream(dir_ + "/d/a.yaml") << kHead + entry("alice", alice_);
  std::ofstream(dir_ + "/d/b.yaml") << kHead + entry("bob", bob_);
  std::ofstream(dir_ + "/d/.hidden.yaml") << "no YAML: [";
  std::ofstream(dir_ + "/d/notes.txt") << "no YAML: [";
  const auto list = read_clients(dir_ + "/d");
  ASSERT_TRUE(list.ok()) << list.status().to_string();
  EXPECT_EQ(list->by_key.size(), 2u);
  const std::string before = clients_signature(dir_ + "/d");
  std::ofstream(dir_ + "/d/c.yaml") << kHead;
  EXPECT_NE(clients_signature(dir_ + "/d"), before);
}

TEST_F(Clients, AFileThatOthersCanWriteIsRefused) {
  write(kHead + entry("alice", alice_));
  chmod(file().c_str(), 0666);
  EXPECT_EQ(read_clients(file()).status().code(), Code::kPermissionDenied);
  chmod(file().c_str(), 0600);
  EXPECT_TRUE(read_clients(file()).ok());
  chmod(dir_.c_str(), 0777);
  EXPECT_EQ(read_clients(file()).status().code(), Code::kPermissionDenied);
}

TEST_F(Clients, PatternsOfModules) {
  const ModuleRights rights({"legal", "bio-*", "f?n"});
  for (const char* name : {"legal", "bio-", "bio-2", "fin"}) EXPECT_TRUE(rights.admits(name));
  for (const char* name : {"legal2", "bio", "fiin", "", "Legal"}) EXPECT_FALSE(rights.admits(name));
  EXPECT_FALSE(ModuleRights({}).admits("legal"));
}

class Handshakes : public Clients {
 protected:
  void SetUp() override {
    Clients::SetUp();
    write(kHead + entry("alice", alice_));
    authority_ = *Authority::start({.clients = file()});
    std::string raw(32, '\0');
    zmq_z85_decode(reinterpret_cast<uint8_t*>(raw.data()), alice_.c_str());
    curve_ = {"1.0", "7", kCurveDomain, "127.0.0.1", "", "CURVE", raw};
    const std::string self = "localhost:0:0:" + std::to_string(getpid());
    curve_[3] = self;
    front_ = {"1.0", "8", kFrontDomain, self, "", "NULL"};
  }
  std::string mark(const Frames& request) {
    const Frames answer = admit(request, *authority_);
    EXPECT_EQ(answer.size(), 6u);
    return answer[2] == "200" ? answer[4] : "refused";
  }
  std::unique_ptr<Authority> authority_;
  Frames curve_, front_;
};

TEST_F(Handshakes, KeysAndUsersBecomeMarks) {
  EXPECT_EQ(mark(curve_), key_mark(alice_));
  EXPECT_EQ(mark(front_), kFrontUser);
  EXPECT_EQ(admit(curve_, *authority_)[1], "7");
  // Everybody gets a routing id of his own.
  EXPECT_NE(admit(curve_, *authority_)[5], admit(curve_, *authority_)[5]);
  EXPECT_EQ(admit(curve_, *authority_)[5].substr(0, 14),
            std::string("\x08Identity\0\0\0\x11\1", 14));
}

TEST_F(Handshakes, NothingElseIsAdmitted) {
  for (const Frames& good : {curve_, front_}) {
    for (size_t field = 0; field < good.size(); ++field) {
      if (field == 1 || field == 3 || field == 4) continue;  // number, address, routing id
      for (const std::string& other :
           {std::string(), good[field] + "x", good[field].substr(1), std::string("PLAIN"),
            std::string("GSSAPI"), std::string(40, '\0')}) {
        Frames changed = good;
        changed[field] = other;
        EXPECT_EQ(mark(changed), "refused") << field << ' ' << other;
      }
    }
    Frames cut = good;
    while (!cut.empty()) {
      cut.pop_back();
      EXPECT_EQ(mark(cut), "refused") << cut.size();
    }
    Frames longer = good;
    longer.emplace_back();
    EXPECT_EQ(mark(longer), "refused");
  }
  // Nobody connects but the front.
  for (const std::string& address :
       {"localhost:0:0:" + std::to_string(getppid()), std::string("localhost"), std::string(),
        std::string("::"), std::string("127.0.0.1")}) {
    for (Frames other : {curve_, front_}) {
      other[3] = address;
      EXPECT_EQ(mark(other), "refused") << address;
    }
  }
}

}  // namespace
}  // namespace chimera
