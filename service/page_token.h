// Opaque page tokens that cannot be altered or used with another filter.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::service {

// Signs tokens with HMAC-SHA256. Immutable, so safe for concurrent use.
class PageTokenCodec {
 public:
  // `key` should hold 32 random bytes.
  explicit PageTokenCodec(std::string key) : key_(std::move(key)) {}

  // `position` is where the next page starts; `binding` is what must be the same
  // on the next call, such as the filter.
  std::string Encode(absl::string_view position, absl::string_view binding) const;

  // The position. INVALID_ARGUMENT BAD_PAGE_TOKEN for anything but a token of this
  // server for this binding.
  absl::StatusOr<std::string> Decode(absl::string_view token, absl::string_view binding) const;

 private:
  std::string Sign(absl::string_view position, absl::string_view binding) const;

  std::string key_;
};

}  // namespace latentforge::service
