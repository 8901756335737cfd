#include "base/io/digest_memo.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>
#include <new>

#include "base/io/digest.h"
#include "base/threads/background.h"
#include "base/threads/progress.h"

namespace chimera {
namespace {

// Contents remembered: more files than the modules that a busy daemon cycles through have.
constexpr size_t kRemembered = 1024;
// Taken in one go: some 0.1 ms.
constexpr size_t kMemoPiece = 256u << 10;

struct FreeMac {
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};

}  // namespace

DigestMemo::DigestMemo() {
  if (RAND_bytes(key_.data(), static_cast<int>(key_.size())) != 1) throw std::bad_alloc();
}

DigestMemo::~DigestMemo() { OPENSSL_cleanse(key_.data(), key_.size()); }

std::string DigestMemo::sha256_of(std::span<const std::byte> bytes) {
  const Tag tag = tag_of(bytes);
  if (std::string digest = recall(tag, bytes.size()); !digest.empty()) {
    note_progress(bytes.size());
    return digest;
  }
  std::string digest = chimera::sha256_of(bytes, nullptr);
  if (work_given_up()) return digest;  // which was left in the middle
  const MutexLock lock(mutex_);
  ++hashed_;
  known_.push_front({tag, bytes.size(), digest});
  if (known_.size() > kRemembered) known_.pop_back();
  return digest;
}

uint64_t DigestMemo::hashed() const {
  const MutexLock lock(mutex_);
  return hashed_;
}

DigestMemo::Tag DigestMemo::tag_of(std::span<const std::byte> bytes) const {
  static EVP_MAC* const algorithm = EVP_MAC_fetch(nullptr, "POLY1305", nullptr);
  const std::unique_ptr<EVP_MAC_CTX, FreeMac> context(EVP_MAC_CTX_new(algorithm));
  if (context == nullptr || EVP_MAC_init(context.get(), key_.data(), key_.size(), nullptr) != 1)
    throw std::bad_alloc();  // the one way it can fail
  for (size_t at = 0; at < bytes.size(); at += kMemoPiece) {
    const auto piece = bytes.subspan(at, std::min(kMemoPiece, bytes.size() - at));
    EVP_MAC_update(context.get(), reinterpret_cast<const unsigned char*>(piece.data()),
                   piece.size());
    if (work_given_up()) break;
    give_way();
  }
  Tag tag{};
  size_t length = 0;
  if (EVP_MAC_final(context.get(), tag.data(), &length, tag.size()) != 1 || length != tag.size())
    throw std::bad_alloc();
  return tag;
}

/// Empty when unknown.
std::string DigestMemo::recall(const Tag& tag, uint64_t size) {
  const MutexLock lock(mutex_);
  const auto found = std::find_if(known_.begin(), known_.end(),
                                  [&](const Known& k) { return k.size == size && k.tag == tag; });
  if (found == known_.end()) return {};
  known_.splice(known_.begin(), known_, found);
  return known_.front().digest;
}

std::string sha256_of(std::span<const std::byte> bytes, DigestMemo* memo) {
  if (memo != nullptr) return memo->sha256_of(bytes);
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace chimera
