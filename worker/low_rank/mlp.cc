#include "worker/low_rank/mlp.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "worker/factorize/tensor_check.h"

namespace latentforge::low_rank {
namespace {

absl::Status CheckMap(const Linear& map, int64_t out, int64_t in, absl::string_view name) {
  const std::string weight = absl::StrCat("the weight of ", name);
  LF_RETURN_IF_ERROR(factorize::CheckTensor(map.weight, {out, in}, weight));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(map.weight, weight));
  if (!map.bias.defined()) return absl::OkStatus();
  const std::string bias = absl::StrCat("the bias of ", name);
  LF_RETURN_IF_ERROR(factorize::CheckTensor(map.bias, {out}, bias));
  return factorize::CheckFinite(map.bias, bias);
}

absl::Status CheckRank(int64_t rank, const Linear& map, absl::string_view name) {
  const int64_t most = std::min(map.weight.size(0), map.weight.size(1));
  if (rank >= 1 && rank <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rank of ", name, " is ", rank, ", expected 1 to ", most));
}

absl::StatusOr<at::Tensor> CheckedRows(const at::Tensor& rows, at::IntArrayRef shape,
                                       const std::string& name) {
  if (!rows.defined() || !at::isFloatingType(rows.scalar_type())) {
    return absl::InvalidArgumentError(absl::StrCat(name, " have no floating type"));
  }
  const at::Tensor checked = rows.to(at::kDouble);
  LF_RETURN_IF_ERROR(factorize::CheckTensor(checked, shape, name));
  LF_RETURN_IF_ERROR(factorize::CheckFinite(checked, name));
  return checked;
}

absl::StatusOr<MlpRows> ReadChunk(const MlpTokens& tokens, int64_t chunk, int64_t d) {
  LF_ASSIGN_OR_RETURN(const MlpRows rows, tokens.read(chunk));
  const std::string name = absl::StrCat("the MLP's input rows of chunk ", chunk);
  const bool sized = rows.original.defined() && rows.original.dim() == 2;
  const int64_t n = sized ? rows.original.size(0) : 0;
  MlpRows checked;
  LF_ASSIGN_OR_RETURN(checked.original, CheckedRows(rows.original, {n, d}, name));
  checked.compressed = checked.original;
  if (rows.compressed.defined()) {
    LF_ASSIGN_OR_RETURN(
        checked.compressed,
        CheckedRows(rows.compressed, {n, d}, absl::StrCat(name, " behind compressed layers")));
  }
  return checked;
}

}  // namespace

at::Tensor RowsOf(const Linear& map, const at::Tensor& rows) {
  return map.bias.defined() ? at::addmm(map.bias, rows, map.weight.t())
                            : at::matmul(rows, map.weight.t());
}

at::Tensor RowsOf(const LowRank& map, const at::Tensor& rows) {
  return RowsOf(Linear{.weight = map.up, .bias = map.bias}, at::matmul(rows, map.down.t()));
}

InnerRows InnerRowsOf(const Mlp& mlp, const at::Tensor& rows) {
  InnerRows inner{.up = RowsOf(mlp.up, rows), .gate = {}};
  if (mlp.activation == Activation::kSwiGlu) inner.gate = RowsOf(mlp.gate, rows);
  return inner;
}

InnerRows InnerRowsOf(const LowRankMlp& mlp, const at::Tensor& rows) {
  InnerRows inner{.up = RowsOf(mlp.up, rows), .gate = {}};
  if (mlp.activation == Activation::kSwiGlu) inner.gate = RowsOf(mlp.gate, rows);
  return inner;
}

at::Tensor Activate(Activation activation, const InnerRows& inner) {
  return activation == Activation::kSwiGlu ? at::silu(inner.gate) * inner.up : at::relu(inner.up);
}

at::Tensor SiluSlope(const at::Tensor& s) {
  const at::Tensor p = at::sigmoid(s);
  return p * (1 + s * (1 - p));
}

at::Tensor OutputRowsOf(const Mlp& mlp, const at::Tensor& rows) {
  return RowsOf(mlp.down, Activate(mlp.activation, InnerRowsOf(mlp, rows)));
}

at::Tensor OutputRowsOf(const LowRankMlp& mlp, const at::Tensor& rows) {
  return RowsOf(mlp.down, Activate(mlp.activation, InnerRowsOf(mlp, rows)));
}

absl::Status CheckMlp(const Mlp& mlp) {
  if (!mlp.down.weight.defined() || mlp.down.weight.dim() != 2 || mlp.down.weight.numel() == 0) {
    return absl::InvalidArgumentError(
        "the weight of down is not a non-empty matrix, expected [d, f]");
  }
  const int64_t d = mlp.width();
  const int64_t f = mlp.inner_width();
  LF_RETURN_IF_ERROR(CheckMap(mlp.down, d, f, "down"));
  LF_RETURN_IF_ERROR(CheckMap(mlp.up, f, d, "up"));
  if (mlp.activation == Activation::kSwiGlu) return CheckMap(mlp.gate, f, d, "gate");
  return absl::OkStatus();
}

absl::Status CheckRanks(const Mlp& mlp, const MlpRanks& ranks) {
  LF_RETURN_IF_ERROR(CheckRank(ranks.up, mlp.up, "up"));
  LF_RETURN_IF_ERROR(CheckRank(ranks.down, mlp.down, "down"));
  if (mlp.activation == Activation::kSwiGlu) return CheckRank(ranks.gate, mlp.gate, "gate");
  return absl::OkStatus();
}

absl::Status VisitChunks(const MlpTokens& tokens, int64_t d,
                         const std::function<absl::Status(int64_t, const MlpRows&)>& visit) {
  if (!tokens.read) return absl::InvalidArgumentError("the MLP's calibration tokens lack a reader");
  int64_t total = 0;
  for (int64_t chunk = 0; chunk < tokens.chunks; ++chunk) {
    LF_ASSIGN_OR_RETURN(const MlpRows rows, ReadChunk(tokens, chunk, d));
    total += rows.original.size(0);
    LF_RETURN_IF_ERROR(visit(chunk, rows));
  }
  if (total > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the MLP has 0 calibration tokens in ", tokens.chunks, " chunks"));
}

}  // namespace latentforge::low_rank
