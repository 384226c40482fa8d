// A folder that appears under its final name whole or not at all.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/export/manifest.h"

namespace latentforge::exporter {

// Fails before any work is done: AlreadyExists when `output` exists and is not an
// empty folder; PermissionDenied or ResourceExhausted when no folder can be made there, which
// it tries; InvalidArgument when it has no name.
absl::Status CheckOutput(const std::filesystem::path& output);

// OUTPUT.partial-JOB.X beside OUTPUT, X of its own; removed with its contents when it is destroyed
// before Publish has succeeded. Not safe for concurrent use.
class StagingFolder {
 public:
  // Takes away what earlier attempts of the job left, also from under one that still writes, which
  // can publish nothing afterwards, and makes the folder and the parents of `output`.
  // InvalidArgument when job_id is not 1 to 128 of
  // [A-Za-z0-9._-]; errors of CheckOutput.
  static absl::StatusOr<StagingFolder> Create(const std::filesystem::path& output,
                                              absl::string_view job_id);
  StagingFolder(StagingFolder&& other) noexcept;
  StagingFolder& operator=(StagingFolder&&) = delete;
  ~StagingFolder();

  const std::filesystem::path& path() const { return partial_; }

  // Writes and syncs a file.
  absl::Status Write(absl::string_view name, absl::string_view contents);

  // Notes a synced file that somebody else wrote, with the SHA-256 of what it should
  // hold.
  void Note(absl::string_view name, absl::string_view sha256);

  // Reads every file back and fills manifest.files. DataLoss names a file that is
  // missing, was not noted or differs.
  absl::Status ReadBack(Manifest& manifest) const;

  // Renames the folder to OUTPUT, in one step. AlreadyExists when OUTPUT is no longer
  // absent or empty; Aborted when a later attempt has taken the folder away.
  absl::Status Publish();

 private:
  StagingFolder(std::filesystem::path output, std::filesystem::path partial)
      : output_(std::move(output)), partial_(std::move(partial)) {}

  absl::Status TakenAway() const;

  std::filesystem::path output_;
  std::filesystem::path partial_;  // empty after Publish or a move
  std::map<std::string, std::string> digests_;
};

}  // namespace latentforge::exporter
