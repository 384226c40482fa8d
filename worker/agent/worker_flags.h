// The command line of latentforge-worker.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "proto/channel_security.h"

namespace latentforge::agent {

struct WorkerFlags {
  std::string server = "127.0.0.1:8470";
  ChannelSecurity security;
  std::string name;
  int slots = 1;
  int64_t memory_bytes = -1;  // of one attempt; -1: what the machine has / slots; 0: any
  std::map<std::string, std::string> labels;
  std::string scratch;
  std::string statistics;
  std::vector<std::string> allowed_roots;
  absl::Duration scratch_keep = absl::Hours(24 * 7);
  std::string convert;
  std::string device;
  int threads = 0;
  std::string ready_file;
  absl::Duration stop_grace = absl::Seconds(10);
  absl::Duration exit_when_server_gone = absl::InfiniteDuration();
  LogFormat log_format = LogFormat::kText;
};

// Fills in the flags with their defaults. Prints help, version or an error;
// nullopt and an exit code when the program has to end (0, or 2 for wrong usage).
std::optional<WorkerFlags> ParseWorkerFlags(int argc, const char* const* argv, int* exit_code);

}  // namespace latentforge::agent
