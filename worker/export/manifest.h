// manifest.json: the files of an artifact with their checksums, and where the
// artifact comes from. docs/artifact.md describes the format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"

namespace latentforge::exporter {

inline constexpr int kManifestFormatVersion = 1;
inline constexpr char kManifestName[] = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = 64 << 20;

struct ManifestFile {
  std::string name;  // a plain file name inside the folder
  int64_t size = 0;
  std::string sha256;
};

struct Manifest {
  std::string job_id;
  std::string source_digest;
  std::string settings_digest;
  Json versions = Json::object();
  std::vector<ManifestFile> files;  // sorted by name; never manifest.json itself
};

// Lists and hashes every file of `folder` except manifest.json into `manifest`.
// InvalidArgument when the folder holds anything but plain files.
absl::Status HashFolder(const std::filesystem::path& folder, Manifest& manifest);

std::string ManifestToText(const Manifest& manifest);

// InvalidArgument names the missing, wrong or unknown key, a file name that is not
// plain, or a format version other than kManifestFormatVersion.
absl::StatusOr<Manifest> ParseManifest(absl::string_view text);

// Reads manifest.json of `folder` and recomputes every checksum. DataLoss names
// the first file that is missing or differs; NotFound when there is no manifest.
absl::StatusOr<Manifest> VerifyArtifact(const std::filesystem::path& folder);

}  // namespace latentforge::exporter
