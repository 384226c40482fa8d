#include "worker/agent/lease_client.h"

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_worker_service.h"

namespace latentforge::agent {
namespace {

using ::testing::HasSubstr;

class LeaseClientTest : public testing::Test {
 protected:
  LeaseClientTest() { worker_.set_name("w1"); }
  ~LeaseClientTest() override { std::filesystem::remove_all(folder_); }

  static std::string MakeFolder() {
    const std::string folder = absl::StrCat(testing::TempDir(), "/lease_client_", getpid());
    std::filesystem::create_directories(folder);
    return folder;
  }

  v1::Lease Lease() {
    server_.service().Submit("a", {});
    const auto grant = client_.Acquire(worker_, absl::Seconds(5));
    EXPECT_TRUE(grant.ok() && grant->has_lease()) << grant.status();
    return grant.ok() ? grant->lease() : v1::Lease();
  }

  const std::string folder_ = MakeFolder();
  FakeWorkerServer server_{folder_};
  v1::WorkerInfo worker_;
  LeaseClient client_{*MakeServerChannel(server_.address()), absl::Seconds(5), RealClock()};
};

TEST_F(LeaseClientTest, LeasesReportsAndCompletes) {
  v1::JobSpec spec;
  spec.mutable_source()->set_uri("file:///model");
  server_.service().Submit("a", spec);
  const auto grant = client_.Acquire(worker_, absl::Seconds(5));
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_EQ(grant->lease().job(), "jobs/a");
  EXPECT_EQ(grant->spec().source().uri(), "file:///model");
  EXPECT_EQ(server_.service().last_worker().name(), "w1");

  v1::HeartbeatRequest heartbeat;
  *heartbeat.mutable_lease() = grant->lease();
  EXPECT_EQ(client_.Heartbeat(heartbeat, absl::InfiniteDuration())->command(),
            v1::ATTEMPT_COMMAND_CONTINUE);
  v1::ReportEventsRequest report;
  *report.mutable_lease() = grant->lease();
  report.add_events()->set_sequence(7);
  EXPECT_EQ(client_.ReportEvents(report)->last_sequence(), 7);
  v1::CompleteAttemptRequest complete;
  *complete.mutable_lease() = grant->lease();
  complete.mutable_cancelled();
  EXPECT_TRUE(client_.Complete(complete).ok());
  EXPECT_TRUE(server_.service().attempts().at(0).outcome->has_cancelled());
}

TEST_F(LeaseClientTest, AnEmptyQueueGivesNoLease) {
  const auto grant = client_.Acquire(worker_, absl::Milliseconds(10));
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_FALSE(grant->has_lease());
  EXPECT_TRUE(client_.EverReached());
}

TEST_F(LeaseClientTest, RecognisesALostLease) {
  v1::HeartbeatRequest heartbeat;
  *heartbeat.mutable_lease() = Lease();
  server_.service().FenceAll();
  const absl::Status lost = client_.Heartbeat(heartbeat, absl::InfiniteDuration()).status();
  EXPECT_TRUE(IsLeaseLost(lost));
  EXPECT_FALSE(IsTransient(lost));
  EXPECT_THAT(std::string(lost.message()), HasSubstr("LEASE_LOST"));

  server_.service().FailWith(
      ErrorWithReason(grpc::StatusCode::ABORTED, "CONCURRENT_TRANSITION", "again"));
  const absl::Status conflict = client_.Heartbeat(heartbeat, absl::InfiniteDuration()).status();
  EXPECT_FALSE(IsLeaseLost(conflict));
  EXPECT_TRUE(IsTransient(conflict));

  server_.service().FailWith(
      ErrorWithReason(grpc::StatusCode::PERMISSION_DENIED, "LEASE_HELD_BY_ANOTHER", "not yours"));
  const absl::Status foreign = client_.Heartbeat(heartbeat, absl::InfiniteDuration()).status();
  EXPECT_TRUE(IsLeaseLost(foreign));
  EXPECT_FALSE(IsTransient(foreign));

  server_.service().FailWith(
      ErrorWithReason(grpc::StatusCode::PERMISSION_DENIED, "ROLE_NOT_ALLOWED", "no worker"));
  EXPECT_FALSE(IsLeaseLost(client_.Heartbeat(heartbeat, absl::InfiniteDuration()).status()));

  server_.service().FailWith(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such job"));
  EXPECT_TRUE(IsLeaseLost(client_.Heartbeat(heartbeat, absl::InfiniteDuration()).status()));
}

TEST_F(LeaseClientTest, TellsWhatMaySucceedLater) {
  EXPECT_TRUE(IsTransient(absl::UnavailableError("")));
  EXPECT_TRUE(IsTransient(absl::DeadlineExceededError("")));
  EXPECT_TRUE(IsTransient(absl::UnauthenticatedError("")));
  EXPECT_FALSE(IsTransient(absl::PermissionDeniedError("")));
  EXPECT_FALSE(IsTransient(absl::FailedPreconditionError("")));
  EXPECT_FALSE(IsTransient(absl::InvalidArgumentError("")));
  EXPECT_FALSE(IsTransient(absl::UnimplementedError("")));
}

TEST_F(LeaseClientTest, FindsAServerThatRestarted) {
  v1::HeartbeatRequest heartbeat;
  *heartbeat.mutable_lease() = Lease();
  server_.Stop();
  EXPECT_EQ(client_.Heartbeat(heartbeat, absl::Seconds(5)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_GT(client_.UnreachableFor(), absl::ZeroDuration());
  server_.Start();
  const absl::Time deadline = absl::Now() + absl::Seconds(15);
  absl::Status status = absl::UnavailableError("");
  while (IsTransient(status) && absl::Now() < deadline) {
    status = client_.Heartbeat(heartbeat, absl::Seconds(5)).status();
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(client_.UnreachableFor(), absl::ZeroDuration());
}

TEST_F(LeaseClientTest, StopEndsCallsThatRunAndThatCome) {
  std::thread stopper;
  {
    // The call has its deadline 65 s away: only the stop can end it in time.
    stopper = std::thread([this] {
      while (server_.service().last_worker().name().empty()) std::this_thread::yield();
      client_.StopAcquiring();
    });
    const auto grant = client_.Acquire(worker_, absl::Minutes(1));
    EXPECT_EQ(grant.status().code(), absl::StatusCode::kCancelled);
  }
  stopper.join();
  EXPECT_EQ(client_.Acquire(worker_, absl::Minutes(1)).status().code(),
            absl::StatusCode::kCancelled);
  v1::CompleteAttemptRequest complete;
  EXPECT_TRUE(IsLeaseLost(client_.Complete(complete))) << "other calls still work";
  client_.StopAll();
  EXPECT_EQ(client_.Complete(complete).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace latentforge::agent
