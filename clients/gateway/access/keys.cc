#include "clients/gateway/access/keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <filesystem>

#include "base/io/digest.h"
#include "base/io/env.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxKeyFile = 4096;

Status make_directory(const std::string& path) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (std::filesystem::exists(parent, error)) return {};
  std::filesystem::create_directories(parent, error);
  if (!error) {
    std::filesystem::permissions(parent, std::filesystem::perms::owner_all, error);
  }
  if (!error) return {};
  return Status(Code::kPermissionDenied, fmt::format("{}: {}", parent.string(), error.message()),
                "name another file in admin_key");
}

}  // namespace

bool Principal::may(Right right) const {
  switch (right) {
    case Right::kGenerate:
      return generate;
    case Right::kObserve:
      return observe;
    case Right::kChange:
      return change;
  }
  return false;
}

void Principal::allow(Right right) {
  switch (right) {
    case Right::kGenerate:
      generate = true;
      return;
    case Right::kObserve:
      observe = true;
      return;
    case Right::kChange:
      change = true;
  }
}

std::string key_digest(std::string_view key) { return sha256_of(key); }

void Keys::add(std::string digest, Principal principal) {
  entries_.push_back({std::move(digest), std::make_shared<const Principal>(std::move(principal))});
}

std::shared_ptr<const Principal> Keys::find(std::string_view key) const {
  const std::string digest = key_digest(key);
  std::shared_ptr<const Principal> found;
  for (const Entry& entry : entries_) {  // all of them: the time must not tell which
    const bool equal = entry.digest.size() == digest.size() &&
                       CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    if (equal) found = entry.principal;
  }
  return found;
}

Result<std::string> new_key() {
  std::array<unsigned char, 32> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return Status(Code::kUnavailable, "key: the system gave no random bytes");
  }
  std::string key = "chimera-";
  for (const unsigned char byte : bytes) fmt::format_to(std::back_inserter(key), "{:02x}", byte);
  return key;
}

Result<std::string> admin_key(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return errno_status(path, errno);
    CHIMERA_RETURN_IF_ERROR(make_directory(path));
    auto key = new_key();
    if (!key.ok()) return key;
    CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), path, *key + "\n", 0600));
    return key;
  }
  if ((info.st_mode & 077) != 0) {
    return Status(
        Code::kPermissionDenied,
        fmt::format("{}: mode {:o} (expected 600: it holds a key)", path, info.st_mode & 0777U),
        fmt::format("chmod 600 {}", path));
  }
  auto text = read_file(Env::system(), path, kMaxKeyFile);
  if (!text.ok()) return text;
  while (text->ends_with('\n')) text->pop_back();
  if (text->size() < 16) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: {} bytes (expected a key of at least 16)", path, text->size()),
                  "remove the file, and the next start makes a new one");
  }
  return text;
}

std::optional<std::string_view> presented_key(const Request& request) {
  if (const std::string* given = request.header("x-api-key")) return *given;
  const std::string* given = request.header("authorization");
  if (given == nullptr) return std::nullopt;
  constexpr std::string_view kScheme = "bearer ";
  std::string_view text = *given;
  if (text.size() < kScheme.size()) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kScheme[i]) {
      return std::nullopt;
    }
  }
  text.remove_prefix(kScheme.size());
  return text;
}

}  // namespace chimera::gateway
