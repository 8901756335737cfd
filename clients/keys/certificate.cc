#include "clients/keys/certificate.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/io/env.h"
#include "base/quote.h"

namespace chimera::keys {
namespace {

constexpr size_t kMaxFile = 64 << 10;
using KeyText = std::array<char, kKeyChars + 1>;

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view unquoted(std::string_view text) {
  const bool quoted = text.size() >= 2 && text.front() == text.back() &&
                      (text.front() == '"' || text.front() == '\'');
  return quoted ? text.substr(1, text.size() - 2) : text;
}

Status bad(const std::string& label, int line, std::string_view what) {
  return {
      Code::kInvalidArgument,
      line > 0 ? fmt::format("{}:{}: {}", label, line, what) : fmt::format("{}: {}", label, what),
      "`chimera key new NAME` writes certificates"};
}

/// One file, line by line.
class Parser {
 public:
  explicit Parser(const std::string& label) : label_(label) {}

  Status line(int number, std::string_view text) {
    const bool indented = !text.empty() && (text.front() == ' ' || text.front() == '\t');
    text = trimmed(text);
    if (text.empty() || text.front() == '#') return {};
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) {
      if (!indented) section_ = text;
      return {};
    }
    const std::string_view name = trimmed(text.substr(0, equals));
    const std::string_view value = unquoted(trimmed(text.substr(equals + 1)));
    if (section_ == "metadata" && name == "name") out_.name = value;
    if (section_ == "metadata" && name == "statement-key") {
      const auto key = parse_statement_key(value, fmt::format("{}:{}: {}", label_, number, name));
      if (!key.ok()) return key.status();
      out_.statement_key = value;
    }
    if (section_ != "curve") return {};
    std::string* const key = name == "public-key"   ? &out_.public_key
                             : name == "secret-key" ? &out_.secret_key
                                                    : nullptr;
    // Never the value: it may be a secret key.
    if (key == nullptr || !key->empty()) {
      return bad(label_, number,
                 fmt::format("found {} (expected public-key or secret-key, each once)",
                             quote(name, kKeyChars)));
    }
    if (!is_key(value)) {
      return bad(label_, number,
                 fmt::format("{}: found {} characters (expected a key: 40 characters of Z85)", name,
                             value.size()));
    }
    *key = value;
    return {};
  }

  Result<Certificate> finish() {
    if (out_.public_key.empty()) {
      return bad(label_, 0, "found no public-key in a section curve (expected one)");
    }
    KeyText derived{};
    if (!out_.secret_key.empty() &&
        (zmq_curve_public(derived.data(), out_.secret_key.c_str()) != 0 ||
         out_.public_key != derived.data())) {
      return bad(label_, 0, "public-key: found another than that of secret-key");
    }
    if (!out_.secret_key.empty()) {
      const std::string derived_key = key_text(statement_signer(out_.secret_key).public_key());
      if (!out_.statement_key.empty() && out_.statement_key != derived_key) {
        return bad(label_, 0, "statement-key: found another than that of secret-key");
      }
      out_.statement_key = derived_key;
    }
    return std::move(out_);
  }

 private:
  const std::string& label_;
  std::string section_;
  Certificate out_;
};

Result<Certificate> read_certificate(const std::string& file) {
  const auto text = read_file(Env::system(), file, kMaxFile);
  if (!text.ok()) return text.status();
  return parse_certificate(*text, file);
}

bool exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

}  // namespace

bool is_key(std::string_view text) {
  if (text.size() != kKeyChars || text.find('\0') != std::string_view::npos) return false;
  std::array<uint8_t, kKeyChars / 5 * 4> bytes{};
  return zmq_z85_decode(bytes.data(), std::string(text).c_str()) != nullptr;
}

Result<Certificate> make_certificate(const std::string& name) {
  KeyText public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return Status(Code::kFailedPrecondition, "key: this libzmq was built without CURVE",
                  "install the libzmq of Debian");
  }
  return Certificate{name, public_key.data(), secret_key.data(),
                     key_text(statement_signer(secret_key.data()).public_key())};
}

StatementSigner statement_signer(const std::string& secret_key) {
  std::array<uint8_t, kKeyChars / 5 * 4> bytes{};
  (void)zmq_z85_decode(bytes.data(), secret_key.c_str());
  const StatementSigner signer = StatementSigner::from_secret(bytes);
  explicit_bzero(bytes.data(), bytes.size());
  return signer;
}

std::string format_certificate(const Certificate& certificate, bool secret) {
  std::string text =
      secret ? "#   ZeroMQ CURVE **Secret** Certificate\n"
               "#   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n"
             : "#   ZeroMQ CURVE Public Certificate\n"
               "#   Exchange securely, or verify the contents after the exchange.\n";
  text += fmt::format("\nmetadata\n    name = \"{}\"\n", certificate.name);
  if (!certificate.statement_key.empty()) {
    text += fmt::format("    statement-key = \"{}\"\n", certificate.statement_key);
  }
  text += fmt::format("curve\n    public-key = \"{}\"\n", certificate.public_key);
  if (secret) text += fmt::format("    secret-key = \"{}\"\n", certificate.secret_key);
  return text;
}

Result<Certificate> parse_certificate(std::string_view text, const std::string& label) {
  Parser parser(label);
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    CHIMERA_RETURN_IF_ERROR(parser.line(number, text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parser.finish();
}

Result<Certificate> read_secret(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return errno_status(file, errno);
  if ((info.st_mode & 077) != 0 || (info.st_uid != ::geteuid() && info.st_uid != 0)) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: found owner {} and mode {:04o} (expected a secret key that "
                              "nobody else can read)",
                              file, info.st_uid, info.st_mode & 07777),
                  "chmod 600 it; if others may have read it, make a new key");
  }
  auto certificate = read_certificate(file);
  if (certificate.ok() && certificate->secret_key.empty()) {
    return Status(Code::kInvalidArgument,
                  file + ": found a public certificate (expected the secret one)",
                  "name the .key file");
  }
  return certificate;
}

Result<Certificate> read_public(const std::string& file) {
  auto certificate = read_certificate(file);
  if (certificate.ok()) certificate->secret_key.clear();
  return certificate;
}

Status write_certificate(const Certificate& certificate, const std::string& dir) {
  return write_pair(dir, certificate.name, format_certificate(certificate, /*secret=*/true),
                    format_certificate(certificate, /*secret=*/false));
}

Status write_pair(const std::string& dir, const std::string& name, const std::string& secret,
                  const std::string& open) {
  if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return errno_status(dir, errno);
  const std::string secret_file = dir + "/" + name + ".key", open_file = dir + "/" + name + ".pub";
  for (const std::string& file : {secret_file, open_file}) {
    if (!exists(file)) continue;
    return {Code::kAlreadyExists, file + ": is there already (expected a new name)",
            "a key that is in use would be lost; choose another name or --out"};
  }
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), secret_file, secret, 0600));
  const Status status = write_file_durably(Env::system(), open_file, open, 0644);
  if (!status.ok()) ::unlink(secret_file.c_str());
  return status;
}

}  // namespace chimera::keys
