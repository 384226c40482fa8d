#include "client/conversion_client.h"

#include "base/clock.h"
#include "client/error.h"
#include "client/follow_job.h"
#include "client/health.h"
#include "client/rpc_status.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "tests/client/fake_job_service.h"
#include "tests/fakes/fake_clock.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

const grpc::Status kAway(grpc::StatusCode::UNAVAILABLE, "away");

grpc::Status DetailedError() {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  info.set_reason("RANK_OUT_OF_RANGE");
  details.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("spec.budget");
  violation->set_description("is 2");
  details.add_details()->PackFrom(bad);
  return {grpc::StatusCode::INVALID_ARGUMENT, "bad budget", details.SerializeAsString()};
}

class ClientTest : public testing::Test {
 protected:
  FakeJobService service_;
  FakeClock clock_;
  ConversionClient client_{service_.channel(), "fake:1", clock_};
};

TEST_F(ClientTest, DecodesReasonAndViolations) {
  service_.AddStatus(DetailedError());
  const absl::Status status = client_.CreateJob({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "bad budget");
  EXPECT_EQ(ReasonOf(status), "RANK_OUT_OF_RANGE");
  ASSERT_THAT(ViolationsOf(status), SizeIs(1));
  EXPECT_EQ(ViolationsOf(status)[0].field, "spec.budget");
}

TEST_F(ClientTest, AConnectionThatIsClosedAtOnceHintsAtTls) {
  const grpc::Status closed(grpc::StatusCode::UNAVAILABLE,
                            "failed to connect to all addresses; last error: Socket closed");
  const absl::Status clear = Unreachable(FromRpcStatus(closed), "fake:1");
  EXPECT_EQ(ReasonOf(clear), "SERVER_UNREACHABLE");
  EXPECT_THAT(std::string(clear.message()), HasSubstr("server fake:1 closed the connection"));
  EXPECT_THAT(NextStepOf(clear), HasSubstr("--tls-ca"));
  // A connection that is lost later says nothing about TLS.
  const grpc::Status lost(grpc::StatusCode::UNAVAILABLE, "Socket closed");
  EXPECT_EQ(NextStepOf(Unreachable(FromRpcStatus(lost), "fake:1")).find("--tls-ca"),
            std::string::npos);
}

TEST_F(ClientTest, WhatHelpsDependsOnTheStateOfTheJob) {
  const auto next = [this](const char* reason, const char* state) {
    google::rpc::Status details;
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    (*info.mutable_metadata())["job"] = "j1";
    (*info.mutable_metadata())["state"] = state;
    details.add_details()->PackFrom(info);
    service_.AddStatus({grpc::StatusCode::FAILED_PRECONDITION, "no", details.SerializeAsString()});
    return NextStepOf(client_.GetJob("jobs/j1").status());
  };
  EXPECT_EQ(next("JOB_TERMINAL", "JOB_STATE_SUCCEEDED"),
            "latentforge job get j1 --server fake:1  (shows its result)");
  EXPECT_EQ(next("JOB_TERMINAL", "JOB_STATE_FAILED"),
            "latentforge job retry j1 --server fake:1  (queues it again)");
  EXPECT_EQ(next("JOB_NOT_RETRYABLE", "JOB_STATE_RUNNING"),
            "latentforge job watch j1 --server fake:1  (it has not ended)");
  EXPECT_THAT(next("JOB_NOT_RETRYABLE", "JOB_STATE_SUCCEEDED"), HasSubstr("another --out"));
  EXPECT_EQ(next("JOB_NOT_RETRYABLE", "JOB_STATE_FAILED"),
            "submit it again: latentforge job submit");
}

TEST_F(ClientTest, BrokenDetailsAreIgnored) {
  service_.AddStatus({grpc::StatusCode::NOT_FOUND, "none", "\xff\xff\xff"});
  EXPECT_EQ(ReasonOf(client_.GetJob("jobs/1").status()), "");
}

TEST_F(ClientTest, RepeatsReadsAndIdempotentCreates) {
  for (int i = 0; i < 3; ++i) service_.AddStatus(kAway);
  EXPECT_TRUE(client_.GetJob("jobs/1").ok());
  service_.AddStatus(kAway);
  v1::CreateJobRequest request;
  request.set_request_id("r");
  EXPECT_TRUE(client_.CreateJob(request).ok());
  EXPECT_EQ(service_.created().size(), 2u);
  EXPECT_TRUE(service_.every_call_had_a_deadline());
}

TEST_F(ClientTest, DoesNotRepeatACreateWithoutRequestId) {
  service_.AddStatus(kAway);
  const absl::Status status = client_.CreateJob({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.created().size(), 1u);
  EXPECT_THAT(status.message(), HasSubstr("fake:1"));
  EXPECT_THAT(NextStepOf(status), HasSubstr("start latentforge-server there, or name another"));
}

TEST_F(ClientTest, GivesUpAfterFourTries) {
  for (int i = 0; i < 4; ++i) service_.AddStatus(kAway);
  EXPECT_EQ(client_.GetJob("jobs/1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(client_.GetJob("jobs/1").ok());  // the queue is empty again
}

TEST_F(ClientTest, AWatchResumesBehindTheLastEvent) {
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_QUEUED, 1), StateEvent(v1::JOB_STATE_RUNNING, 2),
                      PercentEvent(10, 3)},
                     kAway});
  service_.AddWatch({{}, kAway});
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 4), PercentEvent(20, 4),
                      StateEvent(v1::JOB_STATE_SUCCEEDED, 5)},
                     grpc::Status::OK});
  SilentView view;
  std::vector<int64_t> sequences;
  FollowOptions options;
  options.on_message = [&](const v1::WatchJobResponse& message) {
    if (message.has_event()) sequences.push_back(message.event().sequence());
  };
  const absl::StatusOr<FollowResult> result =
      FollowJob(client_, RealClock(), "jobs/1", view, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->end, FollowEnd::kJobEnded);
  EXPECT_EQ(result->job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(sequences, testing::ElementsAre(2, 3, 4, 5));
  const std::vector<v1::WatchJobRequest> asked = service_.watched();
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_FALSE(asked[0].has_from_sequence());
  EXPECT_EQ(asked[1].from_sequence(), 3);
  EXPECT_EQ(asked[2].from_sequence(), 3);
}

