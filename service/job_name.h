// Resource names of jobs: "jobs/{id}".
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// The id in "jobs/{id}". INVALID_ARGUMENT with a violation of `field`.
absl::StatusOr<std::string> ParseJobName(absl::string_view name, absl::string_view field = "name");

std::string JobName(absl::string_view id);

// A new id: a letter and 15 characters of 0-9 a-v, from 75 random bits.
std::string RandomJobId();

}  // namespace latentforge::service
