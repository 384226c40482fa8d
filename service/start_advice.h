// What to do when the server does not start.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace latentforge::service {

// One sentence for an error of Server::Start.
std::string StartAdvice(const absl::Status& error);

}  // namespace latentforge::service
