// What the worker says of the machine it runs on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace latentforge::agent {

std::string HostName();

// Memory that processes here may use: the machine's, or the control group's limit
// when that is lower. `root` is "/" except in tests.
int64_t UsableMemoryBytes(const std::filesystem::path& root);

// "cpu", and "cuda:N" for each NVIDIA device node. Whether LibTorch can use it is
// for the compute process to find out.
std::vector<std::string> Devices(const std::filesystem::path& root);

// A folder for scratch files that outlives reboots where possible:
// $XDG_CACHE_HOME, else ~/.cache, else /var/tmp.
std::filesystem::path DefaultScratch();

}  // namespace latentforge::agent
