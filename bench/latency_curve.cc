// latency --curve: pairs of rounds, one of each kind, in an order that alternates.
//
//   streams        tokens/s of 16 streams together, 20-token prompts, 64 tokens of answer each:
//   over
//                  tcp with keys (CURVE) against ipc, by two daemons of which one rests
//   silent         p99 of a health round trip over CURVE, us: beside 1,000 connections of one host
//                  that say nothing (of which the daemon takes as many as it has room for, and ends
//                  each after 5 s) against none
#include "latency_curve.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kPairs = 7;
constexpr int kStreams = 16;
constexpr int64_t kTokens = 64;
constexpr int kPeers = 1000;
constexpr int kHealthCalls = 500;  // some 0.2 s, within the 5 s of a handshake
constexpr double kReadySeconds = 60.0;

/// A daemon and as many clients as there are streams.
struct Side {
  explicit Side(DeploymentOptions options, bool curve) : daemon(with(options, curve)) {
    for (int i = 0; i < kStreams; ++i) clients.push_back(std::make_unique<Session>(daemon));
    clients.front()->wait_ready(kReadySeconds);
    vocab = clients.front()->vocab();
  }
  static DeploymentOptions with(DeploymentOptions options, bool curve) {
    options.curve = curve;
    options.max_sequences = kStreams;
    return options;
  }

  DaemonProcess daemon;
  std::vector<std::unique_ptr<Session>> clients;
  int64_t vocab = 0;
};

double tokens_per_second(Side& side, uint32_t round) {
  std::vector<std::string> errors(kStreams);
  std::vector<std::thread> threads;
  const double start = now_s();
  for (uint32_t i = 0; i < kStreams; ++i) {
    threads.emplace_back([&side, &errors, round, i] {
      const auto request = greedy_request(prompt_of(20, side.vocab, round * kStreams + i), kTokens);
      const auto done = side.clients[i]->client().generate(request, [](const client::Token&) {});
      if (!done.ok()) errors[i] = done.error().message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = now_s() - start;
  for (const std::string& error : errors) {
    if (!error.empty()) throw std::runtime_error(error);
  }
  return static_cast<double>(kStreams * kTokens) / seconds;
}

double health_p99(Side& side) {
  std::vector<double> us;
  for (int i = 0; i < kHealthCalls; ++i) {
    const double start = now_s();
    (void)side.clients.front()->call(wire::Health{});
    us.push_back(1e6 * (now_s() - start));
  }
  return quantile(us, 0.99);
}

/// Connections that say nothing, as long as the object lives.
class SilentPeers {
 public:
  explicit SilentPeers(const std::string& endpoint) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port =
        htons(static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < kPeers; ++i) {
      const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd < 0) throw std::runtime_error("silent peers: no descriptors are left");
      fds_.push_back(fd);
      if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        throw std::runtime_error("silent peers: the daemon accepts no connections");
      }
    }
  }
  ~SilentPeers() {
    for (const int fd : fds_) ::close(fd);
  }
  SilentPeers(const SilentPeers&) = delete;
  SilentPeers& operator=(const SilentPeers&) = delete;

 private:
  std::vector<int> fds_;
};

void print_pairs(const char* name, const char* unit, const std::vector<double>& one,
                 const std::vector<double>& other) {
  std::vector<double> ratios;
  for (size_t i = 0; i < one.size(); ++i) ratios.push_back(one[i] / other[i]);
  const Spread ratio = spread(ratios);
  fmt::print("{:<26}{:>10.1f}{:>10.1f}{:>10.3f}{:>9.3f}-{:.3f}  {}\n", name, quantile(one, 0.5),
             quantile(other, 0.5), ratio.median, ratio.min, ratio.max, unit);
}

/// A pair of figures, the first one first in every other round.
template <class One, class Other>
void take_pair(int round, std::vector<double>& one, std::vector<double>& other, One measure_one,
               Other measure_other) {
  if (round % 2 == 0) one.push_back(measure_one());
  other.push_back(measure_other());
  if (round % 2 != 0) one.push_back(measure_one());
}

}  // namespace

void measure_curve(const DeploymentOptions& options) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  const CpuTimes before = CpuTimes::read();
  Side curve(options, true), ipc(options, false);
  (void)tokens_per_second(curve, 0);
  (void)tokens_per_second(ipc, 0);
  std::vector<double> with_keys, without, beside, quiet;
  for (int round = 0; round < kPairs; ++round) {
    const auto number = static_cast<uint32_t>(round + 1);
    take_pair(
        round, with_keys, without, [&] { return tokens_per_second(curve, number); },
        [&] { return tokens_per_second(ipc, number); });
  }
  for (int round = 0; round < kPairs; ++round) {
    take_pair(
        round, beside, quiet,
        [&] {
          const SilentPeers peers(curve.daemon.serve_endpoint());
          return health_p99(curve);
        },
        [&] { return health_p99(curve); });
  }
  fmt::print("{:<26}{:>10}{:>10}{:>10}{:>15}\n", "medians of 7 pairs", "first", "second", "ratio",
             "spread");
  print_pairs("16 streams: CURVE, ipc", "tokens/s", with_keys, without);
  print_pairs("1,000 silent: beside, none", "us, p99 of health", beside, quiet);
  fmt::print("stolen by other guests meanwhile: {:.1f} %\n",
             100.0 * CpuTimes::read().stolen_since(before));
}

}  // namespace chimera::bench
