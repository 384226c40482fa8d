#include "checkpoint/estimate_parts.h"

#include <algorithm>

#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

// Of the method low_rank, as worker/convert/phase_low_rank_calibrate.cc has them: one sequence of
// as many goes back too, or as many as make this many tokens.
constexpr int64_t kSequencesOfGradient = 8;
constexpr int64_t kLeastTokensOfGradient = 4096;

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
  const int64_t length = std::max<int64_t>(settings.sequence_length, 1);
  const int64_t least = (kLeastTokensOfGradient + length - 1) / length;
  const int64_t all = settings.calibration_sequences;
  const int64_t step = std::clamp<int64_t>(all / least, 1, kSequencesOfGradient);
  return (all + step - 1) / step;
}

}  // namespace latentforge::checkpoint
