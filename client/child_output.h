// Follows a child that writes to pipes.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "base/child_process.h"

namespace latentforge::client {

// Returns what the child wrote on standard output (at most 16 MiB of it) once it has ended.
// `on_error_line` gets every line of standard error, `on_tick` is called at least ten times a
// second.
absl::StatusOr<std::string> ReadChildOutput(
    ChildProcess& child, const std::function<void(const std::string&)>& on_error_line,
    const std::function<void()>& on_tick);

}  // namespace latentforge::client
