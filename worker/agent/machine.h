// What the worker says of the machine it runs on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace latentforge::agent {

std::string HostName();

// Memory that processes here may use: the machine's, or the control group's limit
// when that is lower. `root` is "/" except in tests.
int64_t UsableMemoryBytes(const std::filesystem::path& root);

// "cpu", and "cuda:N" for each NVIDIA device node. Whether LibTorch can use it is
// for the compute process to find out.
std::vector<std::string> Devices(const std::filesystem::path& root);

// FailedPrecondition when jobs are to run on `device`, which is well named, and it is not among
// `devices`.
absl::Status CheckDevicePresent(absl::string_view device, const std::vector<std::string>& devices);

// A folder for scratch files that outlives reboots where possible:
// $XDG_CACHE_HOME, else ~/.cache, else /var/tmp.
std::filesystem::path DefaultScratch();

}  // namespace latentforge::agent
