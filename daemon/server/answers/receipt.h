// Receipts: what made an answer, as a statement that the daemon signs (base/statement/statement.h).
//
// Thread safety: free functions over values; begin_receipt() before the request is submitted.
#pragma once

#include "base/json/json.h"
#include "base/status.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/server/answers/live.h"

namespace chimera {

/// Provenance of an answer: the last epoch it used, and all of them with `all_epochs` or when there
/// was more than one; the modules' versions, digests, shares and rows.
Json provenance_json(const DoneEvent& event, bool all_epochs);

/// Of a request that asked for a receipt (Live::request_text): makes the digest that names it.
/// failed_precondition without a `signer`, which is borrowed and outlives the request.
Status begin_receipt(const StatementSigner* signer, Live& live);

/// failed_precondition once somebody wrote to the files that digests of a receipt stand for: before
/// a request is taken, and before its receipt is signed.
Status check_receipt_files();

/// The signed statement "receipt/1" of docs/security.md. `time`: when it is made, UTC.
Json make_receipt(const Receipt& receipt, const DoneEvent& event, std::string time);

}  // namespace chimera
