#include "worker/calibrate/fisher_pass.h"

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "checkpoint/tensor_catalogue.h"
#include "worker/calibrate/loss_moments.h"
#include "worker/model/torch_guard.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {
namespace {

class LossSums : public GradientSums {
 public:
  LossSums(int64_t layer, LossMoments moments, const FisherOptions& options)
      : layer_(layer), moments_(std::move(moments)), options_(options) {}

  absl::Status Add(const model::LayerGraph::Gradients& gradients, int64_t length) override {
    moments_.Add(gradients.normed, at::cat({gradients.key, gradients.value}, 1), length);
    return absl::OkStatus();
  }

  absl::Status Save() override {
    LF_ASSIGN_OR_RETURN(const factorize::LossStatistics statistics,
                        model::CatchTorch([&] { return moments_.Finish(); }, "statistics"));
    return options_.save(layer_, statistics);
  }

 private:
  const int64_t layer_;
  LossMoments moments_;
  const FisherOptions& options_;
};

// K and V in full precision, so that the moments belong to the weights that are factorised.
absl::StatusOr<std::unique_ptr<GradientSums>> BeginLossSums(const model::WeightLoader& loader,
                                                            int64_t layer,
                                                            const FisherOptions& options) {
  const auto load = [&](absl::string_view suffix) {
    return loader.Tensor(checkpoint::LayerTensor(layer, suffix), at::kFloat);
  };
  LF_ASSIGN_OR_RETURN(const at::Tensor key, load("self_attn.k_proj.weight"));
  LF_ASSIGN_OR_RETURN(const at::Tensor value, load("self_attn.v_proj.weight"));
  LF_ASSIGN_OR_RETURN(LossMoments moments,
                      model::CatchTorch(
                          [&] {
                            return LossMoments(at::cat({key, value}).to(options.pass.device));
                          },
                          "statistics"));
  return std::make_unique<LossSums>(layer, std::move(moments), options);
}

}  // namespace

absl::Status RunFisherPass(const checkpoint::Checkpoint& checkpoint,
                           const TokenSequences& sequences, const FisherOptions& options) {
  const model::WeightLoader loader(checkpoint, options.pass.device, options.pass.dtype);
  GradientPassOptions pass = options.pass;
  pass.begin = [&](int64_t layer) { return BeginLossSums(loader, layer, options); };
  return RunGradientPass(checkpoint, sequences, pass);
}

}  // namespace latentforge::calibrate
