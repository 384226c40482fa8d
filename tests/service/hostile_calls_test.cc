// Promise T15: messages that no honest client sends get a clean status, and the process stays as
// it was.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/service/process_memory.h"
#include "tests/service/rpc_client.h"
#include "tests/service/server_process.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using grpc::StatusCode;
using testing::AnyOf;

class HostileCallsTest : public testing::Test {
 protected:
  void SetUp() override {
    server_.WaitReady();
    client_ = NewClient();
    v1::CreateJobResponse created;
    ASSERT_TRUE(client_->Create(TinyJob(dir_.path(), 0), &created).ok());
    job_ = created.job().name();
    before_ = RssMiB(server_.pid());
  }

  // Whatever a test did.
  void TearDown() override {
    const int64_t after = RssMiB(server_.pid());
    std::printf("%d MiB before, %d MiB after\n", static_cast<int>(before_),
                static_cast<int>(after));
    EXPECT_LT(after - before_, 64 * kMemoryScale);
    EXPECT_EQ(NewClient()->StateOf(job_), v1::JOB_STATE_QUEUED);
  }

  std::unique_ptr<RpcClient> NewClient() {
    return std::make_unique<RpcClient>(
        absl::StrCat("unix:", (dir_.path() / "server.sock").string()));
  }

  grpc::Status List(const v1::ListJobsRequest& request) {
    Context context;
    v1::ListJobsResponse response;
    return client_->jobs->ListJobs(&context, request, &response);
  }

  grpc::Status Create(const v1::CreateJobRequest& request) {
    v1::CreateJobResponse response;
    return client_->Create(request, &response);
  }

