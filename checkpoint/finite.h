// Looks for NaN and infinity in raw weights. Helper of Checkpoint::Digest.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"

namespace latentforge::checkpoint {

// Index of the first element that is NaN or infinite. `bytes` holds whole
// little-endian elements at any alignment. Types other than F32, F16 and BF16
// have none.
std::optional<int64_t> FindNonFinite(DType dtype, absl::string_view bytes);

}  // namespace latentforge::checkpoint
