// Files of compressed layers, and the maps that are compressed.
#pragma once

#include <array>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/dtype.h"
#include "worker/convert/low_rank_layer.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {

// Errors as WeightLoader::Tensor.
absl::StatusOr<LayerMaps> LoadMaps(const checkpoint::Checkpoint& checkpoint, int64_t layer);

// Factors in the output's format. Errors as SaveTensors and CastTensor.
absl::Status SaveLowRankLayer(const std::filesystem::path& path, const CompressedLayer& layer,
                              checkpoint::DType dtype);

// The factors in the tensors of such a file; maps that it does not hold are undefined.
exporter::LowRankLayer LowRankLayerOf(TensorMap& tensors);

// CompressedLayer::errors. DataLoss, after the file is removed, when it does not hold them.
absl::StatusOr<std::array<double, kLinearMaps>> LoadLowRankErrors(
    const std::filesystem::path& path);

}  // namespace latentforge::convert
