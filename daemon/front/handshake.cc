#include "daemon/front/handshake.h"

#include <algorithm>

namespace chimera {
namespace {

constexpr size_t kSignatureEnd = 9, kRevision = 10, kMechanismBegin = 12, kMechanismBytes = 20;
constexpr uint8_t kCommandFlag = 4, kLongFlag = 2;
// READY of an honest peer takes some 40 bytes.
constexpr size_t kMaxReady = 4096;
constexpr std::string_view kReady = "\x05READY";
constexpr std::string_view kError = "\x05\x45RROR";  // "ERROR": an E would go on the number
constexpr std::string_view kSocketType = "Socket-Type";

Status no_peer(const char* why) { return {Code::kInvalidArgument, why}; }

std::string_view mechanism_name(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::kNull:
      return "NULL";
    case Mechanism::kCurve:
      return "CURVE";
  }
  return "";
}

uint64_t big_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

void append_property(std::string& out, std::string_view name, std::string_view value) {
  out.push_back(static_cast<char>(name.size()));
  out += name;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value.size() >> shift & 0xFF));
  }
  out += value;
}

std::string command(const std::string& body) {
  std::string out;
  if (body.size() < 256) {
    out.push_back(static_cast<char>(kCommandFlag));
  } else {
    out.push_back(static_cast<char>(kCommandFlag | kLongFlag));
    for (int shift = 56; shift > 0; shift -= 8) {
      out.push_back(static_cast<char>(body.size() >> shift & 0xFF));
    }
  }
  out.push_back(static_cast<char>(body.size() & 0xFF));
  return out + body;
}

/// libzmq compares names of properties without regard to case.
bool same_name(std::string_view x, std::string_view y) {
  return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                    [](char a, char b) { return (a | 0x20) == (b | 0x20); });
}

}  // namespace

Status Handshake::take_greeting(std::string_view* bytes, std::string* out) {
  const size_t count = std::min(bytes->size(), kGreetingBytes - greeting_.size());
  greeting_ += bytes->substr(0, count);
  *out += bytes->substr(0, count);
  bytes->remove_prefix(count);
  const auto at = [&](size_t i) { return static_cast<uint8_t>(greeting_[i]); };
  const size_t known = greeting_.size();
  if (known > 0 && at(0) != 0xFF) return no_peer("no signature of ZMTP");
  if (known > kSignatureEnd && (at(kSignatureEnd) & 1) == 0) return no_peer("no signature of ZMTP");
  if (known > kRevision && at(kRevision) < 3) return no_peer("a ZMTP without a handshake");
  if (known < kMechanismBegin + kMechanismBytes) return {};
  std::string expected(mechanism_name(mechanism_));
  expected.resize(kMechanismBytes, '\0');
  const bool same = greeting_.compare(kMechanismBegin, kMechanismBytes, expected) == 0;
  return same ? Status() : no_peer("another mechanism than the endpoint's");
}

Result<std::string> Handshake::ready_of(std::string_view body) const {
  if (!body.starts_with(kReady)) return no_peer("no READY command");
  body.remove_prefix(kReady.size());
  std::string out(kReady);
  bool typed = false;
  while (!body.empty()) {
    const size_t name_size = static_cast<uint8_t>(body.front());
    constexpr size_t kSizes = 1 + 4;
    if (body.size() < kSizes + name_size) return no_peer("a property that is cut off");
    const std::string_view name = body.substr(1, name_size);
    const uint64_t value_size = big_endian(body.substr(1 + name_size, 4));
    body.remove_prefix(kSizes + name_size);
    if (value_size > body.size()) return no_peer("a property that is cut off");
    if (same_name(name, kSocketType)) {
      if (std::exchange(typed, true)) return no_peer("two types of socket");
      const std::string_view type = body.substr(0, value_size);
      if (type != "DEALER" && type != "REQ" && type != "ROUTER") {
        return no_peer("a type of socket that does not talk to a ROUTER");
      }
      append_property(out, kSocketType, body.substr(0, value_size));
    }
    body.remove_prefix(value_size);
  }
  if (!typed) return no_peer("no type of socket");
  for (const auto& [name, value] : properties_) append_property(out, name, value);
  return command(out);
}

Status Handshake::take_ready(std::string_view bytes, std::string* out) {
  command_ += bytes;
  if (command_.empty()) return {};
  const auto flags = static_cast<uint8_t>(command_[0]);
  if (flags != kCommandFlag && flags != (kCommandFlag | kLongFlag))
    return no_peer("no command after greeting");
  const size_t head = flags == kCommandFlag ? 2 : 9;
  if (command_.size() < head) return {};
  const uint64_t size = big_endian(std::string_view(command_).substr(1, head - 1));
  if (size > kMaxReady) return no_peer("a READY command of more than 4096 bytes");
  if (command_.size() < head + size) return {};
  auto ready = ready_of(std::string_view(command_).substr(head, size));
  if (!ready.ok()) return ready.status();
  *out += *ready;
  *out += std::string_view(command_).substr(head + size);  // what came behind it
  command_.clear();
  done_ = true;
  return {};
}

Result<std::string> Handshake::feed(std::string_view bytes) {
  std::string out;
  if (!greeted()) CHIMERA_RETURN_IF_ERROR(take_greeting(&bytes, &out));
  if (!greeted()) return out;
  switch (mechanism_) {
    case Mechanism::kCurve:
      done_ = true;
      out += bytes;
      return out;
    case Mechanism::kNull:
      CHIMERA_RETURN_IF_ERROR(take_ready(bytes, &out));
      return out;
  }
  return out;
}

std::string error_command(std::string_view reason) {
  std::string body(kError);
  body.push_back(static_cast<char>(reason.size()));
  return command(body.append(reason));
}

}  // namespace chimera
