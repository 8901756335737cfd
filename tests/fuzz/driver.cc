// Stand-alone driver for fuzz targets, for compilers without libFuzzer.
//
//   PROG [--seconds S] [--seed N] [--runs N] CORPUS_DIR    replay the corpus, then mutate it
//   PROG FILE…                                             reproduce: run each file once
//
// It knows no coverage; it makes up for that with mutations that suit length-prefixed and JSON
// formats: edge values for integers, edits of decimal numbers, splices, tokens. A target may
// define LLVMFuzzerCustomMutator, as for libFuzzer. The same seed and corpus give the same inputs.
// When the target crashes or hangs, the input is written to "crash-<seed>-<run>" in the current
// directory.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                                                size_t max_size, unsigned seed);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

constexpr size_t kMaxInput = 1u << 16;
constexpr unsigned kHangSeconds = 20;  // for one batch of inputs
constexpr uint64_t kBatch = 256;

// What a signal handler needs, hence not inside an object.
const uint8_t* g_input = nullptr;
size_t g_input_size = 0;
char g_crash_name[64] = "crash";
uint64_t g_seed = 1;
Random g_random;

// --- failures -------------------------------------------------------------------------------

void write_input() {
  if (g_input == nullptr) return;
  const int fd = ::open(g_crash_name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return;
  for (size_t done = 0; done < g_input_size;) {
    const ssize_t n = ::write(fd, g_input + done, g_input_size - done);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  ::close(fd);
  const auto say = [](const char* text) {
    [[maybe_unused]] const ssize_t n = ::write(2, text, std::strlen(text));
  };
  say("fuzz: failing input written to ");
  say(g_crash_name);
  say("\n");
  g_input = nullptr;
}

void on_signal(int signal_number) {
  write_input();
  std::signal(signal_number, SIG_DFL);
  ::raise(signal_number);
}

void install_handlers() {
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(write_input);
  for (const int s : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) {
    std::signal(s, on_signal);
  }
}

void run_one(const Bytes& input, uint64_t run) {
  std::snprintf(g_crash_name, sizeof(g_crash_name), "crash-%llu-%llu",
                static_cast<unsigned long long>(g_seed), static_cast<unsigned long long>(run));
  // An exact-size copy on the heap, so that AddressSanitizer sees the first byte past the end.
  const Bytes exact(input.begin(), input.end());
  g_input = exact.data();
  g_input_size = exact.size();
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  g_input = nullptr;
}

// --- mutations ------------------------------------------------------------------------------

size_t below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(g_random() % n); }

uint64_t edge_value() {
  static constexpr std::array<uint64_t, 18> kEdges = {
      0,          1,          2,           7,          8,
      9,          0x7f,       0xff,        0x7fff,     0xffff,
      0x7fffffff, 0xffffffff, 0x100000000, 1ull << 40, (1ull << 53) + 1,
      1ull << 62, 1ull << 63, UINT64_MAX};
  const uint64_t value = kEdges[below(kEdges.size())];
  return below(4) == 0 ? value - 1 : value;
}

void erase_range(Bytes& b) {
  if (b.empty()) return;
  const size_t at = below(b.size());
  const size_t n = 1 + below(std::min<size_t>(b.size() - at, 32));
  b.erase(b.begin() + static_cast<std::ptrdiff_t>(at),
          b.begin() + static_cast<std::ptrdiff_t>(std::min(at + n, b.size())));
}

void insert_at(Bytes& b, size_t at, std::string_view text) {
  b.insert(b.begin() + static_cast<std::ptrdiff_t>(at), text.begin(), text.end());
}

void insert_token(Bytes& b) {
  static constexpr std::array<std::string_view, 24> kTokens = {
      "{",       "}",       "[",    "]",    ",",    ":",    "\"",       "\\",
      "\\u0000", "\\ud800", "null", "true", "-1",   "1e9",  "0.5",      "00",
      " ",       "\n",      "{}",   "[]",   "\"\"", "\xff", "\xc0\x80", "\xed\xa0\x80"};
  insert_at(b, below(b.size() + 1), kTokens[below(kTokens.size())]);
}

void duplicate_range(Bytes& b) {
  if (b.empty()) return;
  const size_t from = below(b.size());
  const size_t n = 1 + below(std::min<size_t>(b.size() - from, 128));
  const std::string copy(b.begin() + static_cast<std::ptrdiff_t>(from),
                         b.begin() + static_cast<std::ptrdiff_t>(std::min(from + n, b.size())));
  insert_at(b, below(b.size() + 1), copy);
}

void edge_integer(Bytes& b) {
  const size_t width = size_t{1} << below(4);
  if (b.size() < width) return;
  // The front is where length prefixes stand.
  const size_t at = below(3) == 0 ? 0 : below(b.size() - width + 1);
  const uint64_t value = edge_value();
  for (size_t i = 0; i < width; ++i) b[at + i] = static_cast<uint8_t>(value >> (8 * i));
}

/// Replaces one run of decimal digits by an edge value or by a neighbour of what it was.
void edit_number(Bytes& b) {
  const auto digit = [](uint8_t c) { return c >= '0' && c <= '9'; };
  if (b.empty()) return;
  const auto start =
      std::find_if(b.begin() + static_cast<std::ptrdiff_t>(below(b.size())), b.end(), digit);
  if (start == b.end()) return;
  const auto end = std::find_if_not(start, b.end(), digit);
  uint64_t value = 0;
  const auto* text = reinterpret_cast<const char*>(&*start);
  std::from_chars(text, text + (end - start), value);
  value = below(2) == 0 ? edge_value() : value + below(9) - 4;
  const std::string fresh = std::to_string(value);
  const auto at = static_cast<size_t>(start - b.begin());
  b.erase(start, end);
  insert_at(b, at, fresh);
}

void mutate_once(Bytes& b) {
  switch (below(8)) {
    case 0:
      if (!b.empty()) b[below(b.size())] ^= static_cast<uint8_t>(1u << below(8));
      break;
    case 1:
      if (!b.empty()) b[below(b.size())] = static_cast<uint8_t>(g_random());
      break;
    case 2:
      erase_range(b);
      break;
    case 3:
      duplicate_range(b);
      break;
    case 4:
      edge_integer(b);
      break;
    case 5:
      insert_token(b);
      break;
    default:
      edit_number(b);
      break;
  }
}

Bytes splice(const Bytes& a, const Bytes& b) {
  Bytes out(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(below(a.size() + 1)));
  out.insert(out.end(), b.begin() + static_cast<std::ptrdiff_t>(below(b.size() + 1)), b.end());
  return out;
}

Bytes make_input(const std::vector<Bytes>& corpus) {
  Bytes b = corpus[below(corpus.size())];
  if (below(8) == 0) b = splice(b, corpus[below(corpus.size())]);
  if (LLVMFuzzerCustomMutator != nullptr && below(8) != 0) {
    const size_t size = std::min(b.size(), kMaxInput);
    b.resize(kMaxInput);
    b.resize(LLVMFuzzerCustomMutator(b.data(), size, kMaxInput,
                                     static_cast<unsigned>(g_random() & 0xffffffffu)));
  } else {
    for (size_t n = 1 + below(4); n > 0; --n) mutate_once(b);
  }
  if (b.size() > kMaxInput) b.resize(kMaxInput);
  return b;
}

// --- program --------------------------------------------------------------------------------

struct Options {
  double seconds = 5;
  uint64_t seed = 1;
  uint64_t runs = UINT64_MAX;
  std::vector<std::string> paths;
};

bool parse_options(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (!arg.starts_with("--")) {
      options.paths.emplace_back(arg);
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string_view value = argv[++i];
    const char* const end = value.data() + value.size();
    std::from_chars_result parsed{end, std::errc::invalid_argument};
    if (arg == "--seconds") parsed = std::from_chars(value.data(), end, options.seconds);
    if (arg == "--seed") parsed = std::from_chars(value.data(), end, options.seed);
    if (arg == "--runs") parsed = std::from_chars(value.data(), end, options.runs);
    if (parsed.ec != std::errc() || parsed.ptr != end) return false;
  }
  return !options.paths.empty();
}

Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<Bytes> read_corpus(const std::vector<std::string>& paths) {
  std::vector<std::filesystem::path> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::exists(path)) {
      std::fprintf(stderr, "fuzz: %s: no such file or directory\n", path.c_str());
      std::exit(2);
    }
    if (!std::filesystem::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> corpus;
  for (const auto& file : files) corpus.push_back(read_bytes(file));
  return corpus;
}

uint64_t fuzz(const std::vector<Bytes>& corpus, const Options& options) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(options.seconds);
  uint64_t runs = 0;
  while (runs < options.runs && Clock::now() < end) {
    ::alarm(kHangSeconds);
    for (uint64_t i = 0; i < kBatch && runs < options.runs; ++i) {
      run_one(make_input(corpus), ++runs);
    }
  }
  ::alarm(0);
  return runs;
}

}  // namespace

