#include "base/statement/statement.h"

#include <fmt/format.h>
#include <sodium.h>

#include "base/json/reader.h"
#include "base/statement/canonical.h"

namespace chimera {
namespace {

constexpr size_t kMaxStatement = size_t{64} << 20;  // bytes
using Signature = std::array<uint8_t, crypto_sign_BYTES>;

/// libsodium has to be told to begin; it may be told more than once.
void begin() { [[maybe_unused]] const int begun = sodium_init(); }

std::string base64(std::span<const uint8_t> bytes) {
  std::string out(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), bytes.data(), bytes.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  out.pop_back();  // its NUL
  return out;
}

/// All of `out`, written in the one way that encoders write it.
bool from_base64(std::string_view text, std::span<uint8_t> out) {
  size_t got = 0;
  const char* end = nullptr;
  return sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &got, &end,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         got == out.size() && end == text.data() + text.size() && base64(out) == text;
}

Status corrupt(const std::string& label, std::string_view what) {
  return {Code::kDataCorrupt, fmt::format("{}: {}", label, what),
          "it has to be as the daemon gave it"};
}

struct Parts {
  std::string payload;
  Signature signature{};
  StatementKey key{};
};

Result<Parts> parts_of(std::string_view text, const std::string& label) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.size() > kMaxStatement) {
    return corrupt(label, fmt::format("found {} bytes (expected a statement of at most {})",
                                      text.size(), kMaxStatement));
  }
  const auto json = parse_json(text);
  if (!json.ok()) return corrupt(label, json.status().message());
  const std::string* const payload = (*json)["payload"].string();
  const std::string* const signature = (*json)["signature"].string();
  const std::string* const key = (*json)["key"].string();
  if (payload == nullptr || signature == nullptr || key == nullptr || json->size() != 3) {
    return corrupt(label, "found other JSON (expected the members key, payload and signature)");
  }
  // One text for each statement: nobody changes a byte of it without being noticed.
  if (canonical_json(*json) != text) {
    return corrupt(label, "found no canonical JSON (RFC 8785; expected it without blanks)");
  }
  Parts parts{*payload};
  if (!from_base64(*signature, parts.signature) || !from_base64(*key, parts.key)) {
    return corrupt(label,
                   "signature or key: found no base64 of their length (expected 64 and 32 "
                   "bytes)");
  }
  return parts;
}

}  // namespace

std::string key_text(const StatementKey& key) { return base64(key); }

Result<StatementKey> parse_statement_key(std::string_view text, const std::string& label) {
  StatementKey key{};
  if (from_base64(text, key)) return key;
  return Status(Code::kInvalidArgument,
                label + ": found no key of statements (expected base64 of 32 bytes)");
}

StatementSigner StatementSigner::from_secret(std::span<const uint8_t, 32> secret) {
  begin();
  static_assert(crypto_kdf_KEYBYTES == 32 && crypto_sign_SEEDBYTES == 32);
  std::array<uint8_t, crypto_sign_SEEDBYTES> seed{};
  crypto_kdf_derive_from_key(seed.data(), seed.size(), /*subkey_id=*/1, "receipts", secret.data());
  StatementSigner out;
  crypto_sign_seed_keypair(out.public_.data(), out.secret_.data(), seed.data());
  sodium_memzero(seed.data(), seed.size());
  return out;
}

Json StatementSigner::sign(const Json& payload) const {
  std::string text = canonical_json(payload);
  Signature signature{};
  crypto_sign_detached(signature.data(), nullptr,
                       reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                       secret_.data());
  return {{"key", base64(public_)}, {"payload", std::move(text)}, {"signature", base64(signature)}};
}

std::string digest_text(std::string_view bytes) {
  std::array<uint8_t, crypto_hash_sha256_BYTES> hash{};
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size());
  std::string out = "sha256:";
  for (const uint8_t byte : hash) fmt::format_to(std::back_inserter(out), "{:02x}", byte);
  return out;
}

Result<Json> verify_statement(std::string_view text, std::string_view kind, const StatementKey& key,
                              const std::string& label) {
  begin();
  const auto parts = parts_of(text, label);
  if (!parts.ok()) return parts.status();
  if (parts->key != key) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: signed by the key {} (expected {})", label, key_text(parts->key),
                              key_text(key)),
                  "name the public key of the daemon that gave it");
  }
  const std::string& payload = parts->payload;
  if (crypto_sign_verify_detached(parts->signature.data(),
                                  reinterpret_cast<const unsigned char*>(payload.data()),
                                  payload.size(), key.data()) != 0) {
    return Status(Code::kPermissionDenied,
                  label + ": its signature is not of what it says (expected one of the server)",
                  "it was changed, or somebody else made it");
  }
  auto stated = parse_json(payload);
  if (!stated.ok() || canonical_json(*stated) != payload) {
    return corrupt(label, "payload: found no canonical JSON (RFC 8785)");
  }
  if (!kind.empty() && stated->value("chimera", "") != kind) {
    return corrupt(label, fmt::format("states something else (expected {})", kind));
  }
  return stated;
}

}  // namespace chimera
