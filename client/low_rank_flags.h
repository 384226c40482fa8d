// The flags that --method low-rank alone reads, and how they become its part of a JobSpec.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// What was typed; absent means: leave it to the job file, then to the server.
struct LowRankFlags {
  std::optional<double> ratio;
  std::optional<std::string> factor_layout;
  std::optional<std::string> query_key;
  std::optional<std::string> value_output;
  std::optional<std::string> mlp;
  std::optional<std::string> activations;
  bool bias_update = false;
  bool literal_hessian = false;
};

// Errors as ParseEnum, under the name of the flag.
absl::Status ApplyLowRank(const LowRankFlags& flags, v1::JobSpec* spec);

}  // namespace latentforge::client
