// The programs of latentforge that lie beside this one.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace latentforge::client {

// The path of a program that can be run; an error with reason PROGRAM_UNUSABLE, which
// names the path, otherwise.
absl::StatusOr<std::filesystem::path> OwnProgram(const std::string& name);

}  // namespace latentforge::client
