// T3, T5, T6 and T7: a network that is cut, answers that are lost, and workers that come too late.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/faults/proxied_cluster.h"
#include "tests/faults/servers.h"

namespace latentforge::faults {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kNote[] = R"({"append":"@/pids","text":"$PID"})";
constexpr char kWaitForGo[] = R"({"wait_for":"@/go"})";
constexpr char kPublish[] = R"({"publish":"@/artifact","log":"@/artifact.log"})";
constexpr char kWaitForEnd[] = R"({"wait_for":"@/end"})";
constexpr char kResult[] = R"({"event":{"result":{"artifactUri":"file:///out"}}})";

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

class PartitionTest : public testing::Test {
 protected:
  static std::string Steps(std::initializer_list<absl::string_view> steps) {
    return absl::StrJoin(steps, ",");
  }

  // When the lease of the first attempt had ended for the server.
  absl::Time RequeueTime(const std::string& job) {
    bool ran = false;
    for (const v1::JobEvent& event : cluster_.History(job)) {
      if (!event.has_state_changed()) continue;
      if (ran && event.state_changed().state() == v1::JOB_STATE_QUEUED) return TimeOf(event.time());
      ran = ran || event.state_changed().state() == v1::JOB_STATE_RUNNING;
    }
    ADD_FAILURE() << job << " was not queued again";
    return absl::InfinitePast();
  }

  v1::Lease LeaseOf(const std::string& job) {
    for (const v1::Worker& worker : cluster_.Workers()) {
      for (const v1::Lease& lease : worker.leases())
        if (lease.job() == job) return lease;
    }
    ADD_FAILURE() << "no worker has " << job;
    return {};
  }

  ProxiedCluster proxied_{{.lease = "4s"}};
  Cluster& cluster_ = proxied_.cluster();
};

TEST_F(PartitionTest, T3AnAnswerThatDiedWithItsServerIsGivenToTheRepetition) {
  Servers client({proxied_.client_address()});
  v1::CreateJobRequest request;
  request.set_request_id("once");
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_source()->set_uri(cluster_.Path("model").string());
  spec.mutable_budget()->set_kv_budget(0.5);
  spec.mutable_calibration()->add_corpora()->set_uri(cluster_.Path("corpus.txt").string());
  spec.mutable_output()->set_uri(cluster_.Path("out").string());
  v1::ListJobsResponse nothing;  // connects
  EXPECT_TRUE(client.Call(&Servers::Stub::ListJobs, "", v1::ListJobsRequest(), nothing).ok());
  proxied_.at_clients().Set({.lose_answers = true});
  grpc::Status lost;
  std::thread caller([&] {
    v1::CreateJobResponse response;
    lost = client.Call(&Servers::Stub::CreateJob, "", request, response);
  });
  EXPECT_TRUE(Await([&] { return cluster_.List(/*active=*/true).size() == 1; }));  // committed
  cluster_.KillServer();
  proxied_.at_clients().Set({});
  caller.join();
  EXPECT_TRUE(IsOfFault(lost)) << lost.error_message();
  cluster_.StartServer();
  v1::CreateJobResponse response;
  grpc::Status status;
  EXPECT_TRUE(Await([&] {
    status = client.Call(&Servers::Stub::CreateJob, "", request, response);
    return !IsOfFault(status);
  }));
  EXPECT_TRUE(status.ok()) << status.error_message();
  const std::vector<v1::Job> jobs = cluster_.List(/*active=*/false);
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0].name(), response.job().name());
}

