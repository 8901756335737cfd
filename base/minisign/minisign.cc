#include "base/minisign/minisign.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace chimera::minisign {
namespace {

using Bytes = std::vector<uint8_t>;
using Hash = std::array<uint8_t, crypto_generichash_BYTES_MAX>;

constexpr std::string_view kUntrusted = "untrusted comment: ", kTrusted = "trusted comment: ";
// First lines of signatures.
constexpr std::string_view kOurs = "signature from chimera module sign",
                           kTheirs = "signature from minisign secret key";
// Algorithms: of keys and of signatures of a hash; key derivation "none"; checksum BLAKE2b.
constexpr std::array<uint8_t, 2> kKey = {'E', 'd'}, kHashed = {'E', 'D'}, kNoKdf = {0, 0},
                                 kChecksum = {'B', '2'};
// A secret key: algorithms, salt and limits of a password, id and key, checksum.
constexpr size_t kPasswordBytes = 32 + 8 + 8, kChecksumBytes = 32;
constexpr size_t kPublicBytes = 2 + 8 + 32, kSignatureBytes = 2 + 8 + 64;
constexpr size_t kSecretBytes = 6 + kPasswordBytes + 8 + 64 + kChecksumBytes;
constexpr size_t kMaxComment = 1024;

template <class... Parts>
Bytes joined(const Parts&... parts) {
  Bytes out;
  (out.insert(out.end(), parts.begin(), parts.end()), ...);
  return out;
}

std::string base64(const Bytes& bytes) {
  std::string out(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), bytes.data(), bytes.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  out.pop_back();  // its NUL
  return out;
}

/// Exactly `size` bytes, written in the one way that encoders write them.
bool from_base64(std::string_view text, size_t size, Bytes* out) {
  out->assign(size, 0);
  size_t got = 0;
  const char* end = nullptr;
  if (sodium_base642bin(out->data(), size, text.data(), text.size(), nullptr, &got, &end,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    return false;
  }
  return got == size && end == text.data() + text.size() && base64(*out) == text;
}

Status wrong(const std::string& label, std::string_view what) {
  return {Code::kInvalidArgument, fmt::format("{}: {}", label, what)};
}

/// The lines of a file; the last one may lack its end.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty() && lines.size() <= 4) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// The bytes of a key file: a comment, then one line.
Result<Bytes> key_bytes(std::string_view text, const std::string& label, size_t size,
                        std::string_view what) {
  const auto lines = lines_of(text);
  Bytes bytes;
  if (lines.size() != 2 || !lines[0].starts_with(kUntrusted) ||
      !from_base64(lines[1], size, &bytes) ||
      !std::equal(kKey.begin(), kKey.end(), bytes.begin())) {
    return wrong(label, fmt::format("found no {} of minisign (expected one)", what));
  }
  return bytes;
}

template <size_t N>
void take(const Bytes& bytes, size_t at, std::array<uint8_t, N>* out) {
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), N, out->begin());
}

Hash hash_of(std::string_view message) {
  Hash out{};
  crypto_generichash(out.data(), out.size(), reinterpret_cast<const uint8_t*>(message.data()),
                     message.size(), nullptr, 0);
  return out;
}

std::array<uint8_t, 64> signature_of(const uint8_t* text, size_t size, const SecretKey& key) {
  std::array<uint8_t, 64> out{};
  crypto_sign_detached(out.data(), nullptr, text, size, key.key.data());
  return out;
}

/// What the second signature is over.
Bytes with_comment(const std::array<uint8_t, 64>& signature, const std::string& comment) {
  return joined(signature, comment);
}

}  // namespace

PublicKey SecretKey::public_key() const {
  PublicKey out;
  out.id = id;
  std::copy_n(key.begin() + 32, 32, out.key.begin());
  return out;
}

std::string id_text(const KeyId& id) {
  std::string out;
  for (auto byte = id.rbegin(); byte != id.rend(); ++byte) out += fmt::format("{:02X}", *byte);
  return out;
}

Result<SecretKey> make_key() {
  if (sodium_init() < 0) {
    return Status(Code::kUnavailable, "key: libsodium finds no random numbers", "try again");
  }
  SecretKey out;
  PublicKey unused;
  crypto_sign_keypair(unused.key.data(), out.key.data());
  randombytes_buf(out.id.data(), out.id.size());
  return out;
}

