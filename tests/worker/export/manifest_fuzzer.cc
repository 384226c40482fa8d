// Feeds arbitrary text to the parser of manifest.json, and checks that what it accepts names
// files of one folder and comes back the same after it was written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "worker/export/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace exporter = latentforge::exporter;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto manifest = exporter::ParseManifest(text);
  if (!manifest.ok()) return 0;
  for (const exporter::ManifestFile& file : manifest->files) {
    if (file.name.empty() || file.name == "." || file.name == "..") abort();
    if (file.name.find('/') != std::string::npos || file.name.find('\0') != std::string::npos) {
      abort();
    }
    if (file.size < 0 || file.sha256.size() != 64) abort();
  }
  const std::string written = exporter::ManifestToText(*manifest);
  const auto again = exporter::ParseManifest(written);
  if (!again.ok() || exporter::ManifestToText(*again) != written) abort();
  return 0;
}
