// What is said of a connection that is lost and made again: each thing once.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace latentforge::client {

// Not safe for concurrent use.
class ConnectionNotice {
 public:
  // After a try that failed: why, unless the try before failed for the same reason.
  std::optional<std::string> Lost(const absl::Status& status);

  // After whatever came from the server: that it is back, when it was away.
  std::optional<std::string> Made();

 private:
  bool ever_made_ = false;
  std::string trouble_;  // as said last; empty while the server is there
};

}  // namespace latentforge::client
