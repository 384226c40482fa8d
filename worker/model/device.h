// Where tensors live and in which format they are computed.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::model {

// The device that `text` names: "cpu", "cuda", "cuda:N", or "auto" (also empty):
// CUDA when its library loads and a device answers, else the CPU. CUDA's library
// is loaded here, at run time, so call this before any other use of CUDA.
// InvalidArgument for other texts and for an index beyond the devices present;
// FailedPrecondition says what is missing when CUDA is named and cannot be had.
absl::StatusOr<at::Device> SelectDevice(absl::string_view text);

// "float32" or "bfloat16", the formats in which models are computed here; empty
// means bfloat16. InvalidArgument for anything else.
absl::StatusOr<at::ScalarType> ParseComputeType(absl::string_view text);

// Threads that one tensor operation may use; 0 means one per core this process
// may run on. InvalidArgument when negative or above 1024. Call early, once.
absl::Status SetThreads(int threads);

}  // namespace latentforge::model
