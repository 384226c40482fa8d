// Reads both pipes of a child at once.
#pragma once

#include <functional>
#include <string>

#include "client/child_process.h"

namespace latentforge::client {

// Returns what the child wrote on standard output (at most 16 MiB of it) once it
// has closed both pipes. `on_error_line` gets every line of standard error,
// `on_tick` is called about ten times a second.
std::string ReadChildOutput(ChildProcess& child,
                            const std::function<void(const std::string&)>& on_error_line,
                            const std::function<void()>& on_tick);

}  // namespace latentforge::client
