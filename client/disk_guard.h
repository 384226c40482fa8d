// Notices that the disk of a work folder is full. Then the private server can
// record no more, not even that the job failed, and a worker would wait for ever.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace latentforge::client {

// Bytes that this user can still write to the disk of `folder`; nullopt when the
// system does not say.
std::optional<int64_t> FreeBytes(const std::filesystem::path& folder);

using FreeBytesOf = std::function<std::optional<int64_t>(const std::filesystem::path&)>;

// ResourceExhausted SCRATCH_FULL, with folder, bytes free and bytes wanted, when the disk of a
// work folder is full at this moment.
absl::Status CheckNotFull(const std::filesystem::path& folder, const FreeBytesOf& free_bytes);

// Not safe for concurrent use. Borrows the clock.
class DiskGuard {
 public:
  DiskGuard(std::filesystem::path folder, Clock& clock, FreeBytesOf free_bytes);

  // As CheckNotFull, once the disk has been full for ten seconds; others may free some
  // meanwhile. Cheap: looks once a second.
  absl::Status Check();

 private:
  const std::filesystem::path folder_;
  Clock& clock_;
  const FreeBytesOf free_bytes_;
  absl::Duration next_look_;
  std::optional<absl::Duration> full_since_;
};

}  // namespace latentforge::client
