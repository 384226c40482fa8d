// The folder of what outlives jobs: statistics and measurements, each under the SHA-256 of all that
// it depends on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/log.h"

namespace latentforge::convert {

// What lies under a key, by the end of its name.
enum class Kept {
  kStatistics,  // KEY.safetensors, a file: StatisticsFile
  kLayers,      // KEY.layers, a folder: LayerFileStore
  kWindows,     // KEY.windows.json, a file: BaseWindows
};

// Names, and a bound on the bytes of all that has such a name; others' files and links are left
// alone. Safe for concurrent use, also by processes: what is kept appears and goes as a whole.
class KeptFolder {
 public:
  // An empty folder keeps nothing. Beyond `limit_bytes` in all, what was not used for longest goes.
  explicit KeptFolder(std::filesystem::path folder, int64_t limit_bytes = int64_t{4} << 30)
      : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

  bool none() const { return folder_.empty(); }
  int64_t limit_bytes() const { return limit_bytes_; }

  std::filesystem::path PathOf(const std::string& key, Kept kind) const;
  // True when something has that name, whole or not.
  bool Has(const std::string& key, Kept kind) const;

  // Makes the folder, removes what processes that died were writing, and gives the name under which
  // this process writes; nothing has that name. File errors; FailedPrecondition when `bytes` alone
  // are beyond the limit.
  absl::StatusOr<std::filesystem::path> Begin(const std::string& key, Kept kind,
                                              int64_t bytes) const;
  // Gives what was written its name, in place of what has it, and removes what is beyond the limit.
  absl::Status Finish(const std::string& key, Kept kind) const;
  // Removes what was written.
  absl::Status Abandon(const std::string& key, Kept kind) const;

  // Only the order of removal depends on it.
  void MarkUsed(const std::string& key, Kept kind) const;
  // Removes it, if it is ours; the log says so, and why, either way.
  void Remove(const std::string& key, Kept kind, Severity severity, absl::string_view why) const;

 private:
  std::filesystem::path Temporary(const std::string& key, Kept kind) const;
  void RemoveAbandoned() const;
  void RemoveOldest(const std::filesystem::path& keep) const;

  std::filesystem::path folder_;
  int64_t limit_bytes_;
};

// The name of the index in a folder KEY.layers; a folder without one is none of ours.
inline constexpr char kKeptIndex[] = "index.json";

}  // namespace latentforge::convert
