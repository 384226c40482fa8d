// Stubs and requests for tests that talk to a server over gRPC.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "latentforge/v1/job_service.grpc.pb.h"
#include "latentforge/v1/worker_service.grpc.pb.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::service {

// The reason in a status's one ErrorInfo; "" when there is not exactly one.
inline std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  if (!rpc.ParseFromString(status.error_details())) return "";
  google::rpc::ErrorInfo info;
  int count = 0;
  for (const auto& any : rpc.details()) count += any.UnpackTo(&info);
  return count == 1 ? info.reason() : "";
}

// Whether a status says when to ask again.
inline bool HasRetryDelay(const grpc::Status& status) {
  google::rpc::Status rpc;
  google::rpc::RetryInfo retry;
  return rpc.ParseFromString(status.error_details()) &&
         std::any_of(rpc.details().begin(), rpc.details().end(),
                     [&](const auto& any) { return any.UnpackTo(&retry); });
}

// A context whose call ends, come what may.
class Context : public grpc::ClientContext {
 public:
  Context() { set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30)); }
};

// A client of both services.
struct RpcClient {
  explicit RpcClient(const std::string& address,
                     const std::shared_ptr<grpc::ChannelCredentials>& credentials =
                         grpc::InsecureChannelCredentials()) {
    grpc::ChannelArguments arguments;
    // Each client has connections of its own, also to an address of an earlier test.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel = grpc::CreateCustomChannel(address, credentials, arguments);
    jobs = v1::JobService::NewStub(channel);
    workers = v1::WorkerService::NewStub(channel);
  }

  grpc::Status Create(const v1::CreateJobRequest& request, v1::CreateJobResponse* response) {
    Context context;
    context.set_wait_for_ready(true);
    return jobs->CreateJob(&context, request, response);
  }

  v1::JobState StateOf(const std::string& name) {
    Context context;
    context.set_wait_for_ready(true);
    v1::GetJobRequest request;
    request.set_name(name);
    v1::GetJobResponse response;
    const grpc::Status status = jobs->GetJob(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().status().state();
  }

  grpc::Status Cancel(const std::string& name) {
    Context context;
    v1::CancelJobRequest request;
    request.set_name(name);
    v1::CancelJobResponse response;
    return jobs->CancelJob(&context, request, &response);
  }

  static v1::AcquireLeaseRequest AcquireRequest(int wait_seconds) {
    v1::AcquireLeaseRequest request;
    request.mutable_worker()->set_name("w");
    request.mutable_worker()->set_version("0.1.0");
    request.mutable_worker()->set_slots(1);
    request.mutable_wait()->set_seconds(wait_seconds);
    return request;
  }

  v1::AcquireLeaseResponse Acquire() {
    Context context;
    v1::AcquireLeaseResponse response;
    const grpc::Status status = workers->AcquireLease(&context, AcquireRequest(20), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  grpc::Status Succeed(const v1::Lease& lease) {
    Context context;
    v1::CompleteAttemptRequest request;
    *request.mutable_lease() = lease;
    request.mutable_result()->set_artifact_uri("file:///out");
    v1::CompleteAttemptResponse response;
    return workers->CompleteAttempt(&context, request, &response);
  }

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::WorkerService::Stub> workers;
};

// A valid job over files that it makes in `dir`; `number` tells outputs apart.
inline v1::CreateJobRequest TinyJob(const std::filesystem::path& dir, int number) {
  if (!std::filesystem::exists(dir / "model")) {
    const absl::Status written = checkpoint::WriteTinyCheckpoint(dir / "model");
    EXPECT_TRUE(written.ok()) << written;
    std::ofstream(dir / "text.txt") << std::string(1 << 16, 'a') << "\n";
  }
  v1::CreateJobRequest request;
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_source()->set_uri((dir / "model").string());
  spec.mutable_budget()->set_kv_budget(0.5);
  spec.mutable_calibration()->add_corpora()->set_uri((dir / "text.txt").string());
  spec.mutable_output()->set_uri((dir / absl::StrCat("out", number)).string());
  return request;
}

// Asks grpc.health.v1 about one service: 1 SERVING, 2 NOT_SERVING, 0 for an error.
// The messages are so small that they are written here by hand.
inline int AskHealth(RpcClient& client, const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request += '\x0A';  // field 1, a string
    request += static_cast<char>(service.size());
    request += service;
  }
  const grpc::Slice slice(request);
  grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer received;
  Context context;
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(client.channel);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", sent, &queue);
  grpc::Status status;
  call->StartCall();
  call->Finish(&received, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  if (!status.ok() || !received.Dump(&slices).ok()) return 0;
  std::string bytes;
  for (const grpc::Slice& part : slices)
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  return bytes.size() == 2 && bytes[0] == '\x08' ? bytes[1] : 0;  // field 1, an enum
}

}  // namespace latentforge::service
