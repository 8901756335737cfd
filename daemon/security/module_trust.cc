#include "daemon/security/module_trust.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/moment.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

constexpr const char* kManifest = "module.yaml";
constexpr const char* kSignature = "module.yaml.minisig";
constexpr size_t kMaxKeyFile = 4096, kMaxSignature = 8192;
constexpr std::string_view kExpires = "expires:";

Status refused(const Manifest& manifest, std::string_view why, std::string hint) {
  return {Code::kPermissionDenied,
          fmt::format("module {} {}: {}", manifest.name, manifest.version, why), std::move(hint)};
}

Result<std::vector<minisign::PublicKey>> read_keys(const std::string& dir) {
  std::vector<minisign::PublicKey> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() != ".pub") continue;
    const std::string file = it->path().string();
    CHIMERA_RETURN_IF_ERROR(check_writers(file));
    const auto text = read_file(Env::system(), file, kMaxKeyFile);
    if (!text.ok()) return text.status();
    const auto key = minisign::parse_public_key(*text, file);
    if (!key.ok()) return key.status();
    out.push_back(*key);
  }
  if (error && error.value() != ENOENT) return errno_status(dir, error.value());
  return out;
}

const minisign::PublicKey* find(const std::vector<minisign::PublicKey>& keys,
                                const minisign::KeyId& id) {
  const auto key = std::find_if(keys.begin(), keys.end(),
                                [&](const minisign::PublicKey& k) { return k.id == id; });
  return key == keys.end() ? nullptr : &*key;
}

/// The moment that a trusted comment names, a word "expires:…" of it. An unreadable one is past.
bool expired(const std::string& comment) {
  std::string_view rest = comment;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find_first_of(" \t"), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!word.starts_with(kExpires)) continue;
    const auto at = parse_moment(std::string(word.substr(kExpires.size())));
    if (!at || *at <= std::chrono::system_clock::now()) return true;
  }
  return false;
}

/// Its numbers between dots.
std::vector<uint64_t> numbers_of(std::string_view version) {
  std::vector<uint64_t> out;
  while (!version.empty()) {
    const size_t end = std::min(version.find('.'), version.size());
    uint64_t number = 0;
    std::from_chars(version.data(), version.data() + end, number);
    out.push_back(number);
    version.remove_prefix(std::min(end + 1, version.size()));
  }
  while (!out.empty() && out.back() == 0) out.pop_back();
  return out;
}

}  // namespace

bool is_older(const std::string& x, const std::string& y) {
  const auto split = [](const std::string& version) {
    const size_t hyphen = std::min(version.find('-'), version.size());
    return std::pair(numbers_of(std::string_view(version).substr(0, hyphen)),
                     hyphen == version.size());
  };
  return split(x) < split(y);
}

Result<std::unique_ptr<ModuleTrust>> ModuleTrust::open(TrustOptions options) {
  auto trust = std::unique_ptr<ModuleTrust>(new ModuleTrust(std::move(options)));
  CHIMERA_RETURN_IF_ERROR(trust->reload());
  return trust;
}

Status ModuleTrust::reload() {
  auto read = std::make_shared<Keys>();
  if (!options_.keys.empty()) {
    CHIMERA_RETURN_IF_ERROR(check_writers(options_.keys).with_context("trust.keys"));
    auto good = read_keys(options_.keys);
    if (!good.ok()) return good.status().with_context("trust.keys");
    auto revoked = read_keys(options_.keys + "/revoked");
    if (!revoked.ok()) return revoked.status().with_context("trust.keys");
    *read = {std::move(*good), std::move(*revoked)};
  }
  const MutexLock lock(mutex_);
  keys_ = std::move(read);
  return {};
}

std::shared_ptr<const ModuleTrust::Keys> ModuleTrust::keys() const {
  const MutexLock lock(mutex_);
  return keys_;
}

Status ModuleTrust::check_place(const std::string& dir, const Manifest& manifest,
                                KnownPlaces* known) const {
  const Status place = manifest.kind == ModuleKind::kLibrary ? check_code_place(dir, known)
                                                             : check_not_everybodys(dir, known);
  if (!place.ok()) return place.with_context("module " + manifest.name);
  if (options_.roots.empty()) return {};
  // Links are followed first: what counts is where the module lies.
  std::error_code error;
  const auto real = std::filesystem::canonical(dir, error);
  for (const std::string& root : options_.roots) {
    std::error_code no_root;
    const auto real_root = std::filesystem::canonical(root, no_root);
    if (error || no_root) continue;
    const auto [end, in_dir] =
        std::mismatch(real_root.begin(), real_root.end(), real.begin(), real.end());
    if (end == real_root.end() && in_dir != real.end()) return {};
  }
  return refused(manifest, "not under a directory of trust.roots",
                 "put it there, or name its directory in the deployment");
}

std::function<Status(const std::string& dir, const Manifest& manifest)>
ModuleTrust::check_together() const {
  return [this, known = std::make_shared<KnownPlaces>()](const std::string& dir,
                                                         const Manifest& manifest) {
    return check(dir, manifest, known.get());
  };
}

Status ModuleTrust::check(const std::string& dir, const Manifest& manifest,
                          KnownPlaces* known) const {
  CHIMERA_RETURN_IF_ERROR(check_place(dir, manifest, known));
  const auto minimum = options_.minimum.find(manifest.name);
  if (minimum != options_.minimum.end() && is_older(manifest.version, minimum->second)) {
    return refused(manifest, fmt::format("too old (expected {} or later)", minimum->second),
                   "trust.minimum of the deployment says so");
  }
  return options_.require_signed ? check_signature(dir, manifest) : Status();
}

Status ModuleTrust::check_signature(const std::string& dir, const Manifest& manifest) const {
  const auto file = ModuleFile::open(dir, kSignature);
  if (!file.ok()) {
    return refused(manifest, "not signed (expected module.yaml.minisig)",
                   "chimera module sign makes it; trust.require of the deployment asks for it");
  }
  const auto text = file->text(kMaxSignature);
  if (!text.ok()) return text.status();
  const auto signature = minisign::parse_signature(*text, file->label());
  if (!signature.ok()) return refused(manifest, signature.status().message(), "sign it again");
  const std::string id = minisign::id_text(signature->id);
  const auto known = keys();
  if (find(known->revoked, signature->id) != nullptr) {
    return refused(manifest, fmt::format("signed by the revoked key {}", id),
                   "get it signed by a key that still counts");
  }
  const minisign::PublicKey* key = find(known->good, signature->id);
  if (key == nullptr) {
    return refused(manifest, fmt::format("signed by the unknown key {}", id),
                   "put the signer's .pub into trust.keys if you trust it");
  }
  const auto manifest_file = ModuleFile::open(dir, kManifest);
  if (!manifest_file.ok()) return manifest_file.status();
  const auto yaml = manifest_file->text(kMaxManifestBytes);
  if (!yaml.ok()) return yaml.status();
  // What is verified is what was read: the digest names those very bytes.
  if (sha256_of(*yaml) != manifest.digest) {
    return {Code::kUnavailable, fmt::format("module {}: changed while it was read", manifest.name),
            "try again when it is complete"};
  }
  if (!minisign::verify(*yaml, *signature, *key)) {
    return refused(manifest, fmt::format("its signature by key {} is of another content", id),
                   "it was changed after it was signed");
  }
  if (expired(signature->comment)) {
    return refused(manifest, fmt::format("its signature by key {} has expired", id),
                   "get it signed again");
  }
  return {};
}

}  // namespace chimera
