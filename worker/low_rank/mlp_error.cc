#include "worker/low_rank/mlp_error.h"

#include <ATen/ATen.h>

#include "base/status_macros.h"

namespace latentforge::low_rank {

absl::StatusOr<MlpError> MeasureMlp(const Mlp& original, const LowRankMlp& mlp,
                                    const MlpTokens& tokens) {
  LF_RETURN_IF_ERROR(CheckMlp(original));
  int64_t count = 0;
  MlpError error;
  LF_RETURN_IF_ERROR(VisitChunks(tokens, original.width(), [&](int64_t, const MlpRows& rows) {
    const at::Tensor y = OutputRowsOf(original, rows.original);
    const at::Tensor lost = y - OutputRowsOf(mlp, rows.compressed);
    count += y.size(0);
    error.loss += lost.square().sum().item<double>();
    error.power += y.square().sum().item<double>();
    return absl::OkStatus();
  }));
  if (!std::isfinite(error.loss) || !std::isfinite(error.power)) {
    return absl::InternalError("numerical failure: the MLP's outputs are not finite");
  }
  error.loss /= double(count);
  error.power /= double(count);
  return error;
}

}  // namespace latentforge::low_rank
