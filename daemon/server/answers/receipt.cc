#include "daemon/server/answers/receipt.h"

#include <utility>

#include "base/io/mapped_changes.h"
#include "base/json/reader.h"
#include "base/statement/canonical.h"

namespace chimera {
namespace {

Json epochs_json(const std::vector<EpochUse>& epochs) {
  Json out = Json::array();
  for (const EpochUse& use : epochs) {
    out.push_back({{"epoch", use.epoch}, {"composition", use.composition}, {"from", use.from}});
  }
  return out;
}

}  // namespace

Json provenance_json(const DoneEvent& event, bool all_epochs) {
  Json modules = Json::object();
  for (const auto& [name, share] : event.modules) {
    modules[name] = {{"version", share.version},
                     {"digest", share.digest},
                     {"share", share.share},
                     {"rows", share.rows}};
  }
  Json out = {{"epoch", event.epoch},
              {"composition", event.composition},
              {"modules", std::move(modules)},
              {"backbone", {{"share", event.backbone_share}, {"rows", event.backbone_rows}}}};
  if (all_epochs || event.epochs.size() > 1) out["epochs"] = epochs_json(event.epochs);
  if (event.dropped_choices > 0) out["dropped_choices"] = event.dropped_choices;
  return out;
}

Status begin_receipt(const StatementSigner* signer, Live& live) {
  if (live.request_text.empty()) return {};
  const std::string text = std::exchange(live.request_text, {});
  if (signer == nullptr) {
    return {Code::kFailedPrecondition, "receipt: the daemon has no key to sign with",
            "its deployment names one in security.key; `chimera key new` makes it"};
  }
  CHIMERA_RETURN_IF_ERROR(check_receipt_files());
  const auto request = parse_json(text);
  if (!request.ok()) return request.status();
  const PrincipalPtr& client = live.peer().principal;
  live.receipt =
      Receipt{signer, live.id(), std::string(live.call), client == nullptr ? "" : client->name,
              digest_text(canonical_json(*request))};
  return {};
}

Status check_receipt_files() {
  if (changed_mappings().empty()) return {};
  return {Code::kFailedPrecondition,
          "receipt: files of the backbone were written to since they were loaded (expected the "
          "contents that its digests name); `info` lists them",
          "its operator puts intact ones in place and restarts the daemon"};
}

Json make_receipt(const Receipt& receipt, const DoneEvent& event, std::string time) {
  Json payload = {{"chimera", "receipt/1"},
                  {"id", receipt.id},
                  {"call", receipt.call},
                  {"client", receipt.client},
                  {"request", receipt.request},
                  {"time", std::move(time)},
                  {"finish_reason", kFinishReasonNames.name(event.finish_reason)},
                  {"usage",
                   {{"prompt_tokens", event.prompt_tokens},
                    {"completion_tokens", event.completion_tokens},
                    {"cached_tokens", event.cached_tokens}}},
                  {"provenance", provenance_json(event, /*all_epochs=*/true)}};
  if (receipt.call == "score") {
    payload["nats"] = event.nats;
    payload["count"] = event.count;
  } else {
    payload["tokens"] = digest_text(canonical_json(Json(event.tokens)));
  }
  return receipt.signer->sign(payload);
}

}  // namespace chimera
