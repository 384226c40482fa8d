// Whom a call was found to come from.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "service/auth/identity.h"

namespace latentforge::service {

// A plain value.
struct Caller {
  Identity identity;
  // What proved it, as the token file names it ("sha256:...", "uri:...", "cn:..."). Empty
  // for proofs that no file can take back.
  std::string credential;
  absl::Time expire_time = absl::InfiniteFuture();  // of the proof
};

}  // namespace latentforge::service
