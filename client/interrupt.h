// Ctrl-C and SIGTERM: the first asks the program to stop, the second stops it at
// once. Signals belong to the process, so this state does too.
#pragma once

#include <sys/types.h>

namespace latentforge::client {

// Installs handlers for SIGINT, SIGTERM and SIGHUP and ignores SIGPIPE. Call once,
// first in main. A second signal kills the registered process groups with SIGKILL
// and exits with status 130.
void InstallInterruptHandlers();

// True after the first signal.
bool Interrupted();

// Registers a process group that the second signal kills; beyond eight it does
// nothing (children die with this process all the same, see ChildProcess). Safe
// for concurrent use.
void KillGroupOnExit(pid_t group);
void ForgetGroup(pid_t group);

}  // namespace latentforge::client
