// What computes on this machine.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace latentforge::client {

// InvalidArgument when `device` is no name of a device, and, with reason DEVICE_UNAVAILABLE, when
// it is a GPU and this machine has no NVIDIA driver: a job of this machine's own would wait for
// ever, and LibTorch's error would name a library.
absl::Status CheckLocalDevice(const std::string& device);

}  // namespace latentforge::client