std::string format_public_key(const PublicKey& key) {
  return fmt::format("{}minisign public key {}\n{}\n", kUntrusted, id_text(key.id),
                     base64(joined(kKey, key.id, key.key)));
}

std::string format_secret_key(const SecretKey& key) {
  const Bytes no_password(kPasswordBytes, 0), no_checksum(kChecksumBytes, 0);
  return fmt::format(
      "{}minisign unencrypted secret key\n{}\n", kUntrusted,
      base64(joined(kKey, kNoKdf, kChecksum, no_password, key.id, key.key, no_checksum)));
}

Result<PublicKey> parse_public_key(std::string_view text, const std::string& label) {
  const auto bytes = key_bytes(text, label, kPublicBytes, "public key");
  if (!bytes.ok()) return bytes.status();
  PublicKey out;
  take(*bytes, 2, &out.id);
  take(*bytes, 10, &out.key);
  return out;
}

Result<SecretKey> parse_secret_key(std::string_view text, const std::string& label) {
  const auto bytes = key_bytes(text, label, kSecretBytes, "secret key");
  if (!bytes.ok()) return bytes.status();
  if (!std::equal(kNoKdf.begin(), kNoKdf.end(), bytes->begin() + 2)) {
    return Status(Code::kInvalidArgument,
                  label + ": found a key with a password (expected one without)",
                  "`chimera key new NAME --for modules` and `minisign -G -W` make such keys");
  }
  SecretKey out;
  take(*bytes, 6 + kPasswordBytes, &out.id);
  take(*bytes, 6 + kPasswordBytes + 8, &out.key);
  // minisign leaves the checksum of such keys empty; that both halves are one key can be computed.
  std::array<uint8_t, 32> seed{}, public_half{};
  std::array<uint8_t, 64> whole{};
  crypto_sign_ed25519_sk_to_seed(seed.data(), out.key.data());
  crypto_sign_seed_keypair(public_half.data(), whole.data(), seed.data());
  if (whole != out.key) return wrong(label, "found a secret key whose halves do not fit");
  return out;
}

std::string sign(std::string_view message, const SecretKey& key, const std::string& comment) {
  const Hash hash = hash_of(message);
  const auto signature = signature_of(hash.data(), hash.size(), key);
  const Bytes commented = with_comment(signature, comment);
  const auto global = signature_of(commented.data(), commented.size(), key);
  return fmt::format("{}{}\n{}\n{}{}\n{}\n", kUntrusted, kOurs,
                     base64(joined(kHashed, key.id, signature)), kTrusted, comment,
                     base64(joined(global)));
}

Result<Signature> parse_signature(std::string_view text, const std::string& label) {
  const auto lines = lines_of(text);
  if (lines.size() != 4 || !lines[2].starts_with(kTrusted) || lines[2].size() > kMaxComment) {
    return wrong(label, "found no signature of minisign (expected its four lines)");
  }
  if (lines[0] != fmt::format("{}{}", kUntrusted, kOurs) &&
      lines[0] != fmt::format("{}{}", kUntrusted, kTheirs)) {
    return wrong(label, fmt::format("found another first line (expected \"{}{}\" or \"{}{}\")",
                                    kUntrusted, kOurs, kUntrusted, kTheirs));
  }
  Bytes first, second;
  Signature out;
  if (!from_base64(lines[1], kSignatureBytes, &first) ||
      !from_base64(lines[3], out.comment_signature.size(), &second)) {
    return wrong(label, "found no signature of minisign (expected base64 of its length)");
  }
  if (!std::equal(kHashed.begin(), kHashed.end(), first.begin())) {
    return wrong(label,
                 "found another kind of signature (expected one of the hash, as minisign 0.8 "
                 "and later make them)");
  }
  take(first, 2, &out.id);
  take(first, 10, &out.signature);
  take(second, 0, &out.comment_signature);
  out.comment = lines[2].substr(kTrusted.size());
  return out;
}

bool verify(std::string_view message, const Signature& signature, const PublicKey& key) {
  if (signature.id != key.id) return false;
  const Hash hash = hash_of(message);
  if (crypto_sign_verify_detached(signature.signature.data(), hash.data(), hash.size(),
                                  key.key.data()) != 0) {
    return false;
  }
  const Bytes commented = with_comment(signature.signature, signature.comment);
  return crypto_sign_verify_detached(signature.comment_signature.data(), commented.data(),
                                     commented.size(), key.key.data()) == 0;
}

}  // namespace chimera::minisign
