#include "experts/library/plugin_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/quote.h"
#include "base/version.h"
#include "experts/library/plugin_services.h"

namespace chimera {
namespace {

// A plugin may say a lot when it starts and little afterwards.
constexpr double kLogBurst = 100;
constexpr double kLogPerSecond = 20;

thread_local PluginCallScope* t_call = nullptr;

LibraryRuntime::Severity severity_of(uint32_t severity) {
  switch (severity) {
    case CHIMERA_LOG_DEBUG:
      return LibraryRuntime::Severity::kDebug;
    case CHIMERA_LOG_INFO:
      return LibraryRuntime::Severity::kInfo;
    case CHIMERA_LOG_WARNING:
    case CHIMERA_LOG_HOST_MISBEHAVING:
    case CHIMERA_LOG_PLUGIN_MISBEHAVING:
      return LibraryRuntime::Severity::kWarning;
    default:
      return LibraryRuntime::Severity::kError;
  }
}

/// Text of a plugin as it may stand in a log: control bytes escaped, cut.
std::string clean(chimera_text text, size_t limit) {
  std::string out;
  if (text.data_borrowed == nullptr) return out;
  append_visible({text.data_borrowed, std::min<uint64_t>(text.size, limit)}, out);
  if (text.size > limit) out += fmt::format(" [{} bytes cut]", text.size - limit);
  return out;
}

}  // namespace

PluginCallScope*& PluginServices::current() { return t_call; }

PluginCallScope::PluginCallScope(const PluginHost& host, uint32_t role)
    : host_(&host), role_(role), outer_(t_call) {
  t_call = this;
}

PluginCallScope::~PluginCallScope() { t_call = outer_; }

Status PluginCallScope::status(int32_t returned, const std::string& what) const {
  if (returned == CHIMERA_OK) return {};
  const bool known = returned > 0 && returned <= CHIMERA_INTERNAL;
  const Code code = known ? static_cast<Code>(returned) : Code::kInternal;
  std::string text = error_size_ != 0 ? clean({error_, error_size_}, sizeof(error_))
                                      : fmt::format("found status {}", code_name(code));
  if (!known) text += fmt::format(" (status {}, which is none)", returned);
  return {code, what + ": " + text};
}

PluginHost::PluginHost(Options options)
    : options_(std::move(options)),
      log_tokens_(kLogBurst),
      log_refilled_(std::chrono::steady_clock::now()) {
  abi_.struct_size = sizeof(abi_);
  abi_.abi_major = CHIMERA_ABI_MAJOR;
  abi_.abi_minor = CHIMERA_ABI_MINOR;
  abi_.name = {options_.program.data(), options_.program.size()};
  abi_.version = {version(), std::strlen(version())};
  abi_.host_data_owned = this;
  abi_.get_service = &PluginServices::get_service;
}

void PluginHost::write_log(uint32_t severity, chimera_text line) {
  uint64_t dropped = 0;
  if (!may_log(&dropped)) return;
  if (dropped != 0) {
    options_.runtime->count_dropped_lines(dropped);
    options_.runtime->log(LibraryRuntime::Severity::kWarning, options_.module,
                          fmt::format("{} lines of the plugin left out: too many", dropped));
  }
  options_.runtime->log(severity_of(severity), options_.module, clean(line, CHIMERA_LOG_MAX_BYTES));
}

/// A token bucket; `dropped`: lines left out since the last one that passed.
bool PluginHost::may_log(uint64_t* dropped) {
  const MutexLock guard(log_mutex_);
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> passed = now - log_refilled_;
  log_refilled_ = now;
  log_tokens_ = std::min(kLogBurst, log_tokens_ + passed.count() * kLogPerSecond);
  if (log_tokens_ < 1.0) {
    ++log_dropped_;
    return false;
  }
  log_tokens_ -= 1.0;
  *dropped = std::exchange(log_dropped_, 0);
  return true;
}

}  // namespace chimera