TEST_F(ClientTest, AWatchStartsAgainFromASnapshotWhenItsEventsAreGone) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  info.set_reason("SEQUENCE_COMPACTED");
  (*info.mutable_metadata())["oldest_sequence"] = "900";
  details.add_details()->PackFrom(info);
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 2), PercentEvent(10, 3)}, kAway});
  service_.AddWatch({{}, {grpc::StatusCode::OUT_OF_RANGE, "too old", details.SerializeAsString()}});
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 950), PercentEvent(90, 951),
                      StateEvent(v1::JOB_STATE_SUCCEEDED, 952)},
                     grpc::Status::OK});
  SilentView view;
  std::vector<int64_t> sequences;
  FollowOptions options;
  options.on_message = [&](const v1::WatchJobResponse& message) {
    sequences.push_back(message.has_event() ? message.event().sequence() : 0);
  };
  const absl::StatusOr<FollowResult> result =
      FollowJob(client_, RealClock(), "jobs/1", view, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(sequences, testing::ElementsAre(0, 3, 0, 951, 952)) << "0 is a snapshot";
  const std::vector<v1::WatchJobRequest> asked = service_.watched();
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_EQ(asked[1].from_sequence(), 3);
  EXPECT_FALSE(asked[2].has_from_sequence());
}

TEST_F(ClientTest, ACallThatAStoppingServerCancelsIsRepeated) {
  const grpc::Status cancelled(grpc::StatusCode::CANCELLED, "CANCELLED");
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 1)}, cancelled});
  service_.AddWatch({{StateEvent(v1::JOB_STATE_SUCCEEDED, 2)}, grpc::Status::OK});
  SilentView view;
  const absl::StatusOr<FollowResult> result = FollowJob(client_, clock_, "jobs/1", view, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->job.status().state(), v1::JOB_STATE_SUCCEEDED);

  service_.AddStatus(cancelled);
  EXPECT_TRUE(client_.GetJob("jobs/1").ok());
  // Exit status 9, not that of Ctrl-C.
  service_.AddStatus(cancelled);
  const absl::Status status = client_.CreateJob({}).status();
  EXPECT_EQ(ExitCodeOf(status), kExitUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), "SERVER_UNREACHABLE");
}

TEST_F(ClientTest, AWatchGivesUpOnAServerThatNeverAnswered) {
  for (int i = 0; i < 200; ++i) service_.AddWatch({{}, kAway});
  SilentView view;
  const absl::StatusOr<FollowResult> result = FollowJob(client_, clock_, "jobs/1", view, {});
  EXPECT_EQ(ReasonOf(result.status()), "SERVER_UNREACHABLE") << result.status();
  EXPECT_THAT(result.status().message(), HasSubstr("server fake:1 did not answer"));
  EXPECT_THAT(NextStepOf(result.status()),
              HasSubstr("start latentforge-server there, or name another"));
  EXPECT_LT(clock_.Monotonic(), absl::Seconds(20));
}

TEST_F(ClientTest, AWatchIsPatientWithAServerThatAnsweredOnce) {
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 1)}, kAway});
  for (int i = 0; i < 20; ++i) service_.AddWatch({{}, kAway});
  service_.AddWatch({{StateEvent(v1::JOB_STATE_SUCCEEDED, 2)}, grpc::Status::OK});
  SilentView view;
  const absl::StatusOr<FollowResult> result = FollowJob(client_, clock_, "jobs/1", view, {});
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_GT(clock_.Monotonic(), absl::Seconds(30));
}

