// Who is admitted: as a function, and by real sockets of peers that choose their own routing id.
#include "daemon/server/admission.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

using Frames = std::vector<std::string>;

Frames request_of(const std::string& routing_id) {
  return {"1.0", "7", kAdmissionDomain, "localhost:1234", routing_id, "NULL"};
}

TEST(Admission, PeersWithoutARoutingIdOfTheirOwn) {
  EXPECT_EQ(admit(request_of("")), (Frames{"1.0", "7", "200", "", "", ""}));
  for (const std::string& id :
       {std::string("me"), std::string("\0\0\0\0\1", 5), std::string(255, 'x')}) {
    const Frames answer = admit(request_of(id));
    ASSERT_EQ(answer.size(), 6u);
    EXPECT_EQ(answer[1], "7");
    EXPECT_EQ(answer[2], "400");
  }
}

TEST(Admission, NothingButARequestOfOurOwnSockets) {
  for (size_t field = 0; field < 6; ++field) {
    Frames changed = request_of("");
    if (field == 1 || field == 3) continue;  // number and address of the request are free
    changed[field] += "x";
    EXPECT_EQ(admit(changed)[2], "400") << field;
  }
  Frames cut = request_of("");
  while (!cut.empty()) {
    cut.pop_back();
    EXPECT_EQ(admit(cut)[2], "400") << cut.size();
  }
}

/// Whether a DEALER with this routing id gets a message through to a ROUTER of the domain.
bool arrives(const std::string& routing_id) {
  zmq::context_t ours, theirs;
  const Admission admission(ours);
  zmq::socket_t router(ours, zmq::socket_type::router);
  router.set(zmq::sockopt::zap_domain, kAdmissionDomain);
  router.set(zmq::sockopt::linger, 0);
  router.bind("tcp://127.0.0.1:*");
  zmq::socket_t dealer(theirs, zmq::socket_type::dealer);
  dealer.set(zmq::sockopt::linger, 0);
  if (!routing_id.empty()) dealer.set(zmq::sockopt::routing_id, routing_id);
  dealer.connect(router.get(zmq::sockopt::last_endpoint));
  dealer.send(zmq::str_buffer("hello"));
  router.set(zmq::sockopt::rcvtimeo, routing_id.empty() ? 20'000 : 300);
  zmq::message_t frame;
  return router.recv(frame).has_value();
}

TEST(Admission, IsAskedInEveryHandshake) {
  EXPECT_TRUE(arrives(""));
  EXPECT_FALSE(arrives("me"));
}

}  // namespace
}  // namespace chimera
