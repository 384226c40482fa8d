// The order of input channels that an artifact's block identity goes by (docs/artifact.md).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "checkpoint/safetensors.h"

namespace latentforge::checkpoint {

// OK when `order` holds each of 0 to order.size() - 1 once. DataLoss names `tensor` and the first
// entry that is outside or a repetition.
absl::Status CheckOrder(absl::Span<const int64_t> order, absl::string_view tensor);

// The entries of a tensor of type I32; errors as CheckOrder.
absl::StatusOr<std::vector<int64_t>> ReadOrder(const TensorView& view);

}  // namespace latentforge::checkpoint
