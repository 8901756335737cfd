#include "clients/gateway/watched.h"

#include <chrono>

namespace chimera::gateway {
namespace {

constexpr unsigned kClientGone = 499;

class Watched : public Exchange {
 public:
  Watched(std::shared_ptr<Exchange> exchange, std::shared_ptr<Metrics> metrics, std::string route)
      : exchange_(std::move(exchange)), metrics_(std::move(metrics)), route_(std::move(route)) {}
  ~Watched() override { count(kClientGone); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  const Request& request() const override { return exchange_->request(); }
  void respond(Response response) override {
    const unsigned status = response.status;
    exchange_->respond(std::move(response));
    count(status);
  }
  void begin(Response head) override {
    status_ = head.status;
    exchange_->begin(std::move(head));
  }
  void write(std::string bytes) override { exchange_->write(std::move(bytes)); }
  void finish() override {
    exchange_->finish();
    count(status_);
  }
  void on_gone(std::function<void()> told) override { exchange_->on_gone(std::move(told)); }

 private:
  void count(unsigned status) {
    if (counted_) return;
    counted_ = true;
    const auto took = std::chrono::steady_clock::now() - since_;
    metrics_->http(request().method, route_, status, std::chrono::duration<double>(took).count());
  }

  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<Metrics> metrics_;  // a connection may end after the service
  const std::string route_;
  const std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  unsigned status_ = 200;
  bool counted_ = false;
};

}  // namespace

std::shared_ptr<Exchange> watched(std::shared_ptr<Exchange> exchange,
                                  std::shared_ptr<Metrics> metrics, std::string route) {
  return std::make_shared<Watched>(std::move(exchange), std::move(metrics), std::move(route));
}

}  // namespace chimera::gateway