TEST_F(PartitionTest, T5AWorkerThatIsCutOffStopsBeforeItsJobIsAnothers) {
  cluster_.StartWorker("cut", {.server = proxied_.worker_address()});
  const std::string job = cluster_.Submit(
      {Steps({R"({"ignore_sigterm":true})", kNote, kWaitForGo, kPublish, kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  proxied_.at_workers().Set({.stalled = true});
  EXPECT_TRUE(Await([&] { return !IsRunning(process); }));
  const absl::Time stopped = absl::Now();
  cluster_.StartWorker("other");
  cluster_.AwaitProcess(2);
  cluster_.Go();
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_LT(stopped, RequeueTime(job));
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().worker(), "other");
  EXPECT_THAT(Lines(cluster_.Path("artifact.log")), ElementsAre(HasSubstr("attempt 1 of ")))
      << "the first attempt in the other's scratch folder";
  // The worker that was cut off is as good as before.
  proxied_.at_workers().Set({});
  cluster_.worker("other").Signal(SIGKILL);
  cluster_.worker("other").Wait();
  EXPECT_EQ(cluster_.AwaitEnd(cluster_.Submit({kResult})).status().worker(), "cut");
}

TEST_F(PartitionTest, T6WhatAWorkerSaysTooLateIsRefusedInEveryCall) {
  Daemon& frozen = cluster_.StartWorker("frozen");
  const std::string job = cluster_.Submit({Steps({kNote, kWaitForGo, kResult})});
  cluster_.AwaitProcess(1);
  const v1::Lease old = LeaseOf(job);
  frozen.Signal(SIGSTOP);
  cluster_.StartWorker("other");
  cluster_.AwaitProcess(2);

  const auto expect_fenced = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED) << status.error_message();
    EXPECT_THAT(status.error_details(), HasSubstr("LEASE_LOST"));
  };
  expect_fenced(cluster_.Beat(old, "frozen"));
  {
    grpc::ClientContext context;
    v1::ReportEventsRequest request;
    *request.mutable_lease() = old;
    v1::AttemptEvent& event = *request.add_events();
    event.set_sequence(1000);
    event.mutable_log()->set_text("too late");
    v1::ReportEventsResponse response;
    expect_fenced(cluster_.leases().ReportEvents(&context, request, &response));
  }
  v1::CompleteAttemptRequest late;
  *late.mutable_lease() = old;
  late.mutable_result()->set_artifact_uri("file:///too-late");
  for (const bool ended : {false, true}) {
    if (ended) {
      cluster_.Go();
      EXPECT_EQ(cluster_.AwaitEnd(job).status().state(), v1::JOB_STATE_SUCCEEDED);
    }
    grpc::ClientContext context;
    v1::CompleteAttemptResponse response;
    expect_fenced(cluster_.leases().CompleteAttempt(&context, late, &response));
  }
  frozen.Signal(SIGCONT);
  const v1::Job job_now = cluster_.AwaitEnd(job);
  EXPECT_EQ(job_now.status().worker(), "other");
  EXPECT_EQ(job_now.status().result().artifact_uri(), "file:///out");
  for (const v1::JobEvent& event : cluster_.History(job)) EXPECT_NE(event.log().text(), "too late");
}

TEST_F(PartitionTest, T6TheProcessOfAFrozenWorkerPublishesNothing) {
  Daemon& frozen = cluster_.StartWorker("frozen");
  const std::string job = cluster_.Submit({Steps({kNote, kWaitForGo, kPublish, kNote, kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  frozen.Signal(SIGSTOP);
  EXPECT_TRUE(Await([&] { return cluster_.Get(job).status().state() == v1::JOB_STATE_QUEUED; }));
  cluster_.Go();
  // Nobody tells it, and nobody would hear it.
  EXPECT_TRUE(Await([&] { return !IsRunning(process); }));
  EXPECT_FALSE(std::filesystem::exists(cluster_.Path("artifact")));
  cluster_.StartWorker("other");
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().worker(), "other");
  EXPECT_THAT(Lines(cluster_.Path("artifact.log")),
              ElementsAre(Not(HasSubstr(absl::StrCat(" of ", process)))));
  frozen.Signal(SIGCONT);
}

TEST_F(PartitionTest, T7WhatACutOffWorkerPublishedIsFoundAndNotMadeAgain) {
  cluster_.StartWorker("cut", {.server = proxied_.worker_address()});
  const std::string job =
      cluster_.Submit({Steps({kNote, kWaitForGo, kPublish, kNote, kWaitForEnd, kResult})});
  const pid_t process = cluster_.AwaitProcess(1);
  proxied_.at_workers().Set({.stalled = true});
  cluster_.Go();
  cluster_.AwaitProcess(2);  // it has published
  EXPECT_EQ(cluster_.Get(job).status().state(), v1::JOB_STATE_RUNNING) << "nobody knows of it";
  EXPECT_TRUE(Await([&] { return !IsRunning(process); }));
  std::ofstream(cluster_.Path("end")) << "end\n";
  cluster_.StartWorker("other");
  const v1::Job ended = cluster_.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 2);
  EXPECT_THAT(Lines(cluster_.Path("artifact.log")),
              ElementsAre(absl::StrCat("attempt 1 of ", process)));
  EXPECT_THAT(Lines(cluster_.Path("artifact") / "manifest"),
              ElementsAre(absl::StrCat("attempt 1 of ", process)));
}

}  // namespace
}  // namespace latentforge::faults
