#include "daemon/security/authority.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/log/log.h"

namespace chimera {
namespace {

constexpr std::string_view kKey = "key:", kUid = "uid:";

PrincipalPtr principal(std::string name, Roles roles) {
  Principal out;
  out.name = std::move(name);
  out.roles = roles;
  return std::make_shared<const Principal>(std::move(out));
}

template <class Map, class Key>
PrincipalPtr value(const Map& map, const Key& key) {
  const auto found = map.find(key);
  return found == map.end() ? nullptr : found->second;
}

/// Whether somebody's time ran out in (from, to].
bool expired_between(const ClientList& list, std::chrono::system_clock::time_point from,
                     std::chrono::system_clock::time_point to) {
  const auto any = [&](const auto& map) {
    return std::any_of(map.begin(), map.end(), [&](const auto& entry) {
      const auto& end = entry.second->expires;
      return end && *end > from && *end <= to;
    });
  };
  return any(list.by_key) || any(list.by_uid);
}

}  // namespace

std::string key_mark(std::string_view public_key) { return std::string(kKey).append(public_key); }
std::string uid_mark(uid_t uid) { return fmt::format("{}{}", kUid, uid); }

Authority::Authority(Options options)
    : options_(std::move(options)),
      own_uid_(::geteuid()),
      self_(principal(uid_mark(own_uid_), Roles(Role::kAdmin))),
      loopback_(principal(std::string(kLoopbackMark), Roles(Role::kUse))),
      last_look_(std::chrono::system_clock::now()) {}

Result<std::unique_ptr<Authority>> Authority::start(Options options) {
  auto authority = std::unique_ptr<Authority>(new Authority(std::move(options)));
  if (authority->options_.clients.empty()) return authority;
  CHIMERA_RETURN_IF_ERROR(authority->reload());
  authority->thread_ = std::thread([raw = authority.get()] { raw->watch(); });
  return authority;
}

Authority::~Authority() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

PrincipalPtr Authority::find(const std::string& mark) const {
  PrincipalPtr found;
  {
    const MutexLock lock(mutex_);
    if (mark.starts_with(kKey)) {
      found = value(list_.by_key, mark.substr(kKey.size()));
    } else if (mark.starts_with(kUid)) {
      uid_t uid = 0;
      const char* end = mark.data() + mark.size();
      const auto read = std::from_chars(mark.data() + kUid.size(), end, uid);
      if (read.ec != std::errc() || read.ptr != end) return nullptr;
      found = value(list_.by_uid, uid);
      if (found == nullptr && uid == own_uid_) found = self_;
    } else if (mark == kLoopbackMark) {
      found = loopback_;
    }
  }
  const bool over =
      found != nullptr && found->expires && *found->expires <= std::chrono::system_clock::now();
  return over ? nullptr : found;
}

bool Authority::admits_other_users() const {
  const MutexLock lock(mutex_);
  return std::any_of(list_.by_uid.begin(), list_.by_uid.end(),
                     [&](const auto& entry) { return entry.first != own_uid_; });
}

Status Authority::reload() {
  if (options_.clients.empty()) return {};
  {
    const MutexLock reading(read_mutex_);
    // Before the files: a change while they are read is met the next time.
    signature_ = clients_signature(options_.clients);
    auto list = read_clients(options_.clients);
    if (!list.ok()) return list.status().with_context("security.clients");
    const MutexLock lock(mutex_);
    list_ = std::move(*list);
  }
  tell();
  return {};
}

void Authority::listen(std::function<void()> changed) {
  const MutexLock lock(listener_mutex_);
  changed_ = std::move(changed);
}

void Authority::tell() {
  const MutexLock lock(listener_mutex_);
  if (changed_) changed_();
}

void Authority::watch() {
  pthread_setname_np(pthread_self(), "chimera-clients");
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (wake_.wait_for(mutex_, options_.interval,
                         [this]() REQUIRES(mutex_) { return stopping_; }))
        return;
    }
    look();
  }
}

void Authority::look() {
  const auto now = std::chrono::system_clock::now();
  bool expired = false;
  {
    const MutexLock lock(mutex_);
    expired = expired_between(list_, last_look_, now);
  }
  last_look_ = now;
  bool differs = false;
  {
    const MutexLock reading(read_mutex_);
    differs = clients_signature(options_.clients) != signature_;
  }
  if (differs) {
    const Status status = reload();
    if (status.ok()) {
      log::info("clients_reloaded", {{"file", options_.clients}});
    } else {
      log::error("clients_refused", {{"reason", status.message()},
                                     {"hint", "who was admitted stays so; correct the file"}});
    }
  }
  if (expired) tell();
}

}  // namespace chimera
