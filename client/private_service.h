// A server and a worker for one command, reached through a Unix socket.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "client/disk_guard.h"
#include "client/interrupt.h"

namespace latentforge::client {

struct PrivateServiceOptions {
  std::filesystem::path folder;  // database, scratch, logs; exists
  std::filesystem::path socket;  // does not exist, or is stale
  std::filesystem::path server;  // programs
  std::filesystem::path worker;
  std::filesystem::path convert;
  absl::Duration patience = absl::Seconds(30);  // for each to be ready
  std::function<bool()> interrupted;            // gives up starting
  FreeBytesOf free_bytes = FreeBytes;           // on the disk of `folder`
};

// Both programs die with this object or process. Not safe for concurrent use.
class PrivateService {
 public:
  // Returns when both are ready. ResourceExhausted SCRATCH_FULL when one did not start for a full
  // disk, else Internal with the last lines of its log; Cancelled when interrupted. Borrows the
  // clock.
  static absl::StatusOr<std::unique_ptr<PrivateService>> Start(const PrivateServiceOptions& options,
                                                               Clock& clock);

  // "unix:PATH".
  std::string address() const;

  // When one of them has ended: as Start.
  absl::Status Check();

  // Stops the worker, then the server.
  void Stop();

 private:
  PrivateService(const PrivateServiceOptions& options, Clock& clock)
      : options_(options), clock_(clock) {}
  // A program, which the second Ctrl-C kills.
  struct Program {
    explicit Program(std::unique_ptr<ChildProcess> started)
        : process(std::move(started)), guard(process->pid()) {}
    std::unique_ptr<ChildProcess> process;
    KillOnInterrupt guard;
  };
  absl::StatusOr<std::unique_ptr<Program>> StartOne(const std::string& name,
                                                    std::vector<std::string> command) const;
  // OK while it runs.
  absl::Status CheckOne(const std::string& name, ChildProcess& process) const;

  const PrivateServiceOptions options_;
  Clock& clock_;
  std::unique_ptr<Program> server_;  // before the worker: outlives it
  std::unique_ptr<Program> worker_;
};

// The last `lines` lines of a file, each behind "  | "; empty when unreadable.
std::string LogTail(const std::filesystem::path& path, int lines);

}  // namespace latentforge::client
