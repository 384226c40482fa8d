// The `latentforge auth` commands behind their flags.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/commands/command.h"

namespace latentforge::client {

struct NewTokenOptions {
  std::string subject;
  std::string tenant;
  std::string role = "user";
  std::string out;
};

// Writes a new token to `out`, which must not exist, for its user alone; prints the line
// for the server's token file, which holds the token's digest only.
absl::Status RunNewToken(const NewTokenOptions& options, const CommandContext& context);

}  // namespace latentforge::client
