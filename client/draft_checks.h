// What a draft of a job needs before it is sent.
#pragma once

#include "absl/status/status.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// InvalidArgument names the flag that is missing or whose value is out of range, and the key of a
// job file that says the same; METHOD_NOT_SUPPORTED for a method of later versions.
absl::Status CheckComplete(const v1::JobSpec& spec);

}  // namespace latentforge::client
