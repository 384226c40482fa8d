// The names that devices have in specifications and flags.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge {

// OK for auto, cpu, cuda, cuda:0 to cuda:999 and none; else InvalidArgument: "is "tpu", expected
// ...". Whether the device is there is for its machine to say.
absl::Status CheckDeviceName(absl::string_view device);

}  // namespace latentforge