  // Bytes that need not be a message.
  grpc::Status Send(const std::string& method, const std::string& bytes) {
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer sent(&slice, 1);
    grpc::ByteBuffer received;
    Context context;
    grpc::CompletionQueue queue;
    grpc::GenericStub stub(client_->channel);
    const auto call = stub.PrepareUnaryCall(&context, method, sent, &queue);
    grpc::Status status;
    call->StartCall();
    call->Finish(&received, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return status;
  }

  TempDir dir_;
  ServerProcess server_{dir_.path()};
  std::unique_ptr<RpcClient> client_;
  std::string job_;
  int64_t before_ = 0;
};

TEST_F(HostileCallsTest, T15MessagesAboveTheLimit) {
  for (int i = 0; i < 20; ++i) {
    v1::CreateJobRequest request;
    request.set_request_id(std::string(5 << 20, 'x'));
    EXPECT_EQ(Create(request).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  }
}

TEST_F(HostileCallsTest, T15SixteenThousandLabels) {
  v1::CreateJobRequest create = TinyJob(dir_.path(), 1);
  v1::ListJobsRequest list;
  for (int i = 0; i < 16'000; ++i) {
    (*create.mutable_labels())[absl::StrCat("key-", i)] = "value";
    (*list.mutable_filter()->mutable_labels())[absl::StrCat("key-", i)] = "value";
  }
  EXPECT_EQ(ReasonOf(Create(create)), "INVALID_FIELD");
  EXPECT_EQ(ReasonOf(List(list)), "INVALID_FIELD");
  list.Clear();
  for (int i = 0; i < 1'000'000; ++i) list.mutable_filter()->add_states(v1::JOB_STATE_QUEUED);
  EXPECT_EQ(ReasonOf(List(list)), "INVALID_FIELD");
}

TEST_F(HostileCallsTest, T15StringsOfAMegabyte) {
  const std::string huge(1 << 20, 'x');
  std::vector<grpc::Status> answers;
  v1::CreateJobRequest create = TinyJob(dir_.path(), 1);
  create.set_request_id(huge);
  answers.push_back(Create(create));
  create = TinyJob(dir_.path(), 1);
  (*create.mutable_labels())["key"] = huge;
  answers.push_back(Create(create));
  create = TinyJob(dir_.path(), 1);
  create.mutable_spec()->mutable_source()->set_uri("/" + huge);
  answers.push_back(Create(create));
  v1::ListJobsRequest list;
  list.set_page_token(huge);
  answers.push_back(List(list));
  list.Clear();
  list.mutable_filter()->set_tenant(huge);
  answers.push_back(List(list));
  list.Clear();
  (*list.mutable_filter()->mutable_labels())[huge] = huge;
  answers.push_back(List(list));
  answers.push_back(client_->Cancel(absl::StrCat("jobs/", huge)));
  v1::CancelJobRequest cancel;
  cancel.set_name(job_);
  cancel.set_etag(huge);
  v1::CancelJobResponse cancelled;
  Context context;
  answers.push_back(client_->jobs->CancelJob(&context, cancel, &cancelled));
  for (const grpc::Status& status : answers) {
    EXPECT_THAT(status.error_code(),
                AnyOf(StatusCode::INVALID_ARGUMENT, StatusCode::ABORTED, StatusCode::NOT_FOUND))
        << status.error_message();
    EXPECT_NE(ReasonOf(status), "") << status.error_message();
    EXPECT_LT(status.error_message().size(), 2000u);
  }
}

TEST_F(HostileCallsTest, T15NestingWithoutEnd) {
  // Groups of an unknown field, each in the one before.
  const std::string deep = std::string(10'000, '\x7b') + std::string(10'000, '\x7c');
  for (const char* method : {"CreateJob", "ListJobs", "CancelJob"}) {
    const grpc::Status status = Send(absl::StrCat("/latentforge.v1.JobService/", method), deep);
    EXPECT_FALSE(status.ok());
  }
  for (const std::string& garbage :
       {std::string(1000, '\xff'), std::string("\x0a\xff\xff\xff\x7f")})
    EXPECT_FALSE(Send("/latentforge.v1.JobService/CreateJob", garbage).ok());
  EXPECT_EQ(Send("/latentforge.v1.JobService/NoSuchMethod", "").error_code(),
            StatusCode::UNIMPLEMENTED);
}

TEST_F(HostileCallsTest, T15ForgedPageTokens) {
  v1::ListJobsRequest list;
  for (const std::string& token : {std::string("AAAA"), std::string(64, 'A'), std::string("!!"),
                                   std::string("\1\2"), std::string(100'000, 'Z')}) {
    list.set_page_token(token);
    EXPECT_EQ(ReasonOf(List(list)), "BAD_PAGE_TOKEN");
  }
  v1::ListAttemptsRequest attempts;
  attempts.set_parent(job_);
  attempts.set_page_token("AAAA");
  Context context;
  v1::ListAttemptsResponse response;
  EXPECT_EQ(ReasonOf(client_->jobs->ListAttempts(&context, attempts, &response)), "BAD_PAGE_TOKEN");
}

TEST_F(HostileCallsTest, T15EnumValuesThatHaveNoName) {
  v1::ListJobsRequest list;
  list.mutable_filter()->add_states(static_cast<v1::JobState>(4711));
  EXPECT_EQ(ReasonOf(List(list)), "INVALID_FIELD");
  v1::CreateJobRequest create = TinyJob(dir_.path(), 1);
  create.mutable_spec()->set_priority(static_cast<v1::Priority>(4711));
  const grpc::Status status = Create(create);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(ReasonOf(status), "");
}

TEST_F(HostileCallsTest, T15MetadataAboveEightKibibytes) {
  for (const size_t bytes : {9'000, 100'000, 1'000'000}) {
    Context context;
    context.AddMetadata("x-padding", std::string(bytes, 'x'));
    v1::ListJobsResponse response;
    EXPECT_FALSE(client_->jobs->ListJobs(&context, {}, &response).ok()) << bytes;
  }
  // The connection was closed for the last one.
  const std::unique_ptr<RpcClient> fresh = NewClient();
  Context context;
  context.AddMetadata("x-padding", std::string(4'000, 'x'));
  v1::ListJobsResponse response;
  const grpc::Status status = fresh->jobs->ListJobs(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_code() << " " << status.error_message();
}

}  // namespace
}  // namespace latentforge::service
