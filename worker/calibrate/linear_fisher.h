// Sums the Fisher information of what the linear maps of one decoder layer give.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/calibrate/gradient_pass.h"

namespace latentforge::calibrate {

// E[g g^T] of the loss's gradient g (nats) by a map's outputs over calibration tokens, of the
// widest maps only its diagonal; fp64 on the CPU.
struct LinearFisher {
  at::Tensor q;         // [heads * head_dim, heads * head_dim]
  at::Tensor k, v;      // [kv_heads * head_dim, kv_heads * head_dim]
  at::Tensor o, down;   // [D, D]
  at::Tensor gate, up;  // [F]; gate undefined where the MLP has none
};

// Products in fp32 for each block of rows, totals in fp64. Not safe for concurrent use. LibTorch's
// exceptions pass through.
class LinearFisherSum {
 public:
  LinearFisherSum(const checkpoint::ModelConfig& config, at::Device device);

  // As GradientSums has them.
  void Add(const model::LayerGraph::Gradients& gradients);
  void AddMlp(const at::Tensor& gradient);

  // FailedPrecondition when no row was added; DataLoss when a mean is not finite.
  absl::StatusOr<LinearFisher> Finish() const;

 private:
  bool gated_ = true;
  int64_t tokens_ = 0;
  at::Tensor q_, k_, v_, o_, down_, gate_up_;
};

}  // namespace latentforge::calibrate
