#include "worker/convert/anchored_factorization.h"

#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/calibrate/anchor_pass.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/layer_conversion.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

using factorize::LayerRanks;

absl::Status WithAnchorReason(const absl::Status& status) {
  return WithReasonByCode(status, {{absl::StatusCode::kInternal, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kInvalidArgument, "NUMERICAL_FAILURE"},
                                   {absl::StatusCode::kNotFound, "CHECKPOINT_CORRUPT"},
                                   {absl::StatusCode::kPermissionDenied, "SCRATCH_NOT_WRITABLE"}});
}

// One run of the pass; borrows everything.
class Anchored {
 public:
  Anchored(Attempt& attempt, const Inputs& inputs, LayerFactorizer& factorizer,
           const factorize::RankProfile& ranks)
      : attempt_(attempt),
        inputs_(inputs),
        factorizer_(factorizer),
        ranks_(ranks),
        layers_(int64_t(ranks.size())) {}

  absl::StatusOr<int64_t> Run() {
    LF_RETURN_IF_ERROR(SaveDenseLayers());
    calibrate::AnchorPassOptions options = Options();
    int64_t finished = 0;
    while (finished < layers_ && options.finished[size_t(finished)]) ++finished;
    if (finished > 0) attempt_.progress.Resume(double(finished) / double(layers_));
    const double tokens = double(inputs_.sequences.count * inputs_.sequences.length);
    double worked = 0;
    options.progress = [&](double share, double done_here, absl::string_view detail) {
      worked = done_here * tokens;
      attempt_.progress.Update(share, worked, std::string(detail));
    };
    LF_RETURN_IF_ERROR(
        WithAnchorReason(calibrate::RunAnchorPass(inputs_.checkpoint, inputs_.sequences, options)));
    return std::llround(worked);
  }

 private:
  bool HasFactors(int64_t layer) const {
    std::error_code error;
    return std::filesystem::exists(FactorsPath(attempt_.work, layer), error);
  }

  bool StaysDense(const LayerRanks& ranks) const {
    const int64_t width = inputs_.checkpoint.config().kv_width();
    return attempt_.spec.factorization.joint ? ranks.joint == 2 * width
                                             : ranks.key == width && ranks.value == width;
  }

  absl::Status Save(int64_t layer, const absl::StatusOr<NamedTensors>& factors) const {
    LF_RETURN_IF_ERROR(factors.status());
    return SaveTensors(FactorsPath(attempt_.work, layer), *factors);
  }

  // They depend on nothing that feeds them.
  absl::Status SaveDenseLayers() const {
    for (int64_t layer = 0; layer < layers_; ++layer) {
      const LayerRanks& ranks = ranks_[size_t(layer)];
      if (!StaysDense(ranks) || HasFactors(layer)) continue;
      LF_RETURN_IF_ERROR(
          WithAnchorReason(Annotate(Save(layer, factorizer_.Factorize(layer, ranks)),
                                    absl::StrCat("factorisation of layer ", layer))));
    }
    return absl::OkStatus();
  }

  calibrate::AnchorPassOptions Options() const {
    calibrate::AnchorPassOptions options;
    options.device = attempt_.device;
    options.dtype = attempt_.dtype;
    options.scratch = attempt_.work.factorize();
    for (int64_t layer = 0; layer < layers_; ++layer) options.finished.push_back(HasFactors(layer));
    options.factorize = [this](int64_t layer, const factorize::AnchorMoments& moments) {
      return Save(layer, factorizer_.FactorizeAnchored(layer, ranks_[size_t(layer)], moments));
    };
    options.convert = [this](int64_t layer, model::LayerWeights& weights) -> absl::Status {
      LF_ASSIGN_OR_RETURN(const exporter::ConvertedLayer factors,
                          LoadLayer(FactorsPath(attempt_.work, layer)));
      return ConvertLayer(inputs_, factors, weights);
    };
    options.stop = [this] { return attempt_.stopped(); };
    return options;
  }

  Attempt& attempt_;
  const Inputs& inputs_;
  LayerFactorizer& factorizer_;
  const factorize::RankProfile& ranks_;
  const int64_t layers_;
};

}  // namespace

absl::StatusOr<int64_t> FactorizeAnchored(Attempt& attempt, const Inputs& inputs,
                                          LayerFactorizer& factorizer,
                                          const factorize::RankProfile& ranks) {
  return Anchored(attempt, inputs, factorizer, ranks).Run();
}

}  // namespace latentforge::convert
