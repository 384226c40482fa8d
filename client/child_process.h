// A program that this process starts and stops.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/unique_fd.h"

namespace latentforge::client {

struct ChildOptions {
  std::vector<std::string> command;  // the program's path and its arguments
  // Standard output and error go to the end of this file; when empty, to pipes.
  std::filesystem::path log;
};

// Runs in a process group of its own, so that Ctrl-C does not reach it, and is
// killed by the kernel when this process dies. The destructor kills the group and
// reaps the child. Not safe for concurrent use. Start it from a thread that lives
// as long as the child is wanted.
class ChildProcess {
 public:
  // NotFound or PermissionDenied when the program cannot be started.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildOptions& options);
  ~ChildProcess();

  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Reading ends of the pipes; invalid with a log file.
  int output_fd() const { return output_.get(); }
  int error_fd() const { return error_.get(); }

  // The wait status once it has ended; does not block.
  std::optional<int> Poll();
  // Waits until it has ended.
  int Wait();
  // SIGTERM to the child, `grace` to end, then SIGKILL to the group.
  void Stop(Clock& clock, absl::Duration grace);
  // Sends a signal to the child alone.
  void Signal(int signal);

 private:
  ChildProcess(pid_t pid, UniqueFd output, UniqueFd error);

  pid_t pid_;
  UniqueFd output_;
  UniqueFd error_;
  std::optional<int> wait_status_;
};

// "exit code 3", "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

// The program NAME that lies beside the running one.
std::filesystem::path SiblingProgram(const std::string& name);

}  // namespace latentforge::client
