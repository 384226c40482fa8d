#include "checkpoint/estimate_parts.h"

#include <algorithm>

#include "checkpoint/gradient_sequences.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

int64_t Elements(const TensorSpec& spec) {
  int64_t elements = 1;
  for (const int64_t dimension : spec.shape) elements *= dimension;
  return elements;
}

}  // namespace

int64_t LayerParameters(const ModelConfig& config) {
  int64_t parameters = 0;
  for (const TensorSpec& spec : LayerTensors(config, 0)) parameters += Elements(spec);
  return parameters;
}

int64_t GradientMoments(const ModelConfig& config) {
  const auto square = [](int64_t width) { return width * width; };
  return square(config.q_width()) + 2 * square(config.kv_width()) + 2 * square(config.hidden_size) +
         (config.gated() ? 2 : 1) * config.intermediate_size;
}

int64_t SequencesOfGradient(const EstimateSettings& settings) {
  const int64_t all = settings.calibration_sequences;
  const int64_t step = GradientStep(all, settings.sequence_length);
  return (all + step - 1) / step;
}

}  // namespace latentforge::checkpoint
