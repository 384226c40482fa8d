// What is said of a connection that is lost and made again: each thing once.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"

namespace latentforge::client {

// Not safe for concurrent use.
class ConnectionNotice {
 public:
  // After a try that failed: why, unless that was said since the server was there; gRPC words one
  // trouble in turns.
  std::optional<std::string> Lost(const absl::Status& status);

  // After whatever came from the server: that it is back, when it was away.
  std::optional<std::string> Made();

 private:
  bool ever_made_ = false;
  std::set<std::string> said_;  // empty while the server is there
};

}  // namespace latentforge::client
