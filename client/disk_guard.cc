#include "client/disk_guard.h"

#include <unistd.h>

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/error.h"

namespace latentforge::client {
namespace {

// What the database needs to record the end of a job, with room to spare.
constexpr int64_t kWanted = int64_t{1} << 20;
constexpr absl::Duration kPatience = absl::Seconds(10);
constexpr absl::Duration kInterval = absl::Seconds(1);

}  // namespace

std::optional<int64_t> FreeBytes(const std::filesystem::path& folder) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return std::nullopt;
  // Some of it is kept back for root.
  return static_cast<int64_t>(geteuid() == 0 ? space.free : space.available);
}

absl::Status CheckNotFull(const std::filesystem::path& folder, const FreeBytesOf& free_bytes) {
  const std::optional<int64_t> free = free_bytes(folder);
  if (!free.has_value() || *free >= kWanted) return absl::OkStatus();
  const absl::Status full = absl::ResourceExhaustedError(absl::StrCat(
      "the disk of the work folder ", folder.string(), " has ", *free,
      " bytes free, expected at least ", kWanted, " for the job's database and finished layers"));
  return WithNextStep(WithReason(full, "SCRATCH_FULL"),
                      "free space there and repeat the command, which continues this run, or name "
                      "a folder on another disk with --work-dir");
}

DiskGuard::DiskGuard(std::filesystem::path folder, Clock& clock, FreeBytesOf free_bytes)
    : folder_(std::move(folder)),
      clock_(clock),
      free_bytes_(std::move(free_bytes)),
      next_look_(clock.Monotonic()) {}

absl::Status DiskGuard::Check() {
  const absl::Duration now = clock_.Monotonic();
  if (now < next_look_) return absl::OkStatus();
  next_look_ = now + kInterval;
  const absl::Status full = CheckNotFull(folder_, free_bytes_);
  if (full.ok()) {
    full_since_.reset();
    return full;
  }
  if (!full_since_.has_value()) full_since_ = now;
  return now - *full_since_ < kPatience ? absl::OkStatus() : full;
}

}  // namespace latentforge::client
