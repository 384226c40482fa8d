// Starting a program: fork, exec, and what lies between. base/child_process.h owns the result.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace latentforge {

struct ChildCommand {
  std::vector<std::string> argv;         // argv[0] is the path of the program
  std::vector<std::string> environment;  // NAME=VALUE, in addition to our own
  // Standard output and error go to the end of this file; when empty, to pipes.
  std::filesystem::path log;
  // Dumps no core, and is the kernel's first choice when memory runs out.
  bool expendable = false;
};

// A program that runs, and the reading ends of its pipes: non-blocking; invalid with a log.
struct Spawned {
  pid_t pid = 0;
  UniqueFd out;
  UniqueFd err;
};

// Returns once the program runs: in a process group of its own, so that Ctrl-C does not reach
// it, without our signal mask, handlers and descriptors, with /dev/null as its standard input.
// The kernel kills it when the thread that called this ends. Errors name the program or the
// log: NotFound, PermissionDenied, ResourceExhausted; InvalidArgument without a program.
absl::StatusOr<Spawned> Spawn(const ChildCommand& command);

}  // namespace latentforge
