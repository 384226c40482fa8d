#include "client/connection_notice.h"

#include "absl/strings/str_cat.h"

namespace latentforge::client {

std::optional<std::string> ConnectionNotice::Lost(const absl::Status& status) {
  if (trouble_ == status.message()) return std::nullopt;
  trouble_ = std::string(status.message());
  return absl::StrCat(ever_made_ ? "connection lost (" : "no connection yet (", trouble_,
                      "), trying again");
}

std::optional<std::string> ConnectionNotice::Made() {
  const bool again = ever_made_;
  ever_made_ = true;
  if (trouble_.empty()) return std::nullopt;
  trouble_.clear();
  return again ? "connected again" : "connected";
}

}  // namespace latentforge::client
