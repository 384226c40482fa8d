// T23: who gets in, over real connections.
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/service/auth/token_signer.h"
#include "tests/service/security_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// "/latentforge.v1.JobService/CreateJob" and all the others.
std::vector<std::string> EveryMethod() {
  std::vector<std::string> methods;
  for (const auto* file : {v1::CreateJobRequest::descriptor()->file(),
                           v1::AcquireLeaseRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s)
      for (int m = 0; m < file->service(s)->method_count(); ++m)
        methods.push_back(absl::StrCat("/", file->service(s)->full_name(), "/",
                                       file->service(s)->method(m)->name()));
  }
  return methods;
}

TEST_F(SecurityTest, EveryMethodAsksWhoCalls) {
  StartOnLoopback();
  for (const std::string& method : EveryMethod()) {
    const grpc::Status none = Call(method);
    EXPECT_EQ(none.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(ReasonOf(none), "CREDENTIALS_MISSING") << method;
    EXPECT_EQ(ReasonOf(Call(method, "wrong-token")), "TOKEN_INVALID") << method;
  }
}

TEST_F(SecurityTest, EveryMethodAsksForARoleBeforeItLooksAtTheRequest) {
  StartOnLoopback();
  for (const std::string& method : EveryMethod()) {
    const bool of_jobs = method.find("JobService") != std::string::npos;
    const std::string wrong = of_jobs ? "worker-token" : "alice-token";
    if (method.find("ListWorkers") == std::string::npos) {
      const grpc::Status refused = Call(method, wrong);
      EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED) << method;
      EXPECT_EQ(ReasonOf(refused), "ROLE_NOT_ALLOWED") << method;
    }
    // These requests are empty: the method itself looked at them.
    const std::string right = of_jobs ? "alice-token" : "worker-token";
    EXPECT_NE(Call(method, right).error_code(), grpc::StatusCode::PERMISSION_DENIED) << method;
    EXPECT_NE(Call(method, "admin-token").error_code(), grpc::StatusCode::PERMISSION_DENIED)
        << method;
  }
}

// A request of this type that says nothing but the lease; nullopt where it has none.
std::optional<std::string> RequestUnder(const v1::Lease& lease,
                                        const google::protobuf::Descriptor& type) {
  const auto* const field = type.FindFieldByName("lease");
  if (field == nullptr) return std::nullopt;
  const std::unique_ptr<google::protobuf::Message> request(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type)->New());
  request->GetReflection()->MutableMessage(request.get(), field)->CopyFrom(lease);
  return request->SerializeAsString();
}

// What the worker gets of the job that alice submits.
v1::Lease LeaseOfAlicesJob(RpcClient& client, const std::filesystem::path& dir) {
  Context creating;
  creating.AddMetadata("authorization", "Bearer alice-token");
  v1::CreateJobResponse created;
  EXPECT_TRUE(client.jobs->CreateJob(&creating, TinyJob(dir, 0), &created).ok());
  Context acquiring;
  acquiring.AddMetadata("authorization", "Bearer worker-token");
  v1::AcquireLeaseResponse acquired;
  EXPECT_TRUE(
      client.workers->AcquireLease(&acquiring, RpcClient::AcquireRequest(20), &acquired).ok());
  EXPECT_EQ(acquired.lease().job(), created.job().name());
  return acquired.lease();
}

TEST_F(SecurityTest, EveryCallUnderALeaseIsItsHoldersAlone) {
  StartOnLoopback();
  const v1::Lease lease = LeaseOfAlicesJob(*client_, dir_.path());
  const auto* const service =
      v1::AcquireLeaseRequest::descriptor()->file()->FindServiceByName("WorkerService");
  int held = 0;
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* const method = service->method(i);
    const auto request = RequestUnder(lease, *method->input_type());
    if (!request.has_value()) continue;
    ++held;
    const std::string name = absl::StrCat("/", service->full_name(), "/", method->name());
    for (const char* token : {"other-worker-token", "admin-token"}) {
      // An end without an outcome is looked at before its lease.
      v1::CompleteAttemptRequest outcome;
      outcome.mutable_released();
      const std::string body =
          method->name() == "CompleteAttempt" ? *request + outcome.SerializeAsString() : *request;
      const grpc::Status refused = Call(name, token, body);
      EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED) << name;
      EXPECT_EQ(ReasonOf(refused), "LEASE_HELD_BY_ANOTHER") << name;
    }
    EXPECT_NE(Call(name, "worker-token", *request).error_code(),
              grpc::StatusCode::PERMISSION_DENIED)
        << name;
  }
  EXPECT_EQ(held, 4) << "heartbeat, events, logs, end";
}

