#include "worker/export/staging.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <random>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace latentforge::exporter {
namespace fs = std::filesystem;
namespace {

// Makes the next read come from the disk, where the system is willing.
void DropFromPageCache(const fs::path& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.valid()) posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
}

absl::Status CheckJobId(absl::string_view job_id) {
  const bool plain = std::all_of(job_id.begin(), job_id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (job_id.empty() || job_id.size() > 128 || !plain) {
    return absl::InvalidArgumentError(
        absl::StrCat("job id \"", job_id, "\" is not 1 to 128 letters, digits, '.', '_' or '-'"));
  }
  return absl::OkStatus();
}

// The folder that Create makes, or the first of its parents that it would have to make.
fs::path FirstToMake(const fs::path& target) {
  fs::path first = target;
  std::error_code error;
  while (first.has_relative_path() && !fs::exists(first.parent_path(), error)) {
    first = first.parent_path();
  }
  return first;
}

// Makes a folder where the artifact's would be made, and takes it away again: permissions,
// read-only and special file systems all say no in their own way.
absl::Status TryToMakeBeside(const fs::path& target) {
  const fs::path trial =
      absl::StrCat(FirstToMake(target).string(), ".partial-trial-", std::to_string(getpid()));
  if (mkdir(trial.c_str(), 0700) == 0 || errno == EEXIST) {
    if (rmdir(trial.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    return ErrnoStatus(errno, "removing", trial);
  }
  const int error = errno;
  const std::string message =
      absl::StrCat("output ", target.string(), " cannot be made: no folder can be made in ",
                   trial.parent_path().string(), ": ", std::generic_category().message(error));
  const absl::StatusCode code = ErrnoStatus(error, "", trial).code();
  // In /proc and the like the system says that the folder to be made is not there.
  if (code == absl::StatusCode::kResourceExhausted) return absl::ResourceExhaustedError(message);
  return absl::PermissionDeniedError(message);
}

// As a folder that can be renamed to: absolute, without a slash at its end.
absl::StatusOr<fs::path> TargetOf(const fs::path& output) {
  fs::path target = fs::absolute(output).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  if (target.has_filename()) return target;
  return absl::InvalidArgumentError(
      absl::StrCat("output \"", output.string(), "\" is not a folder that can be made"));
}

// What is there already.
absl::Status CheckAbsentOrEmpty(const fs::path& output) {
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(output);
  if (absl::IsNotFound(names.status())) {
    std::error_code ignored;
    if (fs::symlink_status(output, ignored).type() == fs::file_type::not_found) {
      return absl::OkStatus();
    }
    return absl::AlreadyExistsError(
        absl::StrCat("output ", output.string(), " exists and is not a folder"));
  }
  LF_RETURN_IF_ERROR(Annotate(names.status(), "output"));
  if (!names->empty()) {
    return absl::AlreadyExistsError(absl::StrCat("output folder ", output.string(), " holds ",
                                                 names->size(), " files (", names->front(),
                                                 " ...), expected none"));
  }
  return absl::OkStatus();
}

// Beside the target, of one job; what follows is of one attempt. Earlier versions had none.
std::string PartialPrefix(const fs::path& target, absl::string_view job_id) {
  return absl::StrCat(target.filename().string(), ".partial-", job_id);
}

// A name that no other attempt has, on whatever machine.
fs::path FreshPartial(const fs::path& target, absl::string_view job_id) {
  std::random_device device;
  const uint64_t mark = (uint64_t{device()} << 32) | device();
  return target.parent_path() /
         absl::StrCat(PartialPrefix(target, job_id), ".", absl::Hex(mark, absl::kZeroPad16));
}

// Removes the folders of other attempts. First under another name, in one step: who still writes
// there must not publish what is half removed, or what somebody else writes.
absl::Status SweepOthers(const fs::path& target, absl::string_view job_id) {
  const std::string prefix = PartialPrefix(target, job_id);
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(target.parent_path());
  // In a folder that takes files and shows none they stay: names of their own keep them apart.
  if (absl::IsPermissionDenied(names.status())) return absl::OkStatus();
  LF_RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    absl::string_view rest = name;
    if (!absl::ConsumePrefix(&rest, prefix) || (!rest.empty() && rest.front() != '.')) continue;
    const fs::path other = target.parent_path() / name;
    const fs::path aside = FreshPartial(target, job_id);
    if (rename(other.c_str(), aside.c_str()) != 0) {
      if (errno == ENOENT) continue;
      return ErrnoStatus(errno, "taking away", other);
    }
    LF_RETURN_IF_ERROR(RemoveTree(aside));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOutput(const fs::path& output) {
  LF_ASSIGN_OR_RETURN(const fs::path target, TargetOf(output));
  LF_RETURN_IF_ERROR(CheckAbsentOrEmpty(target));
  return TryToMakeBeside(target);
}

absl::StatusOr<StagingFolder> StagingFolder::Create(const fs::path& output,
                                                    absl::string_view job_id) {
  LF_RETURN_IF_ERROR(CheckJobId(job_id));
  LF_ASSIGN_OR_RETURN(fs::path target, TargetOf(output));
  LF_RETURN_IF_ERROR(CheckAbsentOrEmpty(target));
  LF_RETURN_IF_ERROR(CreateDirectories(target.parent_path()));
  LF_RETURN_IF_ERROR(SweepOthers(target, job_id));
  const fs::path partial = FreshPartial(target, job_id);
  LF_RETURN_IF_ERROR(CreateDirectories(partial));
  return StagingFolder(std::move(target), partial);
}

StagingFolder::StagingFolder(StagingFolder&& other) noexcept
    : output_(std::move(other.output_)),
      partial_(std::exchange(other.partial_, fs::path())),
      digests_(std::move(other.digests_)) {}

StagingFolder::~StagingFolder() {
  if (partial_.empty()) return;
  const absl::Status status = RemoveTree(partial_);
  if (!status.ok()) {
    Log(Severity::kWarning, "could not remove an unfinished artifact",
        {{"path", partial_.string()}, {"error", status.ToString()}});
  }
}

absl::Status StagingFolder::Write(absl::string_view name, absl::string_view contents) {
  LF_RETURN_IF_ERROR(WriteFileAtomic(partial_ / std::string(name), contents));
  Note(name, Sha256Hex(contents));
  return absl::OkStatus();
}

void StagingFolder::Note(absl::string_view name, absl::string_view sha256) {
  digests_[std::string(name)] = std::string(sha256);
}

absl::Status StagingFolder::ReadBack(Manifest& manifest) const {
  for (const auto& [name, unused] : digests_) DropFromPageCache(partial_ / name);
  LF_RETURN_IF_ERROR(HashFolder(partial_, manifest));
  std::map<std::string, std::string> missing = digests_;
  for (const ManifestFile& file : manifest.files) {
    const auto expected = missing.find(file.name);
    if (expected == missing.end() || expected->second != file.sha256) {
      return absl::DataLossError(absl::StrCat(
          (partial_ / file.name).string(), " reads back with SHA-256 ", file.sha256,
          ", written was ", expected == missing.end() ? "no such file" : expected->second));
    }
    missing.erase(expected);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat((partial_ / missing.begin()->first).string(), " was written and is missing"));
}

absl::Status StagingFolder::TakenAway() const {
  return absl::AbortedError(
      absl::StrCat(partial_.string(), " is gone: a later attempt of the job publishes instead"));
}

absl::Status StagingFolder::Publish() {
  const absl::Status synced = SyncPath(partial_);
  if (absl::IsNotFound(synced)) return TakenAway();
  LF_RETURN_IF_ERROR(synced);
  // An existing empty folder is replaced in the same step.
  if (rename(partial_.c_str(), output_.c_str()) != 0) {
    const int error = errno;
    std::error_code ignored;
    if (error == ENOENT && !fs::exists(partial_, ignored)) return TakenAway();
    return ErrnoStatus(error, "publishing", output_);
  }
  partial_.clear();
  return SyncPath(output_.parent_path());
}

}  // namespace latentforge::exporter
