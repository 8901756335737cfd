#include "daemon/config/canary.h"

#include "daemon/config/keys.h"

namespace chimera {
namespace {

constexpr int64_t kMostRequests = 1'000'000;
constexpr double kDayMs = 86'400'000.0;
// A byte that is one of 2^100: more than any model says of a text that it can read at all.
constexpr double kMostBits = 100.0;

}  // namespace

void read_canary(const MapReader& top, YamlProblems& problems, CanaryBounds* out) {
  const YamlNode* node = top.find("canary");
  if (node == nullptr) return;
  const MapReader map(*node, "canary", kCanaryKeys, problems);
  if (!map.valid()) return;
  map.integer("after", 1, kMostRequests, &out->after);
  map.real("error_rate", 0.0, 1.0, &out->error_rate);
  map.real("ms_per_token", 0.0, kDayMs, &out->ms_per_token);
  map.real("bits_per_byte", 0.0, kMostBits, &out->bits_per_byte);
}

}  // namespace chimera
