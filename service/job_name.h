// Resource names: "jobs/{id}" and "jobs/{id}/attempts/{number}".
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// The id in "jobs/{id}". INVALID_ARGUMENT with a violation of `field`.
absl::StatusOr<std::string> ParseJobName(absl::string_view name, absl::string_view field = "name");

std::string JobName(absl::string_view id);

// Which attempt of which job.
struct AttemptId {
  std::string job;
  int32_t number = 0;
};

// Of "jobs/{id}/attempts/{number}". INVALID_ARGUMENT with a violation of "name".
absl::StatusOr<AttemptId> ParseAttemptName(absl::string_view name);

std::string AttemptName(absl::string_view job_id, int32_t number);

// A new id: a letter and 15 characters of 0-9 a-v, from 75 random bits.
std::string RandomJobId();

}  // namespace latentforge::service
