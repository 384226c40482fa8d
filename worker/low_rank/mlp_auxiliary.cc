#include "worker/low_rank/mlp_auxiliary.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

// A step is tried whole, then shortened to a quarter this many times.
constexpr int kQuarters = 3;

// g's own curvature counts from this share of Gauss and Newton's on: steps are then at most 100
// times as long, which the quarters take back.
constexpr double kLeastCurvature = 0.01;

// g, element by element.
struct GateLoss {
  const at::Tensor& fitted;
  const at::Tensor& up;
  const at::Tensor& hidden;
  double alpha;
  double beta;

  at::Tensor ValueAt(const at::Tensor& s) const {
    return alpha * (s - fitted).square() + beta * (hidden - at::silu(s) * up).square();
  }

  // g' over a positive curvature.
  at::Tensor NewtonStepAt(const at::Tensor& s) const {
    const at::Tensor p = at::sigmoid(s);
    const at::Tensor slope = up * SiluSlope(s);
    const at::Tensor bend = up * p * (1 - p) * (2 + s * (1 - 2 * p));
    const at::Tensor residual = hidden - s * p * up;
    // Halves of g' and g''.
    const at::Tensor first = alpha * (s - fitted) - beta * slope * residual;
    const at::Tensor gauss_newton = alpha + beta * slope.square();
    const at::Tensor second = gauss_newton - beta * bend * residual;
    return first / at::where(second > kLeastCurvature * gauss_newton, second, gauss_newton);
  }
};

}  // namespace

absl::Status CheckPenalties(const Penalties& penalties) {
  const std::pair<const char*, double> all[] = {{"alpha", penalties.alpha},
                                                {"alpha of the gate", penalties.alpha_gate},
                                                {"beta", penalties.beta},
                                                {"gamma", penalties.gamma}};
  for (const auto& [name, value] : all) {
    if (!std::isfinite(value) || value <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("penalty ", name, " is ", value, ", expected a finite number above 0"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<HiddenUpdate> HiddenUpdate::Prepare(const LowRank& down,
                                                   const Penalties& penalties) {
  const at::Tensor outer = at::matmul(down.down, down.down.t());
  const at::Tensor inner = at::matmul(down.up.t(), down.up);
  // Transposed, to be solved from the right: down^T M^-1 = (M^-T down)^T.
  at::Tensor system = penalties.gamma * at::matmul(outer, inner);
  system.diagonal().add_(penalties.beta);
  HiddenUpdate update;
  update.down_ = down;
  update.correction_ = std::get<0>(at::linalg_solve_ex(system, penalties.gamma * down.down));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(update.correction_, "the update of Z'"));
  return update;
}

at::Tensor HiddenUpdate::operator()(const at::Tensor& activated, const at::Tensor& y) const {
  const at::Tensor residual = y - RowsOf(down_, activated);
  return at::addmm(activated, at::matmul(residual, down_.up), correction_);
}

at::Tensor UpdatedReluValues(const at::Tensor& fitted, const at::Tensor& hidden,
                             const Penalties& penalties) {
  const double alpha = penalties.alpha;
  const double beta = penalties.beta;
  const at::Tensor active = at::relu((alpha * fitted + beta * hidden) / (alpha + beta));
  const at::Tensor silent = fitted.clamp_max(0);
  const at::Tensor active_loss =
      alpha * (active - fitted).square() + beta * (hidden - active).square();
  const at::Tensor silent_loss = alpha * (silent - fitted).square() + beta * hidden.square();
  return at::where(active_loss <= silent_loss, active, silent);
}

at::Tensor UpdatedUpValues(const at::Tensor& fitted, const at::Tensor& gate,
                           const at::Tensor& hidden, const Penalties& penalties) {
  const at::Tensor factor = at::silu(gate);
  return (penalties.alpha * fitted + penalties.beta * factor * hidden) /
         (penalties.alpha + penalties.beta * factor.square());
}

at::Tensor UpdatedGateValues(const at::Tensor& gate, const at::Tensor& fitted, const at::Tensor& up,
                             const at::Tensor& hidden, const Penalties& penalties, int64_t steps) {
  const GateLoss loss{.fitted = fitted,
                      .up = up,
                      .hidden = hidden,
                      .alpha = penalties.alpha_gate,
                      .beta = penalties.beta};
  at::Tensor best = gate;
  at::Tensor least = loss.ValueAt(gate);
  for (int64_t i = 0; i < steps; ++i) {
    const at::Tensor start = best;
    at::Tensor step = loss.NewtonStepAt(start);
    for (int quarters = 0; quarters <= kQuarters; ++quarters) {
      const at::Tensor tried = start - step;
      const at::Tensor value = loss.ValueAt(tried);
      best = at::where(value < least, tried, best);
      least = at::minimum(value, least);
      step = 0.25 * step;
    }
  }
  return best;
}

InnerRows UpdatedInnerRows(Activation activation, const InnerRows& inner, const InnerRows& fitted,
                           const at::Tensor& hidden, const Penalties& penalties,
                           int64_t gate_steps) {
  if (activation == Activation::kRelu) {
    return {.up = UpdatedReluValues(fitted.up, hidden, penalties), .gate = {}};
  }
  InnerRows updated;
  updated.up = UpdatedUpValues(fitted.up, inner.gate, hidden, penalties);
  updated.gate =
      UpdatedGateValues(inner.gate, fitted.gate, updated.up, hidden, penalties, gate_steps);
  return updated;
}

double DecoupledLoss(Activation activation, const InnerRows& inner, const InnerRows& fitted,
                     const at::Tensor& hidden, const LowRank& down, const at::Tensor& y,
                     const Penalties& penalties) {
  const auto squares = [](const at::Tensor& a) { return a.square().sum().item<double>(); };
  double loss = penalties.alpha * squares(fitted.up - inner.up) +
                penalties.beta * squares(hidden - Activate(activation, inner)) +
                penalties.gamma * squares(RowsOf(down, hidden) - y);
  if (activation == Activation::kSwiGlu) {
    loss += penalties.alpha_gate * squares(fitted.gate - inner.gate);
  }
  return loss;
}

}  // namespace latentforge::low_rank
