#include "client/connection_notice.h"

#include "absl/strings/str_cat.h"

namespace latentforge::client {

std::optional<std::string> ConnectionNotice::Lost(const absl::Status& status) {
  if (!said_.insert(std::string(status.message())).second) return std::nullopt;
  return absl::StrCat(ever_made_ ? "connection lost (" : "no connection yet (", status.message(),
                      "), trying again");
}

std::optional<std::string> ConnectionNotice::Made() {
  const bool again = ever_made_;
  ever_made_ = true;
  if (said_.empty()) return std::nullopt;
  said_.clear();
  return again ? "connected again" : "connected";
}

}  // namespace latentforge::client
