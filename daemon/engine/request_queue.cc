#include "daemon/engine/request_queue.h"

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
    if (static_cast<int64_t>(waiting_.size()) >= limit_) {
      ++refused_;
      return Status(Code::kResourceExhausted,
                    fmt::format("the queue is full: {} requests wait (limit {}, max_queue)",
                                waiting_.size(), limit_),
                    "try again later, or raise serve.max_queue");
    }
    id = next_id_++;
    outstanding_.insert(id);
    waiting_.push_back({id, std::move(request), Ticket(std::move(sink))});
  }
  bell_->ring();
  return id;
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
  return waiting_.empty() && cancels_.empty() && rights_.empty();
}

std::unordered_set<RequestId> RequestQueue::take_cancels() {
  const MutexLock lock(mutex_);
  return std::exchange(cancels_, {});
}

std::unordered_map<RequestId, ModuleRightsPtr> RequestQueue::take_rights() {
  const MutexLock lock(mutex_);
  return std::exchange(rights_, {});
}

void RequestQueue::ended(std::span<const RequestId> ids) {
  const MutexLock lock(mutex_);
  for (const RequestId id : ids) {
    outstanding_.erase(id);
    cancels_.erase(id);
    rights_.erase(id);
  }
  if (outstanding_.empty()) drained_.notify_all();
}

std::vector<PendingRequest> RequestQueue::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  std::vector<PendingRequest> rest(std::make_move_iterator(waiting_.begin()),
                                   std::make_move_iterator(waiting_.end()));
  waiting_.clear();
  return rest;
}

}  // namespace chimera
