// A client's connections to several servers of one database.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "latentforge/v1/job_service.grpc.pb.h"
#include "tests/faults/history.h"

namespace latentforge::faults {

// Says who calls, unless `token` is empty, and for how long it waits.
void Introduce(grpc::ClientContext& context, const std::string& token, absl::Duration patience);

// The server or its network is away, or was stopped in the middle of the call: gRPC's server
// cancels calls that arrive while it shuts down.
bool IsOfFault(const grpc::Status& status);

// One channel to each. Not safe for concurrent use.
class Servers {
 public:
  using Stub = v1::JobService::Stub;

  explicit Servers(const std::vector<std::string>& addresses);

  Stub& current() { return *stubs_[current_]; }
  // After a fault: the next one, after a short pause.
  void Turn();

  // One call at the current one.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const std::string& token, const Request& request, Response& response) {
    grpc::ClientContext context;
    Introduce(context, token, absl::Seconds(10));
    return (current().*method)(&context, request, &response);
  }

 private:
  std::vector<std::unique_ptr<Stub>> stubs_;
  size_t current_ = 0;
};

// Watches a job after `from` over any number of streams, until its end or `stopping`. Fails the
// test for an end that is neither the job's nor a fault's.
Watched Follow(Servers& servers, const std::string& token, const std::string& job, int64_t from,
               const std::atomic<bool>& stopping);

}  // namespace latentforge::faults
