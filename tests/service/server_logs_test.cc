// Attempts' logs through a whole server.
#include <thread>

#include "gmock/gmock.h"
#include "tests/service/server_fixture.h"

namespace latentforge::service {
namespace {

class ServerLogsTest : public ServerTest {
 protected:
  grpc::Status Append(const v1::Lease& lease, int64_t first, int64_t last) {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = lease;
    for (int64_t sequence = first; sequence <= last; ++sequence) {
      request.add_lines()->set_sequence(sequence);
      request.mutable_lines(request.lines_size() - 1)->set_text(absl::StrCat("line ", sequence));
    }
    Context context;
    v1::AppendLogsResponse response;
    return client_->workers->AppendLogs(&context, request, &response);
  }

  // Every line of the stream, and how it ended.
  grpc::Status Read(const v1::ReadLogsRequest& request, std::vector<std::string>& lines) {
    Context context;
    const auto stream = client_->jobs->ReadLogs(&context, request);
    v1::ReadLogsResponse message;
    while (stream->Read(&message))
      for (const v1::LogEntry& entry : message.entries()) lines.push_back(entry.text());
    return stream->Finish();
  }
};

TEST_F(ServerLogsTest, AFollowerGetsEveryLineAndTheEnd) {
  Start(Options());
  v1::ReadLogsRequest request;
  request.set_name(CreateJob());
  request.set_follow(true);
  std::vector<std::string> lines;
  grpc::Status status;
  std::thread reader([&] { status = Read(request, lines); });
  const v1::Lease lease = client_->Acquire().lease();
  EXPECT_TRUE(Append(lease, 1, 2).ok());
  EXPECT_TRUE(Append(lease, 2, 3).ok());
  EXPECT_TRUE(client_->Succeed(lease).ok());
  reader.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(lines, testing::ElementsAre("line 1", "line 2", "line 3"));
  EXPECT_EQ(ReasonOf(Append(lease, 4, 4)), "LEASE_LOST");
}

TEST_F(ServerLogsTest, TheLimitsAreTheFlags) {
  ServerOptions options = Options();
  options.log_limits.lines = 10;
  Start(options);
  v1::ReadLogsRequest request;
  request.set_name(CreateJob());
  const v1::Lease lease = client_->Acquire().lease();
  EXPECT_TRUE(Append(lease, 1, 100).ok());
  std::vector<std::string> lines;
  EXPECT_TRUE(Read(request, lines).ok());
  EXPECT_EQ(lines.size(), 10u);
}

TEST_F(ServerLogsTest, AnIdleFollowerGetsSignsOfLifeAndIsToldOfAStop) {
  ServerOptions options = Options();
  options.bookmark_interval = absl::Milliseconds(50);
  Start(options);
  v1::ReadLogsRequest request;
  request.set_name(CreateJob());
  request.set_follow(true);
  Context context;
  const auto stream = client_->jobs->ReadLogs(&context, request);
  v1::ReadLogsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.entries_size(), 0);
  std::thread stopping([&] { server_->Stop(); });
  while (stream->Read(&message)) continue;
  EXPECT_EQ(ReasonOf(stream->Finish()), "DRAINING");
  stopping.join();
}

TEST_F(ServerLogsTest, ErrorsEndTheStream) {
  Start(Options());
  v1::ReadLogsRequest request;
  request.set_name("jobs/nope");
  std::vector<std::string> lines;
  EXPECT_EQ(ReasonOf(Read(request, lines)), "JOB_NOT_FOUND");
  request.set_name(CreateJob());
  request.set_tail(-1);
  EXPECT_EQ(ReasonOf(Read(request, lines)), "INVALID_FIELD");
}

}  // namespace
}  // namespace latentforge::service
