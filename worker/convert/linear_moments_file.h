// Files of LinearMoments and LinearFisher, one a layer.
#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/model_config.h"
#include "worker/calibrate/linear_fisher.h"
#include "worker/calibrate/linear_moments.h"

namespace latentforge::convert {

// Errors as SaveTensors.
absl::Status SaveLinearMoments(const std::filesystem::path& path,
                               const calibrate::LinearMoments& moments);

// Errors as LoadTensors; a file whose tensors do not fit `config`, are not finite or are fewer than
// `needs` counts as damaged: RemoveDamaged.
absl::StatusOr<calibrate::LinearMoments> LoadLinearMoments(
    const std::filesystem::path& path, const checkpoint::ModelConfig& config,
    const calibrate::LinearMomentsNeeds& needs);

// The same of LinearFisher.
absl::Status SaveLinearFisher(const std::filesystem::path& path,
                              const calibrate::LinearFisher& fisher);
absl::StatusOr<calibrate::LinearFisher> LoadLinearFisher(const std::filesystem::path& path,
                                                         const checkpoint::ModelConfig& config);

}  // namespace latentforge::convert
