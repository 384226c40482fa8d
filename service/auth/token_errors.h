// Errors of those who say who they are, and are not believed.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "service/errors.h"

namespace latentforge::service {

inline constexpr char kTokenInvalid[] = "TOKEN_INVALID";

inline absl::Status UnauthenticatedError(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason, message);
}

inline absl::Status TokenExpiredError(absl::Time expire_time) {
  const std::string time = absl::FormatTime(absl::RFC3339_sec, expire_time, absl::UTCTimeZone());
  return MakeError(absl::StatusCode::kUnauthenticated, "TOKEN_EXPIRED",
                   absl::StrCat("the token expired at ", time), {{"expire_time", time}});
}

}  // namespace latentforge::service
