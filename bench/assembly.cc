// assembly: parents of random weights put together, against plain reads and writes of the same
// bytes.
//
//   assemble   `chimera module assemble` of N parents, all tensors merged (linear, equal λ), as a
//              process of its own: seconds, and memory at its highest
//   plain      as many threads that read the parents and write a file of the child's size, in
//   pieces
//              of 8 MiB, and wait for the disk as assemble does
//   of plain   plain seconds over those of assemble; both by turns, in the same round
//
// Sizes are numbers of layers of one shape; over them, R² of seconds = a + b * bytes says how
// linear it is. `cold`: parents are dropped from the page cache before each run (as far as the
// system does).
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/threads/thread_pool.h"
#include "bench.h"
#include "bench/synth/checkpoint.h"
#include "experts/offline/assembly/assemble.h"
#include "options.h"
#include "stats.h"

namespace chimera::bench {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPiece = size_t{8} << 20;
constexpr uint64_t kShard = uint64_t{5} << 30;  // as `module assemble` has it

struct AssemblyOptions {
  std::string shape, work;
  std::vector<int> layers, parents;
  int rounds = 3;
  int threads = 0;
  uint64_t memory_mib = 2048;
  bool cold = false;
};

/// A directory that goes with the object.
class WorkDirectory {
 public:
  explicit WorkDirectory(const std::string& inside) {
    std::string pattern = fs::absolute(inside).string() + "/.chimera-bench-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr)
      throw std::runtime_error(fmt::format("{}: cannot be made", pattern));
    path_ = pattern;
  }
  ~WorkDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;
  std::string in(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// The shape of a file with so many layers.
Shape with_layers(const std::string& file, int layers) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  const std::string yaml = std::regex_replace(text.str(), std::regex("num_hidden_layers: *[0-9]+"),
                                              fmt::format("num_hidden_layers: {}", layers));
  Result<Shape> shape = parse_shape(yaml, file);
  if (!shape.ok()) throw std::runtime_error(shape.status().to_string());
  return *shape;
}

std::string weights_of(const std::string& directory) { return directory + "/model.safetensors"; }

/// An open file, closed with the object.
class OpenFile {
 public:
  OpenFile(const std::string& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw std::runtime_error(fmt::format("{}: cannot be opened", path));
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

void drop_from_cache(const std::vector<std::string>& parents) {
  for (const std::string& parent : parents) {
    const OpenFile file(weights_of(parent), O_RDONLY);
    (void)::fsync(file.fd());  // what is not on the disk yet stays in memory
    (void)::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

/// Seconds to read all parents and to write as much as one of them is.
double plain(const std::vector<std::string>& parents, const std::string& out, int threads) {
  const double start = now_s();
  {
    std::vector<std::unique_ptr<OpenFile>> from;
    for (const std::string& parent : parents)
      from.push_back(std::make_unique<OpenFile>(weights_of(parent), O_RDONLY));
    const OpenFile to(out, O_WRONLY | O_CREAT | O_TRUNC);
    const auto size = static_cast<size_t>(fs::file_size(weights_of(parents.front())));
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    const auto work = [&] {
      std::vector<char> buffer(kPiece);
      for (size_t at = next.fetch_add(kPiece); at < size; at = next.fetch_add(kPiece)) {
        const size_t n = std::min(kPiece, size - at);
        const auto offset = static_cast<off_t>(at), want = static_cast<off_t>(n);
        for (const auto& file : from)
          if (::pread(file->fd(), buffer.data(), n, offset) != want) failed = true;
        if (::pwrite(to.fd(), buffer.data(), n, offset) != want) failed = true;
      }
    };
    std::vector<std::jthread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
    helpers.clear();  // joins
    if (failed || ::fsync(to.fd()) != 0)
      throw std::runtime_error(fmt::format("{}: cannot be written", out));
  }
  const double seconds = now_s() - start;
  fs::remove(out);
  return seconds;
}

struct Assembled {
  double seconds = 0;
  double peak_mb = 0;
};

Status assemble_once(const std::string& recipe, const std::string& out, const AssemblyOptions& o) {
  Result<Recipe> read = read_recipe(recipe);
  if (!read.ok()) return read.status();
  const Result<AssemblyPlan> plan = plan_assembly(std::move(*read), kShard);
  if (!plan.ok()) return plan.status();
  AssembleOptions options;
  options.out_dir = out;
  options.memory = o.memory_mib << 20;
  options.threads = o.threads;
  return assemble(*plan, options).status();
}

/// In a process of its own, so that its memory can be told.
Assembled assembled(const std::string& recipe, const std::string& out, const AssemblyOptions& o) {
  const double start = now_s();
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    const Status status = assemble_once(recipe, out, o);
    if (!status.ok()) fmt::print(stderr, "chimera-bench: assembly: {}\n", status.to_string());
    std::fflush(stderr);
    ::_exit(status.ok() ? 0 : 1);
  }
  int ended = 0;
  rusage used{};
  if (::wait4(child, &ended, 0, &used) != child || ended != 0)
    throw std::runtime_error("the assembly failed");
  const Assembled result{now_s() - start, static_cast<double>(used.ru_maxrss) * 1024 / 1e6};
  fs::remove_all(out);
  return result;
}

std::string write_recipe(const WorkDirectory& work, const std::vector<std::string>& parents) {
  const std::string path = work.in(fmt::format("recipe-{}.yaml", parents.size()));
  std::ofstream recipe(path);
  recipe << "chimera: assembly/1\nbase: " << parents.front() << "\nparents:\n";
  for (const std::string& parent : parents) recipe << "  - {path: " << parent << "}\n";
  recipe << "rules: [{tensors: all}]\n";
  return path;
}

/// R² of y = a + b x by least squares.
double linearity(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, sxy = 0, syy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sx += x[i], sy += y[i];
    sxx += x[i] * x[i], sxy += x[i] * y[i], syy += y[i] * y[i];
  }
  const double covariance = n * sxy - sx * sy;
  return covariance * covariance / ((n * sxx - sx * sx) * (n * syy - sy * sy));
}

/// What one number of parents gave over the sizes.
struct Series {
  std::vector<double> bytes, seconds;
};

void measure(const AssemblyOptions& o, const WorkDirectory& work, int layers,
             std::vector<Series>* series) {
  std::vector<std::string> all;
  const int most = *std::max_element(o.parents.begin(), o.parents.end());
  Shape shape = with_layers(o.shape, layers);
  for (int i = 0; i < most; ++i) {
    shape.seed = static_cast<uint64_t>(i + 1);
    all.push_back(work.in(fmt::format("parent-{}", i + 1)));
    const Status written = write_synthetic(shape, StoredType::kBF16, all.back());
    if (!written.ok()) throw std::runtime_error(written.to_string());
  }
  for (size_t which = 0; which < o.parents.size(); ++which) {
    const std::vector<std::string> parents(all.begin(), all.begin() + o.parents[which]);
    const std::string recipe = write_recipe(work, parents);
    const double size = static_cast<double>(fs::file_size(weights_of(parents.front())));
    const double bytes = size * static_cast<double>(parents.size() + 1);
    std::vector<double> seconds, fractions;
    double peak_mb = 0;
    for (int round = 0; round < o.rounds; ++round) {
      if (o.cold) drop_from_cache(parents);
      const double limit = plain(parents, work.in("plain"), o.threads);
      if (o.cold) drop_from_cache(parents);
      const Assembled run = assembled(recipe, work.in("child"), o);
      seconds.push_back(run.seconds);
      fractions.push_back(limit / run.seconds);
      peak_mb = std::max(peak_mb, run.peak_mb);
    }
    const Spread time = spread(seconds), fraction = spread(fractions);
    fmt::print("{:>6} {:>8} {:>8.2f} {:>9.2f} {:>8.2f} {:>9.2f}   {:.2f} to {:.2f} {:>9.0f}\n",
               layers, parents.size(), size / 1e9, time.median, bytes / time.median / 1e9,
               fraction.median, fraction.min, fraction.max, peak_mb);
    std::fflush(stdout);
    (*series)[which].bytes.push_back(bytes);
    (*series)[which].seconds.push_back(time.median);
  }
  for (const std::string& parent : all) fs::remove_all(parent);
}

void run(const AssemblyOptions& o) {
  const WorkDirectory work(o.work);
  fmt::print("{} threads, {} rounds, {} cache, --memory {} MiB\n", o.threads, o.rounds,
             o.cold ? "cold" : "warm", o.memory_mib);
  fmt::print("layers  parents  GB each  assemble s   GB/s  of plain       range     peak MB\n");
  std::vector<Series> series(o.parents.size());
  for (const int layers : o.layers) measure(o, work, layers, &series);
  if (o.layers.size() < 3) return;
  for (size_t i = 0; i < series.size(); ++i) {
    fmt::print("{} parents: seconds over bytes, R2 {:.4f}\n", o.parents[i],
               linearity(series[i].bytes, series[i].seconds));
  }
}

}  // namespace

int run_assembly(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  AssemblyOptions o;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("shape", po::value(&o.shape)->required(), "what bench/shapes/ holds");
  d.add_options()("work", po::value(&o.work)->required(),
                  "directory on the disk in question, with room for all parents and a child");
  d.add_options()("layers",
                  po::value(&o.layers)->multitoken()->default_value({1, 2, 3, 4}, "1 2 3 4"),
                  "of the shape, one size each");
  d.add_options()("parents", po::value(&o.parents)->multitoken()->default_value({2, 3}, "2 3"),
                  "how many, from 2 on");
  d.add_options()("rounds", po::value(&o.rounds)->default_value(3), "of each");
  d.add_options()("threads", po::value(&o.threads)->default_value(0), "0 = all");
  d.add_options()("memory", po::value(&o.memory_mib)->default_value(2048), "MiB, of assemble");
  d.add_options()("cold", po::bool_switch(&o.cold), "parents are read from the disk");
  if (const auto exit = parse(d, args)) return *exit;
  const auto positive = [](int n) { return n > 0; };
  if (o.rounds < 1 || o.threads < 0 || !std::all_of(o.layers.begin(), o.layers.end(), positive) ||
      !std::all_of(o.parents.begin(), o.parents.end(), [](int n) { return n >= 2; })) {
    fmt::print(stderr,
               "chimera-bench: assembly: expected --rounds and --layers from 1, --parents "
               "from 2, --threads from 0\n");
    return 2;
  }
  if (o.threads == 0) o.threads = auto_threads();
  try {
    run(o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: assembly: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
