// Statements that a daemon signs: of an answer (receipt), of a module that it let go.
//
//   {"key":BASE64,"payload":"{\"chimera\":\"receipt/1\",…}","signature":BASE64}
//
// `payload` is canonical JSON (canonical.h) as a text, so that what is signed is there byte by
// byte: the signature is ed25519 (RFC 8032) over it. Its member `chimera` says what it states. The
// whole is canonical JSON too, so that each statement has one text. libsodium computes.
//
// Thread safety: values and free functions.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/json/json.h"
#include "base/status.h"

namespace chimera {

/// Public key that verifies statements.
using StatementKey = std::array<uint8_t, 32>;
std::string key_text(const StatementKey& key);  // base64
Result<StatementKey> parse_statement_key(std::string_view text, const std::string& label);

class StatementSigner {
 public:
  /// The key pair that belongs to a secret of 32 bytes (libsodium's key derivation, context
  /// "receipts"): whoever holds the one needs no second file for the other.
  static StatementSigner from_secret(std::span<const uint8_t, 32> secret);

  const StatementKey& public_key() const { return public_; }
  /// REQUIRES: `payload` is an object with a member `chimera`.
  Json sign(const Json& payload) const;

 private:
  StatementSigner() = default;
  StatementKey public_{};
  std::array<uint8_t, 64> secret_{};
};

/// "sha256:…" of bytes, as statements name them.
std::string digest_text(std::string_view bytes);

/// The payload of a statement that `key` signed; `text` may end with a line feed. Strict:
/// data_corrupt when it is no statement, not canonical, or of another kind than `kind`
/// ("receipt/1"; "": any); permission_denied when another key, or none, signed it. `label` begins
/// the message.
Result<Json> verify_statement(std::string_view text, std::string_view kind, const StatementKey& key,
                              const std::string& label);

}  // namespace chimera
