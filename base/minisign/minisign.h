// Signatures, public and secret keys in the format of minisign 0.11 (jedisct1.github.io/minisign),
// so that its own program and OpenBSD's signify read what is made here and the other way round:
// ed25519 over the BLAKE2b-512 of a text, with a trusted comment that is signed as well. libsodium
// computes.
//
// Secret keys are kept without a password (as `minisign -G -W` makes them): the mode of the file
// protects them.
//
// Thread safety: free functions over values.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace chimera::minisign {

using KeyId = std::array<uint8_t, 8>;

struct PublicKey {
  KeyId id{};
  std::array<uint8_t, 32> key{};
  bool operator==(const PublicKey&) const = default;
};

struct SecretKey {
  KeyId id{};
  std::array<uint8_t, 64> key{};
  PublicKey public_key() const;
};

/// "0123456789ABCDEF", as minisign prints a key's id.
std::string id_text(const KeyId& id);

Result<SecretKey> make_key();

/// The texts of key files, and back. Each problem is told as "LABEL: found X (expected Y)".
std::string format_public_key(const PublicKey& key);
std::string format_secret_key(const SecretKey& key);
Result<PublicKey> parse_public_key(std::string_view text, const std::string& label);
Result<SecretKey> parse_secret_key(std::string_view text, const std::string& label);

/// The text of the signature file of `message`. `comment` is one line.
std::string sign(std::string_view message, const SecretKey& key, const std::string& comment);

struct Signature {
  KeyId id{};
  std::array<uint8_t, 64> signature{};
  std::string comment;  // trusted once verify() said so
  std::array<uint8_t, 64> comment_signature{};
};
/// Strict: four lines as minisign writes them, the first one too, which nothing signs: as sign() or
/// minisign itself writes it without being told another. Of the two kinds of signature only the
/// newer one, of the hash.
Result<Signature> parse_signature(std::string_view text, const std::string& label);

/// Whether `key` signed `message` and the comment.
bool verify(std::string_view message, const Signature& signature, const PublicKey& key);

}  // namespace chimera::minisign
