#include "client/own_program.h"

#include "base/child_process.h"
#include "base/program.h"
#include "client/error.h"

namespace latentforge::client {

absl::StatusOr<std::filesystem::path> OwnProgram(const std::string& name) {
  std::filesystem::path path = SiblingProgram(name);
  if (absl::Status status = CheckProgram(path); !status.ok()) {
    return WithReason(std::move(status), "PROGRAM_UNUSABLE");
  }
  return path;
}

}  // namespace latentforge::client
