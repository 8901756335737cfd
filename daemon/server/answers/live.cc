#include "daemon/server/answers/live.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "daemon/server/answers/events.h"

namespace chimera {
namespace {

Outcome outcome_of(const DoneEvent& done) {
  Outcome out{.finish = kFinishReasonNames.name(done.finish_reason),
              .prompt_tokens = done.prompt_tokens,
              .completion_tokens = done.completion_tokens,
              .cached_tokens = done.cached_tokens,
              .queue_ms = done.queue_ms,
              .prefill_ms = done.prefill_ms,
              .decode_ms = done.decode_ms};
  if (done.backbone_share > 0) out.shares = fmt::format("backbone:{:.3g}", done.backbone_share);
  for (const auto& [name, module] : done.modules) {
    if (module.share <= 0) continue;
    out.shares += fmt::format("{}{}:{:.3g}", out.shares.empty() ? "" : ",", name, module.share);
  }
  return out;
}

}  // namespace

Ready::Ready() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
Ready::~Ready() {
  if (fd_ >= 0) close(fd_);
}

void Ready::wake() {
  const uint64_t one = 1;
  // The counter cannot overflow in practice, and a failed write means that it is readable already.
  [[maybe_unused]] const auto written = write(fd_, &one, sizeof one);
}

void Ready::push(std::shared_ptr<Live> live) {
  bool first = false;
  {
    const MutexLock lock(mutex_);
    first = waiting_.empty();
    waiting_.push_back(std::move(live));
  }
  if (first) wake();
}

std::vector<std::shared_ptr<Live>> Ready::take() {
  uint64_t count = 0;
  [[maybe_unused]] const auto got = read(fd_, &count, sizeof count);
  const MutexLock lock(mutex_);
  return std::exchange(waiting_, {});
}

Live::Live(std::string id, Peer peer, size_t max_queued, std::weak_ptr<Ready> ready)
    : id_(std::move(id)),
      peer_(std::move(peer)),
      max_queued_(max_queued),
      ready_(std::move(ready)),
      rights_(peer_.principal == nullptr ? nullptr : peer_.principal->modules) {}

bool Live::to_announce() { return !std::exchange(announced_, true); }

void Live::announce() {
  if (const auto ready = ready_.lock()) ready->push(shared_from_this());
}

void Live::on_token(TokenEvent event) {
  if (!stream) return;
  {
    const MutexLock lock(mutex_);
    if (ended_ || overflowed_ || abandoned_) return;
    if (queue_.size() >= max_queued_) {
      overflowed_ = true;
    } else {
      queue_.emplace_back(std::move(event));
    }
    if (!to_announce()) return;
  }
  announce();
}

void Live::progress(std::string body) {
  if (peer_.delimiter) return;
  {
    const MutexLock lock(mutex_);
    if (ended_ || overflowed_ || abandoned_) return;
    if (!queue_.empty() && std::holds_alternative<Interim>(queue_.back())) queue_.pop_back();
    queue_.emplace_back(Interim{std::move(body)});
    if (!to_announce()) return;
  }
  announce();
}

void Live::finish(Event event) {
  Recorder recorder;
  {
    const MutexLock lock(mutex_);
    if (std::exchange(ending_, true)) return;
    recorder = std::exchange(recorder_, nullptr);
  }
  if (!recorder) return send_last(std::move(event));
  const auto* failure = std::get_if<Status>(&event);
  const Status outcome = failure == nullptr ? Status() : *failure;
  recorder(outcome, [self = shared_from_this(), last = std::make_shared<Event>(std::move(event))] {
    self->send_last(std::move(*last));
  });
}

void Live::send_last(Event event) {
  {
    const MutexLock lock(mutex_);
    if (abandoned_) return;
    ended_ = true;
    if (overflowed_) {
      event = Status(Code::kResourceExhausted, "request: answers were read too slowly",
                     "read faster, or ask with \"stream\": false");
    }
    queue_.push_back(std::move(event));
    canceller_ = nullptr;
    entitler_ = nullptr;
    if (!to_announce()) return;
  }
  announce();
}

void Live::settle_once(const DoneEvent* done) {
  if (const auto once = std::exchange(settle, nullptr)) once(done);
}

void Live::on_done(DoneEvent event) {
  settle_once(&event);
  finish(std::move(event));
}
void Live::on_error(Status status) {
  settle_once(nullptr);
  finish(std::move(status));
}
void Live::answer(std::string body) { finish(std::move(body)); }

void Live::set_canceller(std::function<void()> canceller) {
  {
    const MutexLock lock(mutex_);
    if (!cancel_requested_) {
      if (ended_) return;
      canceller_ = std::move(canceller);
      return;
    }
  }
  canceller();
}

void Live::cancel() {
  std::function<void()> canceller;
  {
    const MutexLock lock(mutex_);
    cancel_requested_ = true;
    canceller = std::exchange(canceller_, nullptr);
  }
  if (canceller) canceller();
}

void Live::deny(Status status) {
  std::function<void()> canceller;
  {
    const MutexLock lock(mutex_);
    cancel_requested_ = true;
    canceller = std::exchange(canceller_, nullptr);
  }
  finish(std::move(status));
  if (canceller) canceller();
}

void Live::withdraw(Status status) {
  const MutexLock lock(mutex_);
  withdrawal_ = std::move(status);
}

std::optional<Status> Live::withdrawal() {
  const MutexLock lock(mutex_);
  return withdrawal_;
}

ModuleRightsPtr Live::rights() {
  const MutexLock lock(mutex_);
  rights_changed_ = false;
  return rights_;
}

void Live::set_entitler(const std::function<void(ModuleRightsPtr)>& entitler) {
  ModuleRightsPtr rights;
  {
    const MutexLock lock(mutex_);
    if (ended_) return;
    entitler_ = entitler;
    if (!std::exchange(rights_changed_, false)) return;
    rights = rights_;
  }
  entitler(std::move(rights));
}

void Live::entitle(ModuleRightsPtr rights) {
  std::function<void(ModuleRightsPtr)> entitler;
  {
    const MutexLock lock(mutex_);
    const bool same = rights == rights_ || (rights && rights_ && *rights == *rights_);
    if (ended_ || same) return;
    rights_ = rights;
    rights_changed_ = !entitler_;
    entitler = entitler_;
  }
  if (entitler) entitler(std::move(rights));
}

void Live::set_recorder(Recorder recorder) {
  const MutexLock lock(mutex_);
  recorder_ = std::move(recorder);
}

Live::Recorder Live::take_recorder() {
  const MutexLock lock(mutex_);
  return std::exchange(recorder_, nullptr);
}

void Live::abandon() {
  {
    const MutexLock lock(mutex_);
    abandoned_ = true;
    queue_.clear();
  }
  stalled_.reset();
  cancel();
}

std::optional<Answer> Live::next() {
  if (stalled_) return std::exchange(stalled_, std::nullopt);
  std::optional<Event> event;
  {
    const MutexLock lock(mutex_);
    if (queue_.empty()) {
      announced_ = false;
      return std::nullopt;
    }
    event = std::move(queue_.front());
    queue_.pop_front();
  }
  if (auto* token = std::get_if<TokenEvent>(&*event)) {
    return encode_token(id_, *token, tokenizer.get());
  }
  if (auto* status = std::get_if<Status>(&*event)) {
    outcome_ = Outcome{.code = status->code()};
    return encode_status(id_, *status);
  }
  if (auto* body = std::get_if<std::string>(&*event)) {
    return Answer{std::move(*body), nullptr, /*final=*/true};
  }
  if (auto* interim = std::get_if<Interim>(&*event)) {
    return Answer{std::move(interim->body), nullptr, /*final=*/false};
  }
  const DoneFormat format{.kind = kind,
                          .stream = stream,
                          .vocab = vocab,
                          .seed = seed,
                          .tokenizer = tokenizer.get(),
                          .receipt = receipt ? &*receipt : nullptr};
  const auto& done = std::get<DoneEvent>(*event);
  outcome_ = outcome_of(done);
  return encode_done(id_, done, format);
}

void Live::put_back(Answer answer) { stalled_ = std::move(answer); }

bool Live::take_overflow() {
  const MutexLock lock(mutex_);
  return overflowed_ && !std::exchange(overflow_reported_, true);
}

}  // namespace chimera
