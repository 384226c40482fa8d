// Ctrl-C and SIGTERM: the first asks the program to stop, the second stops it at
// once. Signals belong to the process, so this state does too.
#pragma once

#include <sys/types.h>

#include "absl/strings/string_view.h"

namespace latentforge::client {

// Installs handlers for SIGINT, SIGTERM and SIGHUP and ignores SIGPIPE. Call once,
// first in main. A second signal kills the process groups of every KillOnInterrupt
// with SIGKILL, writes the text of SetLeavingText and exits with status 130; a second SIGTERM or
// SIGHUP within a second of the first signal counts as the same one.
void InstallInterruptHandlers();

// What the second signal leaves on standard error, at most 1 KiB; until this call nothing.
void SetLeavingText(absl::string_view text);

// True after the first signal.
bool Interrupted();

// A process group that the second signal kills while this object lives; beyond eight it
// does nothing (children die with this process all the same, see Spawn). Must not outlive
// the ChildProcess, whose number another group could get. Safe for concurrent use.
class KillOnInterrupt {
 public:
  explicit KillOnInterrupt(pid_t group);
  ~KillOnInterrupt();
  KillOnInterrupt(const KillOnInterrupt&) = delete;
  KillOnInterrupt& operator=(const KillOnInterrupt&) = delete;

 private:
  const pid_t group_;
};

}  // namespace latentforge::client
