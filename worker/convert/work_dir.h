// The scratch folder of a job: a lock while an attempt runs, and what earlier
// attempts of the job finished.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "worker/convert/phase.h"

namespace latentforge::convert {

inline constexpr int kWorkDirFormatVersion = 1;

struct PhaseTotals {
  double seconds = 0;
  int64_t tokens = 0;
};

// DIR/state.json.
struct WorkState {
  std::string job_digest;     // of settings, source and corpora; empty before the first attempt
  std::string source_stamp;   // names, sizes and times of the source's files …
  std::string source_digest;  // … for which this digest was computed
  std::array<PhaseTotals, kPhases.size()> phases;  // over all attempts
  int64_t peak_rss_bytes = 0;
  bool publishing = false;        // an attempt has reached the publishing phase
  bool unsynced_factors = false;  // factors were written that do not outlive the machine
};

// Movable; not safe for concurrent use. The lock ends with the object.
class WorkDir {
 public:
  // Makes the folder where it is absent, locks it and reads its state; one of
  // another format version, or not readable, counts as none. Aborted when another
  // process holds the lock; file errors.
  static absl::StatusOr<WorkDir> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path calibrate() const { return path_ / "calibrate"; }
  std::filesystem::path factorize() const { return path_ / "factorize"; }
  std::filesystem::path finetune() const { return path_ / "finetune"; }
  std::filesystem::path evaluate() const { return path_ / "evaluate"; }

  WorkState& state() { return state_; }
  const WorkState& state() const { return state_; }
  absl::Status SaveState() const;

  // Removes what earlier attempts left unless it belongs to `job_digest`, and makes
  // the sub-folders. Afterwards the state names `job_digest`.
  absl::Status Adopt(absl::string_view job_digest);

  // Removes everything but lock and state.
  absl::Status RemoveScratch() const;

 private:
  WorkDir(std::filesystem::path path, UniqueFd lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}

  absl::Status ReadState();
  absl::Status DropUnsynced();

  std::filesystem::path path_;
  UniqueFd lock_;
  WorkState state_;
  std::string boot_id_;
};

}  // namespace latentforge::convert
