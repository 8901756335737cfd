#include "daemon/server/decoding/decoder.h"

#include <pthread.h>

#include "base/json/reader.h"

namespace chimera {

Json arguments_of(const wire::Request& request) {
  auto fields = parse_json(wire::encode_request(request));
  if (!fields.ok()) return Json::object();
  fields->erase("id");
  fields->erase("call");
  return std::move(*fields);
}

Decoded decode(Undecoded message, wire::Endpoint endpoint) {
  Decoded out;
  out.request = wire::decode_request(message.text, endpoint, &out.id);
  // What is sent to serve are prompts and texts, which are nobody's business.
  const auto* request = std::get_if<wire::Request>(&out.request);
  const bool recorded = request != nullptr && endpoint == wire::Endpoint::kControl;
  out.arguments = recorded ? arguments_of(*request) : Json::object();
  out.message = std::move(message);
  return out;
}

Decoder::Decoder(std::function<void()> woken, Decode decode)
    : woken_(std::move(woken)), decode_(std::move(decode)), thread_([this] { work(); }) {}

Decoder::~Decoder() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Decoder::post(const Connection& from, Undecoded message) {
  {
    const MutexLock lock(mutex_);
    FlowPtr& flow = flows_[from];
    if (flow == nullptr) {
      flow = std::make_shared<Flow>();
      flow->connection = from;
    }
    if (flow->waiting.empty()) turns_.push_back(flow);
    flow->waiting.push_back(std::move(message));
    ++flow->untaken;
  }
  changed_.notify_one();
}

bool Decoder::holds(const Connection& from) const {
  const MutexLock lock(mutex_);
  return flows_.contains(from);
}

bool Decoder::idle() const {
  const MutexLock lock(mutex_);
  return flows_.empty();
}

void Decoder::forget(const Connection& from) {
  const MutexLock lock(mutex_);
  const auto flow = flows_.find(from);
  if (flow == flows_.end()) return;
  flow->second->gone = true;
  std::erase(turns_, flow->second);
  std::erase_if(read_, [](const auto& one) { return one.first->gone; });
  flows_.erase(flow);
}

std::vector<std::pair<Decoder::Connection, Decoded>> Decoder::take() {
  std::vector<std::pair<Connection, Decoded>> out;
  const MutexLock lock(mutex_);
  out.reserve(read_.size());
  for (auto& [flow, decoded] : read_) {
    if (--flow->untaken == 0) flows_.erase(flow->connection);
    out.emplace_back(flow->connection, std::move(decoded));
  }
  read_.clear();
  return out;
}

Decoder::FlowPtr Decoder::next_turn() {
  for (;; turns_.push_back(std::move(turns_.front())), turns_.pop_front()) {
    Flow& flow = *turns_.front();
    const size_t size = flow.waiting.front().text.size();
    if (flow.credit >= size) {
      flow.credit -= size;
      return turns_.front();
    }
    flow.credit += kTurn;  // for its next turn
  }
}

void Decoder::work() {
  pthread_setname_np(pthread_self(), "chimera-decode");
  ReleasableMutexLock lock(mutex_);
  for (;;) {
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !turns_.empty(); });
    if (stopping_) return;
    const FlowPtr flow = next_turn();
    Undecoded message = std::move(flow->waiting.front());
    flow->waiting.pop_front();
    if (flow->waiting.empty()) {
      turns_.pop_front();  // who comes back begins without what was saved up
      flow->credit = 0;
    }
    lock.unlock();
    const auto endpoint =
        flow->connection.first == 0 ? wire::Endpoint::kServe : wire::Endpoint::kControl;
    Decoded decoded = decode_(std::move(message), endpoint);
    lock.lock();
    if (flow->gone) continue;
    read_.emplace_back(flow, std::move(decoded));
    const bool first = read_.size() == 1;
    if (!first) continue;
    lock.unlock();
    woken_();
    lock.lock();
  }
}

}  // namespace chimera
