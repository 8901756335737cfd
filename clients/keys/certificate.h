// Certificates in ZeroMQ's own format (ZPL, ZeroMQ RFC 4), as czmq and pyzmq write and read them:
// NAME.pub holds a public CURVE key, NAME.key the secret one beside it. Keys are made and checked
// by libzmq; text of 40 characters of Z85 (RFC 32) stands for 32 bytes.
//
// From the secret key of a daemon follows the pair that it signs statements with
// (base/statement/statement.h). The public key of that pair is metadata, which others skip.
//
// Thread safety: free functions over values; files are read and written by the calling thread.
#pragma once

#include <string>
#include <string_view>

#include "base/statement/statement.h"
#include "base/status.h"

namespace chimera::keys {

inline constexpr size_t kKeyChars = 40;

struct Certificate {
  std::string name;        // of metadata; may be empty
  std::string public_key;  // Z85
  std::string secret_key;  // Z85; empty in a public certificate
  /// Of the statements that its owner signs, base64; empty where it is not known.
  std::string statement_key = {};
};

/// Whether `text` is a key as Z85 writes it.
bool is_key(std::string_view text);

/// A new pair. failed_precondition when libzmq was built without CURVE.
Result<Certificate> make_certificate(const std::string& name);

/// Signs statements as the owner of a secret key. REQUIRES: is_key(secret_key).
StatementSigner statement_signer(const std::string& secret_key);

/// The text of the file; the secret one when `secret`.
std::string format_certificate(const Certificate& certificate, bool secret);
/// Strict inside of the section `curve`; other sections are skipped. Each problem is told as
/// "LABEL:LINE: found X (expected Y)". The public keys of a pair must be those of its secret key.
Result<Certificate> parse_certificate(std::string_view text, const std::string& label);

/// A file with a secret key, which nobody but its owner may read (permission_denied).
Result<Certificate> read_secret(const std::string& file);
/// The public keys of a file, which may hold the secret one as well.
Result<Certificate> read_public(const std::string& file);

/// Writes DIR/NAME.key (0600) and DIR/NAME.pub; already_exists when either is there, and then
/// writes nothing. DIR is made, 0700, when it is missing.
Status write_certificate(const Certificate& certificate, const std::string& dir);

/// The same for the texts of any pair.
Status write_pair(const std::string& dir, const std::string& name, const std::string& secret,
                  const std::string& open);

}  // namespace chimera::keys
