// One document over HTTPS.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace latentforge::service {

struct FetchOptions {
  std::filesystem::path ca_file;  // who signs servers' certificates; empty: the system's list
  size_t max_bytes = size_t{1} << 20;
  absl::Duration timeout = absl::Seconds(5);
};

// The body of a GET of an https: URL, without following redirects. Unavailable names the
// URL and what went wrong; OutOfRange when the body is too large.
absl::StatusOr<std::string> FetchHttps(const std::string& url, const FetchOptions& options);

}  // namespace latentforge::service