/// The generic mutations for custom mutators.
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  Bytes b(data, data + size);
  for (size_t n = 1 + below(3); n > 0; --n) mutate_once(b);
  const size_t n = std::min(b.size(), max_size);
  std::copy_n(b.begin(), n, data);
  return n;
}

int main(int argc, char** argv) {
  Options options;
  if (!parse_options(argc, argv, options)) {
    std::fprintf(stderr, "usage: %s [--seconds S] [--seed N] [--runs N] CORPUS_DIR|FILE…\n",
                 argv[0]);
    return 2;
  }
  g_seed = options.seed;
  g_random.seed(options.seed);
  install_handlers();
  const bool reproduce = std::none_of(options.paths.begin(), options.paths.end(), [](auto& path) {
    return std::filesystem::is_directory(path);
  });
  const std::vector<Bytes> corpus = read_corpus(options.paths);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: %s holds no corpus files\n", argv[0], options.paths[0].c_str());
    return 2;
  }
  for (const Bytes& input : corpus) run_one(input, 0);
  const uint64_t runs = reproduce ? 0 : fuzz(corpus, options);
  std::printf("fuzz: seed %llu, %zu corpus files, %llu mutated inputs, no failure\n",
              static_cast<unsigned long long>(options.seed), corpus.size(),
              static_cast<unsigned long long>(runs));
  return 0;
}
