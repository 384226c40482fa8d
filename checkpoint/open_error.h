// Which part of a checkpoint an error of Checkpoint::Open is about.
#pragma once

#include "absl/status/status.h"

namespace latentforge::checkpoint {

enum class Part { kConfig, kWeights };

// The same error, about this part alone; OK stays OK.
absl::Status InPart(Part part, absl::Status status);

// The reason (docs/errors.md) of an error of Checkpoint::Open: UNSUPPORTED_ARCHITECTURE,
// SOURCE_NOT_READABLE or SOURCE_CORRUPT by its code; else MALFORMED_CONFIG or MALFORMED_SAFETENSORS
// when it is about one part alone, and MALFORMED_CHECKPOINT when the parts do not fit together.
const char* ReasonOfOpenError(const absl::Status& status);

}  // namespace latentforge::checkpoint
