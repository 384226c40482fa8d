// A moment that one process moves and another one looks at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace latentforge {

// A time of the machine's monotonic clock in a file that both processes have mapped: the one that
// looks needs nothing of the other, which may be stopped or dead. Movable; Set and Get are safe for
// concurrent use.
class SharedDeadline {
 public:
  // For the process that moves it: makes the file where it is absent. File errors,
  // ResourceExhausted on a full disk.
  static absl::StatusOr<SharedDeadline> Create(const std::filesystem::path& path);
  // For the one that looks. NotFound when it is absent, InvalidArgument when it is no such file.
  static absl::StatusOr<SharedDeadline> Open(const std::filesystem::path& path);

  SharedDeadline(SharedDeadline&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  SharedDeadline& operator=(SharedDeadline&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~SharedDeadline();

  // Of one that Create gave.
  void Set(absl::Duration monotonic);
  // The clock's beginning before the first Set.
  absl::Duration Get() const;

 private:
  explicit SharedDeadline(int64_t* value) : value_(value) {}

  int64_t* value_;  // nanoseconds; mapped
};

}  // namespace latentforge
