// Artifacts that are already there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/export/manifest.h"

namespace latentforge::exporter {

struct PublishedArtifact {
  std::filesystem::path path;
  std::string manifest_sha256;
  int64_t bytes = 0;  // of all files but manifest.json
};

// What lies at `path`, by its manifest and that one's text.
PublishedArtifact Describe(const std::filesystem::path& path, const Manifest& manifest,
                           absl::string_view manifest_text);

// What `job_id` published at `output` earlier, when it still verifies; nullopt when
// there is nothing or another job's. For an attempt that follows one which died, or was cut off,
// between publishing and saying so. DataLoss when it does not verify.
absl::StatusOr<std::optional<PublishedArtifact>> FindPublished(const std::filesystem::path& output,
                                                               absl::string_view job_id);

}  // namespace latentforge::exporter
