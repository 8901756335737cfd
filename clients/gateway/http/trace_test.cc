#include "clients/gateway/http/trace.h"

#include <gtest/gtest.h>

#include <set>

#include "base/trace_parent.h"

namespace chimera::gateway {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736", kParent = "00f067aa0ba902b7";

TEST(Trace, GoesOnWithASpanOfItsOwn) {
  for (const std::string flags : {"00", "01"}) {
    const auto trace = TraceParent::parse(
        trace_of({{"traceparent", "00-" + kTrace + "-" + kParent + "-" + flags}}));
    ASSERT_TRUE(trace.has_value());
    EXPECT_EQ(trace->trace_id, kTrace);
    EXPECT_NE(trace->parent_id, kParent);
    EXPECT_EQ(trace->flags, flags == "01" ? 1 : 0);
  }
}

TEST(Trace, BeginsANewOneWhereNoneIsNamed) {
  const std::string good = "00-" + kTrace + "-" + kParent + "-01";
  std::set<std::string> ids;
  for (const Headers& headers :
       {Headers{}, Headers{{"traceparent", ""}}, Headers{{"traceparent", good + "\r\nx: y"}},
        Headers{{"traceparent", std::string(1 << 16, '0')}},
        Headers{{"traceparent", "ff" + good.substr(2)}},
        Headers{{"traceparent", good}, {"traceparent", good}}, Headers{{"tracestate", good}}}) {
    const auto trace = TraceParent::parse(trace_of(headers));
    ASSERT_TRUE(trace.has_value());
    EXPECT_NE(trace->trace_id, kTrace);
    EXPECT_EQ(trace->flags, 0);
    EXPECT_TRUE(ids.insert(trace->trace_id).second);
  }
}

}  // namespace
}  // namespace chimera::gateway
