// How this program is called, for the commands that it suggests.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::client {

// "latentforge" where the shell finds the running program under that name, else its
// path, as one shell word. `argv0` is what was typed, `path_variable` the value of
// $PATH, `same` says whether two paths are the same file.
std::string NameToCall(
    absl::string_view argv0, absl::string_view path_variable,
    const std::function<bool(const std::filesystem::path&, const std::filesystem::path&)>& same);

// The suggestion with `program` for a leading "latentforge".
std::string WithProgram(absl::string_view suggestion, absl::string_view program);

}  // namespace latentforge::client
