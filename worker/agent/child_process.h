// A compute process: started with pipes in its own process group, watched,
// signalled and reaped.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"

namespace latentforge::agent {

struct ChildCommand {
  std::vector<std::string> argv;         // argv[0] is the path of the program
  std::vector<std::string> environment;  // NAME=VALUE, in addition to our own
};

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

// One running process. It reads /dev/null, inherits no other descriptor of ours,
// dumps no core, is the kernel's first choice when memory runs out, and is killed
// when the thread that started it ends: start it from a thread that outlives it.
// Owned by that thread; not safe for concurrent use. The destructor kills and
// reaps it.
class ChildProcess {
 public:
  // Errors name the program: NotFound, PermissionDenied, ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildCommand& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Waits until there is output, the process ended, `wake_fd` (-1: none) is
  // readable, or the timeout passed. Appends what was written, at most 1 MiB of
  // each stream a call. After the end, processes left in the group are killed.
  absl::Status Poll(int wake_fd, absl::Duration timeout, ChildOutput* output);

  // To every process of the group; nothing once it was reaped.
  void Signal(int signal);

  pid_t pid() const { return pid_; }
  bool finished() const { return finished_; }
  // Valid when finished().
  const ExitStatus& exit_status() const { return exit_status_; }

 private:
  ChildProcess(pid_t pid, UniqueFd out, UniqueFd err) noexcept;
  void Reap();

  const pid_t pid_;
  UniqueFd out_;
  UniqueFd err_;
  UniqueFd pid_fd_;
  bool finished_ = false;
  ExitStatus exit_status_;
};

}  // namespace latentforge::agent
