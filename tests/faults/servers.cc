#include "tests/faults/servers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace latentforge::faults {

void Introduce(grpc::ClientContext& context, const std::string& token, absl::Duration patience) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + patience));
  if (!token.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", token));
}

bool IsOfFault(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED ||
         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
}

Servers::Servers(const std::vector<std::string>& addresses) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  for (const std::string& address : addresses) {
    stubs_.push_back(v1::JobService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments)));
  }
}

void Servers::Turn() {
  current_ = (current_ + 1) % stubs_.size();
  absl::SleepFor(absl::Milliseconds(20));
}

Watched Follow(Servers& servers, const std::string& token, const std::string& job, int64_t from,
               const std::atomic<bool>& stopping) {
  Watched watched{.job = job, .from_sequence = from};
  int64_t last = from;
  bool ended = false;
  while (!ended && !stopping) {
    grpc::ClientContext context;
    Introduce(context, token, absl::Seconds(2));
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_from_sequence(last);
    const auto stream = servers.current().WatchJob(&context, request);
    for (v1::WatchJobResponse message; stream->Read(&message);) {
      if (!message.has_event()) continue;
      last = message.event().sequence();
      watched.events.push_back(message.event());
    }
    const grpc::Status status = stream->Finish();
    ended = status.ok();
    if (!ended && !IsOfFault(status)) {
      ADD_FAILURE() << "watch of " << job << " from " << last << ": " << status.error_message();
      break;
    }
    if (!ended) servers.Turn();
  }
  if (ended && !watched.events.empty() && watched.events.back().has_state_changed()) {
    watched.at_end = watched.events.back().state_changed().state();
  }
  return watched;
}

}  // namespace latentforge::faults
