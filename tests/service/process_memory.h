// How much memory another process has.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace latentforge::service {

// Resident memory in MiB.
// AddressSanitizer keeps what was freed: under it these bounds are five times as wide.
#ifdef LATENTFORGE_ADDRESS_SANITIZER
inline constexpr int64_t kMemoryScale = 5;
#else
inline constexpr int64_t kMemoryScale = 1;
#endif

inline int64_t RssMiB(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    int64_t kib = 0;  // "VmRSS:     1234 kB"
    if (absl::StartsWith(line, "VmRSS:") &&
        absl::SimpleAtoi(line.substr(6, line.size() - 6 - 3), &kib))
      return kib >> 10;
  }
  ADD_FAILURE() << "process " << pid << " has no resident memory";
  return 0;
}

}  // namespace latentforge::service
