#include "daemon/server/revocation.h"

#include <thread>
#include <utility>

#include "base/moment.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/answers/reports.h"
#include "daemon/server/calls.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;

// The engine has let go of a module before its revocation is acknowledged; what takes longer is a
// library that ends, or somebody who looks at the list of modules.
constexpr std::chrono::seconds kReleaseLimit{15};
constexpr std::chrono::milliseconds kAsk{5};
constexpr std::chrono::milliseconds kLook{50};  // reads all mappings of the process

bool any(const Traces& traces) {
  return traces.mapped_bytes > 0 || traces.mapped_files > 0 || traces.descriptors > 0;
}

Json before_and_after(uint64_t before, uint64_t after) {
  return {{"before", before}, {"after", after}};
}

/// Waits until nothing holds the module and nothing of it is left: its last holder lets go before
/// what it held is unmapped and closed.
Traces wait_until_gone(const CallContext& context, const RevokedModule& revoked) {
  const auto end = Clock::now() + kReleaseLimit;
  const auto waiting = [&] { return Clock::now() < end && !context.stopping; };
  while (!revoked.module.expired() && waiting()) std::this_thread::sleep_for(kAsk);
  Traces left = revoked.where.look();
  for (; any(left) && waiting(); left = revoked.where.look()) std::this_thread::sleep_for(kLook);
  return left;
}

void prove(CallContext& context, Live& live, const RevokedModule& revoked,
           const ChangeReport& report) {
  const Traces after = wait_until_gone(context, revoked);
  Json fields = to_json(report);
  fields["proof"] = make_revocation(*context.options.signer, revoked, after, report,
                                    format_moment(std::chrono::system_clock::now()));
  live.answer(encode_reply(live.id(), fields));
}

}  // namespace

Json make_revocation(const StatementSigner& signer, const RevokedModule& revoked,
                     const Traces& after, const ChangeReport& report, std::string time) {
  Json last;
  if (revoked.last_pass) {
    last = {{"number", revoked.last_pass->number},
            {"time", format_moment(std::chrono::system_clock::time_point(
                         std::chrono::milliseconds(revoked.last_pass->unix_ms)))}};
  }
  const Traces& before = revoked.before;
  return signer.sign(
      {{"chimera", "revocation/1"},
       {"module", revoked.name},
       {"version", revoked.version},
       {"digest", revoked.digest},
       {"time", std::move(time)},
       {"epoch", report.epoch},
       {"composition", report.composition},
       {"durable", report.durable},
       {"last_pass", std::move(last)},
       {"passes", revoked.passes},
       {"released", revoked.module.expired()},
       {"memory",
        {{"bytes", revoked.bytes},
         {"mapped_bytes", before_and_after(before.mapped_bytes, after.mapped_bytes)},
         {"mapped_files", before_and_after(before.mapped_files, after.mapped_files)}}},
       {"descriptors", before_and_after(before.descriptors, after.descriptors)}});
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Revoke call) {
  if (call.proof && context.options.signer == nullptr) {
    return live->on_error(
        Status(Code::kFailedPrecondition, "revoke.proof: the daemon has no key to sign with",
               "nothing was revoked; leave `proof` out, or name a key in security.key"));
  }
  // Not behind other changes: a revocation overtakes them in the registry.
  context.queries.post(live, [&context, live, call = std::move(call)] {
    Registry& registry = *context.options.registry;
    if (!call.proof) {
      return reply_change(live, "revoke", call.name, registry.revoke(call.name, live->turn));
    }
    const auto revoked = std::make_shared<RevokedModule>();
    const auto report = registry.revoke(call.name, live->turn, revoked.get());
    if (!report.ok()) return reply_change(live, "revoke", call.name, report);
    context.proofs.post(live, [&context, live, revoked, report = *report] {
      prove(context, *live, *revoked, report);
    });
  });
}

}  // namespace chimera
