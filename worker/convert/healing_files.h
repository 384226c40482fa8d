// What healing leaves in the scratch folder.
#pragma once

#include <filesystem>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/export/artifact_writer.h"
#include "worker/finetune/healer.h"

namespace latentforge::convert {

// The state of an interrupted run, whole or absent; errors as SaveTensors.
absl::Status SaveHealingState(const std::filesystem::path& path,
                              const finetune::HealingState& state);

// Into `state`, which has the layers and factors of a fresh one. False, and `state` as it was,
// when there is no file; DataLoss, and the file removed, when it does not fit.
absl::StatusOr<bool> LoadHealingState(const std::filesystem::path& path,
                                      finetune::HealingState& state);

// Between the two forms of a layer's factors.
finetune::TrainableWeights ToTrainableWeights(const exporter::ConvertedLayer& layer);

}  // namespace latentforge::convert
