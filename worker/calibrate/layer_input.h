// The input of one layer for every calibration sequence: the embedding for the first
// layer, a file of hidden states for the others.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "worker/calibrate/hidden_file.h"
#include "worker/calibrate/sampling.h"
#include "worker/model/weights.h"

namespace latentforge::calibrate {

// What a pass over `sequences` needs. InvalidArgument for an artifact that is already
// converted and for sequences without a token.
absl::Status CheckPass(const checkpoint::Checkpoint& checkpoint, const TokenSequences& sequences);

// Hidden states of `sequences` in the loader's type.
HiddenShape ShapeOf(const TokenSequences& sequences, const model::WeightLoader& loader);

// Borrows loader and sequences. Movable; not safe for concurrent use.
class LayerInput {
 public:
  // `path` is the file of the layer's input; layer 0 has none. Errors as HiddenFile::Open.
  static absl::StatusOr<LayerInput> Open(int64_t layer, const std::filesystem::path& path,
                                         const TokenSequences& sequences,
                                         const model::WeightLoader& loader);

  // Sequences [first, first + count), [count, T, D] on the loader's device, in memory of
  // their own. Errors as HiddenFile::Read and WeightLoader::Embed.
  absl::StatusOr<at::Tensor> Read(int64_t first, int64_t count) const;

 private:
  LayerInput(const TokenSequences& sequences, const model::WeightLoader& loader)
      : sequences_(&sequences), loader_(&loader) {}

  const TokenSequences* sequences_;
  const model::WeightLoader* loader_;
  std::optional<HiddenFile> file_;  // absent: the embedding
};

}  // namespace latentforge::calibrate
