// One call from its arrival to its answer: who makes it, how long it takes, how it ends.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "grpcpp/server_context.h"
#include "service/auth/authenticator.h"
#include "service/in_flight.h"
#include "service/observer.h"
#include "service/thread_pool.h"

namespace latentforge::service {

// What every call needs. Borrows.
struct RpcParts {
  ThreadPool& pool;
  Observer& observer;
  InFlight& in_flight;
  const Clock& clock;
  const Authenticator& authenticator;
  absl::Duration call_deadline = absl::Minutes(1);  // of unary calls that have none
};

// Full name of a method, of string literals.
struct RpcMethod {
  const char* service;
  const char* method;
};

// Every call makes one before anything else: it is the only way to a caller's identity.
// Immutable, so safe for concurrent use. Borrows the parts, not the context.
class RpcCall {
 public:
  RpcCall(const RpcParts& parts, RpcMethod method, const grpc::ServerContextBase& context);

  // The caller, or why it is refused: Authenticator's errors, Authorize's error.
  const absl::StatusOr<Caller>& caller() const { return caller_; }

  // The caller's proof is still good. For calls that last; caller() must be OK.
  absl::Status CheckStillValid() const;

  // Counts the answer, and writes the audit line of a method that changes something; call
  // once. `job` is the name of the job that it was about, or what the caller gave as one.
  void Handled(const absl::Status& status, absl::string_view job = "") const;

 private:
  void Audit(const absl::Status& status, absl::string_view job) const;

  RpcParts parts_;
  RpcMethod method_;
  absl::Duration start_;
  absl::StatusOr<Caller> caller_;
  Identity known_as_;  // also when its role may not; empty when unknown
  std::string peer_;
};

}  // namespace latentforge::service
