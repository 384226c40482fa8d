// A program that this process starts, watches, signals and reaps.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/spawn.h"
#include "base/unique_fd.h"

namespace latentforge {

// How a process ended: by exit (signal is 0) or by a signal.
struct ExitStatus {
  int code = 0;
  int signal = 0;

  bool ok() const { return code == 0 && signal == 0; }
  std::string ToString() const;  // "exit code 3", "signal SIGSEGV"
};

// "SIGSEGV"; "signal 40" for one without a name.
std::string SignalName(int signal);

// What a process wrote since the last call.
struct ChildOutput {
  std::string out;
  std::string err;
};

// One running process (see Spawn for how it runs). It is killed when the thread that started
// it ends: start it from a thread that outlives it. Not safe for concurrent use. The destructor
// kills and reaps it; until then its number, which is its group's too, is nobody else's.
class ChildProcess {
 public:
  // Errors name the program or the log: NotFound, PermissionDenied, ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildCommand& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Waits until there is output, the process ended, `wake_fd` (-1: none) is
  // readable, or the timeout passed. Appends what was written, at most 1 MiB of
  // each stream a call. After the end, processes left in the group are killed.
  absl::Status Poll(int wake_fd, absl::Duration timeout, ChildOutput* output);

  // Waits until it has ended; drops what it writes meanwhile. False when the timeout passed.
  bool Wait(absl::Duration timeout);

  // To every process of the group; nothing once it has ended.
  void Signal(int signal);

  // SIGTERM, `grace` to end, then SIGKILL; ends when the process has. Drops its output.
  void Stop(absl::Duration grace);

  pid_t pid() const { return spawned_.pid; }
  bool finished() const { return finished_; }
  // Valid when finished().
  const ExitStatus& exit_status() const { return exit_status_; }

 private:
  ChildProcess(Spawned spawned, UniqueFd pid_fd);
  void TakeEnd();

  Spawned spawned_;
  UniqueFd pid_fd_;
  bool finished_ = false;
  ExitStatus exit_status_;
};

// The program NAME that lies beside the running one; NAME alone where /proc is not there.
std::filesystem::path SiblingProgram(const std::string& name);

}  // namespace latentforge
