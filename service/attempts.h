// What clients read of a job's attempts, without gRPC.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/auth/identity.h"
#include "service/page_token.h"
#include "service/store/store.h"

namespace latentforge::service {

// ATTEMPT_NOT_FOUND of "jobs/{id}/attempts/{number}".
absl::Status AttemptNotFoundError(absl::string_view name);

// The attempts of JobService; the contracts are in job_service.proto. Attempts of another tenant's
// job are as absent as the job. Safe for concurrent use. Borrows the store.
class Attempts {
 public:
  Attempts(Store& store, PageTokenCodec tokens) : store_(store), tokens_(std::move(tokens)) {}

  absl::StatusOr<v1::GetAttemptResponse> Get(const Identity& caller,
                                             const v1::GetAttemptRequest& request);
  absl::StatusOr<v1::ListAttemptsResponse> List(const Identity& caller,
                                                const v1::ListAttemptsRequest& request);

 private:
  absl::Status CheckVisible(const Identity& caller, const std::string& job);

  Store& store_;
  const PageTokenCodec tokens_;
};

}  // namespace latentforge::service