TEST_F(SecurityTest, AUnixSocketsUserNeedsNoToken) {
  options_.listen.push_back(
      *ParseListenAddress(absl::StrCat("unix:", (dir_.path() / "server.sock").string())));
  StartOnLoopback();
  v1::CreateJobResponse response;
  EXPECT_TRUE(client_->Create(TinyJob(dir_.path(), 0), &response).ok());
}

TEST_F(SecurityTest, HealthIsForProbesWithoutCredentials) {
  StartOnLoopback();
  EXPECT_EQ(AskHealth(*client_, ""), 1);
}

TEST_F(SecurityTest, AnotherTenantsJobIsAnsweredLikeNone) {
  StartOnLoopback();
  Context creating;
  creating.AddMetadata("authorization", "Bearer alice-token");
  v1::CreateJobResponse created;
  ASSERT_TRUE(client_->jobs->CreateJob(&creating, TinyJob(dir_.path(), 0), &created).ok());
  EXPECT_EQ(created.job().tenant(), "search");
  const auto get = [this](const std::string& name, const std::string& token) {
    Context context;
    context.AddMetadata("authorization", "Bearer " + token);
    v1::GetJobRequest request;
    request.set_name(name);
    v1::GetJobResponse response;
    return client_->jobs->GetJob(&context, request, &response);
  };
  const std::string& name = created.job().name();
  EXPECT_TRUE(get(name, "alice-token").ok());
  EXPECT_TRUE(get(name, "admin-token").ok());
  const grpc::Status there = get(name, "bob-token");
  EXPECT_EQ(there.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(there.error_message(), "there is no job " + name);
  EXPECT_EQ(get("jobs/absent", "bob-token").error_message(), "there is no job jobs/absent");
}

TEST_F(SecurityTest, UsersSeeWorkersButNotWhatTheyRun) {
  StartOnLoopback();
  const v1::Lease lease = LeaseOfAlicesJob(*client_, dir_.path());
  for (const std::string token : {"bob-token", "admin-token"}) {
    Context listing;
    listing.AddMetadata("authorization", "Bearer " + token);
    v1::ListWorkersResponse listed;
    ASSERT_TRUE(client_->workers->ListWorkers(&listing, {}, &listed).ok());
    ASSERT_EQ(listed.workers_size(), 1);
    EXPECT_EQ(listed.workers(0).leases_size(), token == "admin-token" ? 1 : 0);
  }
}

TEST_F(SecurityTest, WhatChangesJobsLeavesALine) {
  StartOnLoopback();
  testing::internal::CaptureStderr();
  Context creating;
  creating.AddMetadata("authorization", "Bearer alice-token");
  v1::CreateJobResponse created;
  ASSERT_TRUE(client_->jobs->CreateJob(&creating, TinyJob(dir_.path(), 0), &created).ok());
  Context canceling;
  canceling.AddMetadata("authorization", "Bearer bob-token");
  v1::CancelJobRequest cancel;
  cancel.set_name("jobs/a\nb=" + std::string(200, 'x'));
  v1::CancelJobResponse cancelled;
  EXPECT_FALSE(client_->jobs->CancelJob(&canceling, cancel, &cancelled).ok());
  Call("/latentforge.v1.JobService/DeleteJob", "worker-token");
  Call("/latentforge.v1.JobService/DeleteJob");
  Call("/latentforge.v1.JobService/ListJobs", "alice-token");
  server_->Stop();
  std::vector<std::string> lines;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(testing::internal::GetCapturedStderr(), '\n'))) {
    if (line.find(" audit ") != std::string::npos) lines.push_back(line.substr(line.find("audit")));
  }
  ASSERT_EQ(lines.size(), 4u) << absl::StrJoin(lines, "\n");
  EXPECT_THAT(lines[0], StartsWith("audit subject=alice tenant=search role=user method=CreateJob "
                                   "job=" +
                                   created.job().name() + " code=OK reason= peer=ipv4:"));
  EXPECT_THAT(lines[1], StartsWith("audit subject=bob tenant=speech role=user method=CancelJob "
                                   "job=\"jobs/a\\nb=xxx"));
  EXPECT_LT(lines[1].size(), 300u);
  EXPECT_THAT(lines[2], StartsWith("audit subject=w1 tenant=default role=worker method=DeleteJob "
                                   "job= code=PERMISSION_DENIED reason=ROLE_NOT_ALLOWED"));
  EXPECT_THAT(lines[3], StartsWith("audit subject= tenant= role= method=DeleteJob job= "
                                   "code=UNAUTHENTICATED reason=CREDENTIALS_MISSING"));
  for (const std::string& line : lines) EXPECT_THAT(line, Not(HasSubstr("-token")));
}

