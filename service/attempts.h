// What clients read of a job's attempts, without gRPC.
#pragma once

#include <utility>

#include "absl/status/statusor.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/page_token.h"
#include "service/store/store.h"

namespace latentforge::service {

// The attempts of JobService; the contracts are in job_service.proto. Safe for
// concurrent use. Borrows the store.
class Attempts {
 public:
  Attempts(Store& store, PageTokenCodec tokens) : store_(store), tokens_(std::move(tokens)) {}

  absl::StatusOr<v1::GetAttemptResponse> Get(const v1::GetAttemptRequest& request);
  absl::StatusOr<v1::ListAttemptsResponse> List(const v1::ListAttemptsRequest& request);

 private:
  Store& store_;
  const PageTokenCodec tokens_;
};

}  // namespace latentforge::service
