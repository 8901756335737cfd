#include "experts/offline/sign.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/minisign/minisign.h"
#include "base/moment.h"
#include "experts/module/files.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

constexpr const char* kManifest = "module.yaml";
constexpr const char* kSignature = "module.yaml.minisig";
constexpr size_t kMaxKey = 4096, kMaxSignature = 8192;

Result<std::string> manifest_text(const std::string& dir) {
  const auto file = ModuleFile::open(dir, kManifest);
  return file.ok() ? file->text(kMaxManifestBytes) : Result<std::string>(file.status());
}

Result<minisign::SecretKey> read_secret_key(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return errno_status(file, errno);
  if ((info.st_mode & 077) != 0) {
    return Status(
        Code::kPermissionDenied,
        fmt::format("{}: found mode {:04o} (expected a secret key that nobody else reads)", file,
                    info.st_mode & 07777),
        "chmod 600 it; if others may have read it, make a new key");
  }
  const auto text = read_file(Env::system(), file, kMaxKey);
  if (!text.ok()) return text.status();
  return minisign::parse_secret_key(*text, file);
}

}  // namespace

Result<Json> sign_module(const std::string& dir, const std::string& key_file,
                         const std::string& expires) {
  if (!expires.empty() && !parse_moment(expires)) {
    return Status(Code::kInvalidArgument,
                  fmt::format("--expires: {} (expected a day or moment of UTC)", expires),
                  "for instance 2027-01-31 or 2027-01-31T18:00:00Z");
  }
  const auto key = read_secret_key(key_file);
  if (!key.ok()) return key.status();
  const auto text = manifest_text(dir);
  if (!text.ok()) return text.status();
  // Sealed, that is: a signature over it covers the bytes of every file.
  const auto manifest = parse_manifest(*text, dir + "/" + kManifest, Sealing::kSealed);
  if (!manifest.ok()) return manifest.status();
  std::string comment = fmt::format("timestamp:{} file:{} module:{} version:{}", std::time(nullptr),
                                    kManifest, manifest->name, manifest->version);
  if (!expires.empty()) comment += " expires:" + expires;
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), dir + "/" + kSignature,
                                             minisign::sign(*text, *key, comment), 0644));
  return Json{{"module", manifest->name},
              {"version", manifest->version},
              {"digest", manifest->digest},
              {"key", minisign::id_text(key->id)},
              {"comment", comment}};
}

Result<std::string> check_module_signature(const std::string& dir, const std::string& key_file) {
  const auto key_text = read_file(Env::system(), key_file, kMaxKey);
  if (!key_text.ok()) return key_text.status();
  const auto key = minisign::parse_public_key(*key_text, key_file);
  if (!key.ok()) return key.status();
  const auto text = manifest_text(dir);
  if (!text.ok()) return text.status();
  const auto file = ModuleFile::open(dir, kSignature);
  const auto signature_text =
      file.ok() ? file->text(kMaxSignature) : Result<std::string>(file.status());
  if (!signature_text.ok()) return signature_text.status();
  const auto signature = minisign::parse_signature(*signature_text, dir + "/" + kSignature);
  if (!signature.ok()) return signature.status();
  if (minisign::verify(*text, *signature, *key)) return signature->comment;
  return Status(Code::kPermissionDenied,
                fmt::format("{}: not signed by key {} (found one by {})", dir,
                            minisign::id_text(key->id), minisign::id_text(signature->id)),
                "it was changed after it was signed, or another key signed it");
}

}  // namespace chimera
