// Looks whether the disks have room for what an attempt will write.
#pragma once

#include "absl/status/status.h"
#include "worker/convert/attempt.h"

namespace latentforge::convert {

// The most bytes that this attempt will add to the scratch folder at any time: hidden
// states, statistics, factors and the state of healing, less what the files of these phases
// already take there; and statistics that are kept for later jobs, where their folder is on
// the same disk: once they are written, hidden states are gone.
int64_t ScratchBytesNeeded(const Attempt& attempt, const Inputs& inputs);

// ResourceExhausted with reason SCRATCH_FULL or OUTPUT_DISK_FULL names the folder,
// the bytes free and the bytes needed. What the scratch folder already holds is
// not asked for again.
absl::Status CheckDiskSpace(const Attempt& attempt, const Inputs& inputs);

}  // namespace latentforge::convert
