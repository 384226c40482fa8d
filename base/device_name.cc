#include "base/device_name.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace latentforge {

absl::Status CheckDeviceName(absl::string_view device) {
  if (device.empty() || device == "auto" || device == "cpu" || device == "cuda") {
    return absl::OkStatus();
  }
  absl::string_view index = device;
  if (absl::ConsumePrefix(&index, "cuda:") && !index.empty() && index.size() <= 3 &&
      std::all_of(index.begin(), index.end(), absl::ascii_isdigit)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("is \"", device.substr(0, 40), "\", expected auto, cpu, cuda or cuda:N"));
}

}  // namespace latentforge
