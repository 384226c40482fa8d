#include "worker/calibrate/layer_input.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"

namespace latentforge::calibrate {

absl::Status CheckPass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences) {
  if (checkpoint.config().converted()) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.dir().string(), " is already converted by latentforge"));
  }
  if (sequences.count < 1 || sequences.length < 1) {
    return absl::InvalidArgumentError("calibration needs at least one sequence of one token");
  }
  return absl::OkStatus();
}

HiddenShape ShapeOf(const TokenSequences& sequences, const model::WeightLoader& loader) {
  return {sequences.count, sequences.length, loader.config().hidden_size, loader.dtype()};
}

absl::StatusOr<LayerInput> LayerInput::Open(int64_t layer, const std::filesystem::path& path,
                                            const TokenSequences& sequences,
                                            const model::WeightLoader& loader) {
  LayerInput input(sequences, loader);
  if (layer > 0) {
    LF_ASSIGN_OR_RETURN(input.file_, HiddenFile::Open(path, ShapeOf(sequences, loader)));
  }
  return input;
}

absl::StatusOr<at::Tensor> LayerInput::Read(int64_t first, int64_t count) const {
  const HiddenShape shape = ShapeOf(*sequences_, *loader_);
  if (file_) {
    at::Tensor hidden = at::empty({count, shape.length, shape.width}, shape.dtype);
    LF_RETURN_IF_ERROR(file_->Read(first, hidden));
    return hidden.to(loader_->device());
  }
  const auto ids = absl::MakeConstSpan(sequences_->ids)
                       .subspan(size_t(first * shape.length), size_t(count * shape.length));
  LF_ASSIGN_OR_RETURN(const at::Tensor rows, loader_->Embed(ids, shape.length));
  return rows.view({count, shape.length, shape.width});
}

}  // namespace latentforge::calibrate
