// Writes the logits of chosen positions, for comparison with transformers:
//   lf_dump_logits MODEL IDS OUT float32|bfloat16 [POSITION...]
// IDS: int32 values of one sequence. OUT: fp32 [positions, vocabulary]; without
// positions, all of them.
#include <ATen/ATen.h>

#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "worker/model/decoder.h"
#include "worker/model/device.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::model {
namespace {

absl::StatusOr<at::Tensor> HiddenStates(const WeightLoader& loader,
                                        const std::vector<int32_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  LF_ASSIGN_OR_RETURN(const at::Tensor rows, loader.Embed(ids, length));
  const at::Tensor hidden = rows.unsqueeze(0);
  LF_ASSIGN_OR_RETURN(Decoder decoder,
                      Decoder::Create(loader.config(), loader.device(), loader.dtype(), length));
  for (int64_t layer = 0; layer < loader.config().num_layers; ++layer) {
    LF_ASSIGN_OR_RETURN(const LayerWeights weights, loader.Layer(layer));
    LF_RETURN_IF_ERROR(decoder.Forward(weights, hidden));
  }
  LF_ASSIGN_OR_RETURN(const Norm norm, loader.FinalNorm());
  return decoder.FinalNorm(rows, norm);
}

absl::Status Run(const std::vector<std::string>& arguments) {
  if (arguments.size() < 5) {
    return absl::InvalidArgumentError("usage: lf_dump_logits MODEL IDS OUT DTYPE [POSITION...]");
  }
  LF_ASSIGN_OR_RETURN(const checkpoint::Checkpoint source,
                      checkpoint::Checkpoint::Open(arguments[1]));
  LF_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(arguments[2]));
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  LF_ASSIGN_OR_RETURN(const at::ScalarType dtype, ParseComputeType(arguments[4]));
  std::vector<int64_t> positions;
  for (size_t i = 5; i < arguments.size(); ++i) {
    if (!absl::SimpleAtoi(arguments[i], &positions.emplace_back())) {
      return absl::InvalidArgumentError(arguments[i] + " is no position");
    }
  }
  const WeightLoader loader(source, at::kCPU, dtype);
  LF_ASSIGN_OR_RETURN(at::Tensor hidden, HiddenStates(loader, ids));
  LF_ASSIGN_OR_RETURN(const at::Tensor head, loader.LmHeadRows(0, loader.config().vocab_size));
  return CatchTorch(
      [&] {
        if (!positions.empty()) hidden = hidden.index_select(0, at::tensor(positions));
        const at::Tensor logits = hidden.mm(head.t()).to(at::kFloat).contiguous();
        return WriteFileAtomic(
            arguments[3],
            absl::string_view(static_cast<const char*>(logits.const_data_ptr()), logits.nbytes()));
      },
      "logits");
}

}  // namespace
}  // namespace latentforge::model

int main(int argc, char** argv) {
  const absl::Status status = latentforge::model::Run(std::vector<std::string>(argv, argv + argc));
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
