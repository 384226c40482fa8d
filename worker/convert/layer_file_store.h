// Scratch files, one a layer, that outlive their job: the statistics of the method low_rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/convert/kept_folder.h"

namespace latentforge::convert {

// What files are of.
struct LayerFilesId {
  std::string key;  // SHA-256 of all that every one of their tensors depends on
  int64_t layers = 0;
  // What they hold beyond what all of that key hold, and how much of it; those that hold more serve
  // too.
  std::map<std::string, int64_t> extent;
};

// The folders KEY.layers of a KeptFolder: the files of all layers, "0.safetensors" and so on, and
// index.json with the SHA-256 of each. Files are linked, not copied, where that goes:
// the scratch folder replaces its files and never changes one. Safe for concurrent use, also by
// processes.
class LayerFileStore {
 public:
  using PathOfLayer = std::function<std::filesystem::path(int64_t layer)>;

  explicit LayerFileStore(KeptFolder folder) : folder_(std::move(folder)) {}

  // True when the index says that there are files for `id`.
  bool Has(const LayerFilesId& id) const;

  // Puts the file of every layer in its place, over what is there; false when there are none for
  // `id`. Every byte is checked first: damaged ones are removed and count as none, what cannot be
  // read or removed stays and counts as none; a log line says so. Errors are those of the places.
  absl::StatusOr<bool> Restore(const LayerFilesId& id, const PathOfLayer& path) const;

  // Keeps the files, in place of those of the key. FailedPrecondition when they alone are beyond
  // the limit; errors of reading them and of writing. Nothing without a folder.
  absl::Status Keep(const LayerFilesId& id, const PathOfLayer& path) const;

 private:
  KeptFolder folder_;
};

}  // namespace latentforge::convert