// Creates a job with `token`, watches it with the same, and returns how the watch ends
// after `change`.
grpc::Status EndOfWatch(RpcClient& client, const v1::CreateJobRequest& job,
                        const std::string& token, const std::function<void()>& change) {
  Context creating;
  creating.AddMetadata("authorization", "Bearer " + token);
  v1::CreateJobResponse created;
  const grpc::Status status = client.jobs->CreateJob(&creating, job, &created);
  EXPECT_TRUE(status.ok()) << status.error_message();
  Context context;
  context.AddMetadata("authorization", "Bearer " + token);
  v1::WatchJobRequest request;
  request.set_name(created.job().name());
  const auto watch = client.jobs->WatchJob(&context, request);
  v1::WatchJobResponse message;
  EXPECT_TRUE(watch->Read(&message) && message.has_snapshot());
  change();
  while (watch->Read(&message)) EXPECT_TRUE(message.has_bookmark());
  return watch->Finish();
}

TEST_F(SecurityTest, ATokenThatIsTakenBackEndsAWatch) {
  StartOnLoopback();
  const grpc::Status end = EndOfWatch(*client_, TinyJob(dir_.path(), 0), "alice-token", [this] {
    WriteTokens(TokenLine("admin-token", "ops default admin"));
  });
  EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ReasonOf(end), "TOKEN_INVALID");
}

class WebTokenSecurityTest : public SecurityTest {
 protected:
  WebTokenSecurityTest() {
    options_.oidc = {.issuer = "https://id.example.org",
                     .audience = "latentforge",
                     .jwks = dir_.path() / "keys.json",
                     .leeway = absl::ZeroDuration()};
    EXPECT_TRUE(WriteFileAtomic(options_.oidc.jwks, KeySetOf({&signer_})).ok());
    StartOnLoopback();
    // The keys are read on a thread of their own.
    while (Call(kGetJob, Sign()).error_code() == grpc::StatusCode::UNAVAILABLE)
      std::this_thread::yield();
  }

  // A token for the next minute, with other claims than usual.
  std::string Sign(const Json& changes = Json::object(), const std::string& algorithm = "ES256") {
    Json claims = {{"iss", "https://id.example.org"},
                   {"aud", "latentforge"},
                   {"sub", "alice"},
                   {"tenant", "search"},
                   {"role", "user"},
                   {"exp", absl::ToUnixSeconds(absl::Now() + absl::Minutes(1))}};
    claims.update(changes);
    return algorithm == "none" ? TokenSigner::Join({{"alg", "none"}, {"kid", "k"}}, claims, "")
                               : signer_.Sign(claims, algorithm);
  }

  static constexpr char kGetJob[] = "/latentforge.v1.JobService/GetJob";
  TokenSigner signer_{TokenSigner::Kind::kP256, "k"};
};

TEST_F(WebTokenSecurityTest, TokensOfTheProviderGetIn) {
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign())), "BAD_NAME");
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign({{"role", "worker"}}))), "ROLE_NOT_ALLOWED");
  EXPECT_EQ(ReasonOf(Call(kGetJob, "alice-token")), "BAD_NAME");
}

TEST_F(WebTokenSecurityTest, OthersDoNot) {
  const int64_t past = absl::ToUnixSeconds(absl::Now() - absl::Minutes(1));
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign(Json::object(), "none"))), "TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign({{"aud", "other"}}))), "TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign({{"iss", "https://evil.example.org"}}))), "TOKEN_INVALID");
  EXPECT_EQ(ReasonOf(Call(kGetJob, Sign({{"exp", past}}))), "TOKEN_EXPIRED");
}

TEST_F(WebTokenSecurityTest, ATokenThatExpiresEndsAWatch) {
  const std::string token = Sign({{"exp", absl::ToUnixSeconds(absl::Now() + absl::Seconds(2))}});
  const grpc::Status end = EndOfWatch(*client_, TinyJob(dir_.path(), 0), token, [] {});
  EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ReasonOf(end), "TOKEN_EXPIRED");
}

}  // namespace
}  // namespace latentforge::service
