// Looks whether the disks have room for what an attempt will write.
#pragma once

#include "absl/status/status.h"
#include "worker/convert/attempt.h"

namespace latentforge::convert {

// ResourceExhausted with reason SCRATCH_FULL or OUTPUT_DISK_FULL names the folder,
// the bytes free and the bytes needed. What the scratch folder already holds is
// not asked for again.
absl::Status CheckDiskSpace(const Attempt& attempt, const Inputs& inputs);

}  // namespace latentforge::convert
