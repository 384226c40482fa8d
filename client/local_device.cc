#include "client/local_device.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/device_name.h"
#include "client/error.h"

namespace latentforge::client {

absl::Status CheckLocalDevice(const std::string& device) {
  if (const absl::Status name = CheckDeviceName(device); !name.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--device ", name.message()));
  }
  std::error_code error;
  if (!absl::StartsWith(device, "cuda") || std::filesystem::exists("/dev/nvidiactl", error)) {
    return absl::OkStatus();
  }
  return WithNextStep(
      WithReason(absl::InvalidArgumentError(
                     absl::StrCat("--device is ", device,
                                  ", but this machine has no NVIDIA driver "
                                  "(/dev/nvidiactl is absent); expected cpu or auto here")),
                 "DEVICE_UNAVAILABLE"),
      "leave --device out, or run it on a machine with a GPU: latentforge job submit sends a "
      "conversion to a server");
}

}  // namespace latentforge::client
