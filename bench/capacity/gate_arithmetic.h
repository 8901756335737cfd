// The arithmetic that a gate with very many candidates is: their rows times a token, and the choice
// among the scores, by the kernels and functions of the router and nothing around them.
//
// Gate rows take their way through the caches, too, where they meet the other weights of a step. So
// what is measured is by how much products with as many weights as a step reads take longer with
// the gate among them, than without it. Errors throw std::runtime_error.
//
// Thread safety: by the thread that made it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/float_buffer.h"

namespace chimera::bench {

class GateArithmetic {
 public:
  /// Of one token in all layers.
  struct Milliseconds {
    double all = 0;     // by all threads
    double choice = 0;  // of that: exponentials and the largest, by one thread
  };

  /// Gates of the checkpoint `backbone` with `modules` candidates more than its own. `threads`: 0 =
  /// auto.
  GateArithmetic(const std::string& backbone, int64_t modules, int threads);

  /// The median of some tokens.
  Milliseconds measure();

 private:
  struct Layer {
    FloatBuffer gate;            // [candidates, hidden]
    std::vector<uint16_t> rest;  // [rest_rows, hidden] BF16: attention and two experts
  };
  void multiply(const Matrix& weights, float* y);
  /// Milliseconds of a token; `choice_ms`: with the gate, and how long the choice took of that.
  double pass(double* choice_ms);

  const Kernels& kernels_;
  const ModelConfig config_;
  const int64_t candidates_, rest_rows_;
  ThreadPool pool_;
  std::vector<Layer> layers_;
  FloatBuffer x_;       // [hidden]
  FloatBuffer logits_;  // [candidates]
  FloatBuffer y_;       // [rest_rows]
};

}  // namespace chimera::bench
