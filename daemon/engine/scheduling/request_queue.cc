#include "daemon/engine/scheduling/request_queue.h"

#include <fmt/format.h>

namespace chimera {

Result<RequestId> RequestQueue::add(EngineRequest request, std::shared_ptr<EventSink> sink) {
  RequestId id = 0;
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      ++refused_;
      return Status(Code::kUnavailable, "the daemon is draining and takes no new requests",
                    "send the request to another daemon, or again after the restart");
    }
    Accounts::State& account = accounts_.of(request);
    if (Status full = Accounts::check(account, request); !full.ok()) {
      ++refused_;
      return full;
    }
    Accounts::State* heavier = nullptr;
    const bool full = static_cast<int64_t>(waiting_.size()) >= limit_;
    if (full) heavier = accounts_.heavier_than(account);
    if (full && heavier == nullptr) {
      ++refused_;
      return Status(Code::kResourceExhausted,
                    fmt::format("the queue is full: {} requests wait (limit {}, max_queue)",
                                waiting_.size(), limit_),
                    "try again later, or raise serve.max_queue");
    }
    if (full) displace(*heavier);
    id = next_id_++;
    outstanding_.emplace(id, Outstanding{&account, request.expected_tokens});
    accounts_.waits(account);
    waiting_.push_back({id, std::move(request), Ticket(std::move(sink))});
  }
  bell_->ring();
  return id;
}

/// The newest that waits of the account makes room.
void RequestQueue::displace(Accounts::State& account) {
  const auto newest = std::find_if(waiting_.rbegin(), waiting_.rend(),
                                   [&](const PendingRequest& p)
                                       REQUIRES(mutex_) { return &account_of(p) == &account; });
  Status why(Code::kResourceExhausted,
             fmt::format("the queue is full, and {} of its {} requests are this client's: this one "
                         "made room for another client's",
                         account.waiting, limit_),
             "send fewer at once");
  ++refused_;
  accounts_.leaves(account);
  displaced_.emplace_back(std::move(*newest), std::move(why));
  waiting_.erase(std::next(newest).base());
}

RequestQueue::Waiting::iterator RequestQueue::next_in_turn() {
  ++turns_;
  auto best = waiting_.end();
  double least = 0.0;
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    Accounts::State& account = account_of(*it);
    // Of an account the first one stands for all: they start in their order.
    if (std::exchange(account.looked_at, turns_) == turns_) continue;
    if (!accounts_.may_start(account, it->request)) continue;
    if (best != waiting_.end() && account.served >= least) continue;
    best = it;
    least = account.served;
  }
  return best;
}

std::vector<std::pair<PendingRequest, Status>> RequestQueue::take_displaced() {
  const MutexLock lock(mutex_);
  return std::exchange(displaced_, {});
}

void RequestQueue::cancel(RequestId id) {
  {
    const MutexLock lock(mutex_);
    if (!outstanding_.contains(id)) return;
    cancels_.insert(id);
  }
  bell_->ring();
}

void RequestQueue::entitle(RequestId id, ModuleRightsPtr rights) {
  {
    const MutexLock lock(mutex_);
    if (!outstanding_.contains(id)) return;
    const auto waits = std::find_if(waiting_.begin(), waiting_.end(),
                                    [id](const PendingRequest& p) { return p.id == id; });
    if (waits != waiting_.end()) {
      waits->request.modules.rights = std::move(rights);
    } else {
      rights_[id] = std::move(rights);
    }
  }
  bell_->ring();
}

bool RequestQueue::drain(std::chrono::milliseconds timeout) {
  const MutexLock lock(mutex_);
  closed_ = true;
  return drained_.wait_for(mutex_, timeout,
                           [this]() REQUIRES(mutex_) { return outstanding_.empty(); });
}

void RequestQueue::count_refusal() {
  const MutexLock lock(mutex_);
  ++refused_;
}

RequestQueue::Counts RequestQueue::counts() const {
  const MutexLock lock(mutex_);
  return {static_cast<int64_t>(waiting_.size()), refused_};
}

bool RequestQueue::idle() const {
  const MutexLock lock(mutex_);
  return waiting_.empty() && displaced_.empty() && cancels_.empty() && rights_.empty();
}

std::unordered_set<RequestId> RequestQueue::take_cancels() {
  const MutexLock lock(mutex_);
  return std::exchange(cancels_, {});
}

std::unordered_map<RequestId, ModuleRightsPtr> RequestQueue::take_rights() {
  const MutexLock lock(mutex_);
  return std::exchange(rights_, {});
}

void RequestQueue::ended(std::span<const RequestEnd> ends) {
  const MutexLock lock(mutex_);
  for (const auto& [id, tokens] : ends) {
    if (const auto entry = outstanding_.find(id); entry != outstanding_.end()) {
      const Outstanding& was = entry->second;
      if (was.started) accounts_.ends(*was.account, was.expected_tokens, tokens);
      outstanding_.erase(entry);
    }
    cancels_.erase(id);
    rights_.erase(id);
  }
  if (outstanding_.empty()) drained_.notify_all();
}

std::vector<PendingRequest> RequestQueue::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  for (const PendingRequest& pending : waiting_) accounts_.leaves(account_of(pending));
  std::vector<PendingRequest> rest(std::make_move_iterator(waiting_.begin()),
                                   std::make_move_iterator(waiting_.end()));
  for (auto& [pending, status] : displaced_) rest.push_back(std::move(pending));
  displaced_.clear();
  waiting_.clear();
  return rest;
}

}  // namespace chimera
