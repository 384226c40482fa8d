#include "worker/export/published.h"

#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace latentforge::exporter {

PublishedArtifact Describe(const std::filesystem::path& path, const Manifest& manifest,
                           absl::string_view manifest_text) {
  PublishedArtifact artifact{path, Sha256Hex(manifest_text), 0};
  for (const ManifestFile& file : manifest.files) artifact.bytes += file.size;
  return artifact;
}

absl::StatusOr<std::optional<PublishedArtifact>> FindPublished(const std::filesystem::path& output,
                                                               absl::string_view job_id) {
  const absl::StatusOr<std::string> text = ReadFile(output / kManifestName, kMaxManifestBytes);
  if (!text.ok()) return std::nullopt;
  const absl::StatusOr<Manifest> manifest = ParseManifest(*text);
  if (!manifest.ok() || manifest->job_id != job_id) return std::nullopt;
  LF_RETURN_IF_ERROR(VerifyArtifact(output).status());
  return Describe(output, *manifest, *text);
}

}  // namespace latentforge::exporter
