// JSON files that say what they should be, and whose content is checked against its digest.
#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"

namespace latentforge::convert {

// Writes {"content": ..., "sha256": of its text}, whole or not at all. File errors.
absl::Status WriteSealedJson(const std::filesystem::path& path, const Json& content);

// The content. DataLoss when it is not as WriteSealedJson wrote it; NotFound and other errors of
// reading.
absl::StatusOr<Json> ReadSealedJson(const std::filesystem::path& path);

}  // namespace latentforge::convert