TEST_F(ClientTest, AWatchEndsWithAFinalError) {
  service_.AddWatch({{}, {grpc::StatusCode::NOT_FOUND, "no such job"}});
  SilentView view;
  const absl::StatusOr<FollowResult> result = FollowJob(client_, RealClock(), "jobs/1", view, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, AWatchOutlivesItsTokenWhereThereIsANextOne) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  info.set_reason("TOKEN_EXPIRED");
  details.add_details()->PackFrom(info);
  const grpc::Status expired(grpc::StatusCode::UNAUTHENTICATED, "the token expired",
                             details.SerializeAsString());
  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 1)}, expired});
  service_.AddWatch({{StateEvent(v1::JOB_STATE_SUCCEEDED, 2)}, grpc::Status::OK});
  SilentView view;
  EXPECT_TRUE(FollowJob(client_, clock_, "jobs/1", view, {}).ok());

  service_.AddWatch({{SnapshotOf(v1::JOB_STATE_RUNNING, 1)}, expired});
  service_.AddWatch({{}, expired});
  EXPECT_EQ(ReasonOf(FollowJob(client_, clock_, "jobs/1", view, {}).status()), "TOKEN_EXPIRED");
}

TEST_F(ClientTest, InterruptionAndTimeoutEndTheWaitNotTheJob) {
  SilentView view;
  FollowOptions options;
  options.interrupted = [] { return true; };
  EXPECT_EQ(FollowJob(client_, RealClock(), "jobs/1", view, options)->end, FollowEnd::kInterrupted);
  options.interrupted = nullptr;
  options.timeout = absl::ZeroDuration();
  EXPECT_EQ(FollowJob(client_, RealClock(), "jobs/1", view, options)->end, FollowEnd::kTimedOut);
}

TEST(JobOutcomeTest, EndsBecomeExitCodes) {
  v1::Job job;
  job.set_name("jobs/1");
  job.mutable_status()->set_state(v1::JOB_STATE_SUCCEEDED);
  EXPECT_TRUE(JobOutcome(job).ok());
  job.mutable_status()->set_state(v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(ExitCodeOf(JobOutcome(job)), 5);
  job.mutable_status()->set_state(v1::JOB_STATE_FAILED);
  job.mutable_status()->mutable_error()->set_message("disk full");
  job.mutable_status()->mutable_error()->set_reason("SCRATCH_FULL");
  const absl::Status failed = JobOutcome(job);
  EXPECT_EQ(ExitCodeOf(failed), 3);
  EXPECT_EQ(failed.message(), "jobs/1 failed: disk full");
  EXPECT_EQ(ReasonOf(failed), "SCRATCH_FULL");
}

TEST(JobOutcomeTest, SaysWhatToDoInWordsOfTheCommand) {
  v1::Job job;
  job.set_name("jobs/1");
  job.mutable_status()->set_state(v1::JOB_STATE_FAILED);
  v1::ConversionError& error = *job.mutable_status()->mutable_error();
  error.set_message("no luck");
  error.set_reason("SOME_NEW_REASON");
  error.set_error_class(v1::ERROR_CLASS_USER);
  EXPECT_THAT(NextStepOf(JobOutcome(job)), HasSubstr("submit again"));
  EXPECT_EQ(JobOutcome(job).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ConversionOutcome(job).message(), "the conversion failed: no luck");
  EXPECT_THAT(NextStepOf(ConversionOutcome(job)), HasSubstr("run the same command again"));
  error.set_reason("JOB_DEADLINE");
  error.set_error_class(v1::ERROR_CLASS_RESOURCE);
  EXPECT_THAT(NextStepOf(JobOutcome(job)), HasSubstr("raise --deadline"));
  EXPECT_EQ(JobOutcome(job).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(HealthTest, EncodesAndDecodesTheTwoMessages) {
  EXPECT_EQ(EncodeHealthRequest(""), "");
  EXPECT_EQ(EncodeHealthRequest("ab"),
            "\n\x02"
            "ab");  // field 1, 2 bytes
  EXPECT_EQ(*DecodeHealthResponse("\x08\x01"), 1);
  EXPECT_EQ(*DecodeHealthResponse("\x12\x01x\x08\x02"), 2);  // unknown field
  EXPECT_EQ(*DecodeHealthResponse(""), 0);
  EXPECT_FALSE(DecodeHealthResponse("\x08\xff").ok());
  EXPECT_FALSE(DecodeHealthResponse("\x12\x7f").ok());
}

}  // namespace
}  // namespace latentforge::client
