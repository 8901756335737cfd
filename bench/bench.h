// The workloads of chimera-bench. Each returns the process exit status.
//
// Thread safety: by the main thread, one workload per process.
#pragma once

#include <string>
#include <vector>

namespace chimera::bench {

/// What the machine gives at most.
int run_limits(const std::vector<std::string>& args);
/// The engine in this process against that: one sequence, a prompt, many sequences.
int run_decode(const std::vector<std::string>& args);
int run_prefill(const std::vector<std::string>& args);
int run_batch(const std::vector<std::string>& args);
/// Writes checkpoints of random weights.
int run_synth(const std::vector<std::string>& args);
/// Kernels against the measured memory bandwidth and against Eigen, same run.
int run_kernels(const std::vector<std::string>& args);
/// Start to ready, time to first token, decode rate, health round trip of a deployment.
int run_latency(const std::vector<std::string>& args);
/// Start to ready and memory against the size of the checkpoint.
int run_load(const std::vector<std::string>& args);
/// Inter-token times of streaming clients, quiet and under loads, unloads and swaps.
int run_swap(const std::vector<std::string>& args);
/// The limits of a daemon.
int run_capacity(const std::vector<std::string>& args);

/// Streams that decode with low-rank adapters, in one batch and in this process.
int run_adapters(const std::vector<std::string>& args);
/// Parents assembled into a child, against plain reads and writes of the same bytes.
int run_assembly(const std::vector<std::string>& args);
/// Text to ids and back on one core, against memcpy and a bare regular expression.
int run_tokenizer(const std::vector<std::string>& args);
/// What a constraint adds to a token, against a softmax over the vocabulary.
int run_constraint(const std::vector<std::string>& args);
/// A library module in a process of its own: cost per call and per token, and what sins cost.
int run_isolation(const std::vector<std::string>& args);

}  // namespace chimera::bench
