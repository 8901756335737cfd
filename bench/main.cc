// chimera-bench: one workload per question; every figure is a median with its spread, measured
// against a physical limit or a quiet run of the same process.
#include <fmt/format.h>

#include <functional>
#include <string>
#include <vector>

#include "base/standard_output.h"
#include "base/version.h"
#include "bench.h"

namespace {

struct Workload {
  const char* name;
  const char* what;
  int (*run)(const std::vector<std::string>&);
};

const Workload kWorkloads[] = {
    {"limits", "GB/s and GFLOP/s of the machine, all threads", chimera::bench::run_limits},
    {"kernels", "matmul GFLOP/s and GB/s vs memory bandwidth and Eigen",
     chimera::bench::run_kernels},
    {"decode", "tokens/s of one sequence, engine alone, vs memory bandwidth",
     chimera::bench::run_decode},
    {"prefill", "tokens/s of a prompt, engine alone, vs products in cache",
     chimera::bench::run_prefill},
    {"batch", "tokens/s of many sequences, engine alone, vs memory bandwidth",
     chimera::bench::run_batch},
    {"synth", "writes a checkpoint of random weights in any shape", chimera::bench::run_synth},
    {"latency", "ms to ready, to first token, per token; health round trip in us",
     chimera::bench::run_latency},
    {"load", "ms to ready and MB of memory vs the size of the checkpoint",
     chimera::bench::run_load},
    {"swap", "inter-token ms (p50, p99) quiet vs under loads, unloads and swaps",
     chimera::bench::run_swap},
    {"capacity", "what a daemon bears: changes, modules, loads, long prompts",
     chimera::bench::run_capacity},
    {"adapters", "tokens/s of streams with adapters (LoRA) of their own vs without",
     chimera::bench::run_adapters},
    {"assembly", "s and GB/s of assembling parents vs plain reads and writes",
     chimera::bench::run_assembly},
    {"tokenizer", "MB/s from text to ids and back vs memcpy and a bare regex",
     chimera::bench::run_tokenizer},
    {"constraint", "us per token that a constraint adds vs a softmax",
     chimera::bench::run_constraint},
    {"isolation", "us per call, tokens/s, sins of a library in its own process",
     chimera::bench::run_isolation},
};

int usage(std::FILE* out, int code) {
  fmt::print(out,
             "Usage: chimera-bench WORKLOAD [OPTIONS]   (--help after a workload)\n"
             "       chimera-bench --help | --version\n\n");
  for (const Workload& w : kWorkloads) fmt::print(out, "  {:<12}{}\n", w.name, w.what);
  return code;
}

int run(const std::vector<std::string>& args) {
  if (args.empty()) return usage(stderr, 2);
  if (args[0] == "--help" || args[0] == "-h") return usage(stdout, 0);
  if (args[0] == "--version") {
    fmt::print("chimera-bench {}\n", chimera::version());
    return 0;
  }
  for (const Workload& w : kWorkloads) {
    if (args[0] == w.name) return w.run({args.begin() + 1, args.end()});
  }
  std::string names;
  for (const Workload& w : kWorkloads) names += (names.empty() ? "" : ", ") + std::string(w.name);
  fmt::print(stderr, "chimera-bench: unknown workload '{}' (expected one of {})\n", args[0], names);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  chimera::guard_standard_streams();
  return chimera::finish_output("chimera-bench", run({argv + 1, argv + argc}));
}
