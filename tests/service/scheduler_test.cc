#include "service/scheduler.h"

#include <atomic>
#include <memory>
#include <set>
#include <thread>

#include "service/maintenance.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using SchedulerTest = SchedulerFixture;

TEST_F(SchedulerTest, AJobRunsFromQueuedToSucceeded) {
  const std::string job = CreateJob();
  const v1::AcquireLeaseResponse grant = Acquire();
  EXPECT_EQ(grant.lease().job(), job);
  EXPECT_EQ(grant.lease().attempt(), 1);
  EXPECT_EQ(grant.lease().lease_epoch(), 1);
  EXPECT_EQ(grant.spec().source().uri(), "/model");
  EXPECT_EQ(grant.lease_duration().seconds(), 30);
  EXPECT_EQ(grant.heartbeat_interval().seconds(), 10);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);

  v1::ReportEventsRequest report;
  *report.mutable_lease() = grant.lease();
  report.add_events()->set_sequence(1);
  report.mutable_events(0)->mutable_progress()->set_percent(40);
  const auto reported = scheduler_->ReportEvents(kWorker, report);
  ASSERT_TRUE(reported.ok()) << reported.status();
  EXPECT_EQ(reported->last_sequence(), 1);
  EXPECT_EQ(reported->command(), v1::ATTEMPT_COMMAND_CONTINUE);
  EXPECT_EQ(GetJob(job).status().percent(), 40);

  ASSERT_TRUE(Complete(grant.lease(), Succeeded()).ok());
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_SUCCEEDED);
  EXPECT_TRUE(Complete(grant.lease(), Succeeded()).ok()) << "a repeat is allowed";
  EXPECT_EQ(Acquire().has_lease(), false);
}

TEST_F(SchedulerTest, WaitingWorkersGetJobsInOrderOfArrival) {
  Answer first;
  Answer second;
  scheduler_->Acquire(kWorker, AcquireRequest("a", absl::Seconds(10)),
                      [&](auto got) { first = got; });
  scheduler_->Acquire(kWorker, AcquireRequest("b", absl::Seconds(10)),
                      [&](auto got) { second = got; });
  Tick();
  EXPECT_FALSE(first.has_value());
  CreateJob();
  Tick();
  ASSERT_TRUE(first.has_value());
  EXPECT_TRUE((*first)->has_lease());
  EXPECT_FALSE(second.has_value());
  clock_.Advance(absl::Seconds(10));
  Tick();
  ASSERT_TRUE(second.has_value());
  EXPECT_FALSE((*second)->has_lease());
}

TEST_F(SchedulerTest, PrioritiesMoveJobsByAStepOfTime) {
  const auto create = [&](v1::Priority priority) {
    v1::CreateJobRequest request = CreateRequest();
    request.mutable_spec()->set_priority(priority);
    return CreateJob(request);
  };
  const std::string low = create(v1::PRIORITY_LOW);
  const std::string normal = create(v1::PRIORITY_UNSPECIFIED);
  const std::string high = create(v1::PRIORITY_HIGH);
  EXPECT_EQ(Acquire().lease().job(), high);
  const v1::Lease lease = Acquire().lease();
  EXPECT_EQ(lease.job(), normal);
  // Nothing starves: a step later the job of low priority is before new ones.
  clock_.Advance(absl::Hours(1) + absl::Seconds(1));
  create(v1::PRIORITY_NORMAL);
  Tick();  // the worker has been silent for long: its job is back in its place
  EXPECT_EQ(Acquire().lease().job(), high);
  EXPECT_EQ(Acquire().lease().job(), normal);
  EXPECT_EQ(Acquire().lease().job(), low);
}

TEST_F(SchedulerTest, JobsForCudaGoToWorkersThatHaveIt) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->set_device("cuda");
  const std::string job = CreateJob(request);
  EXPECT_FALSE(Acquire("cpu-only").has_lease());
  Answer answer;
  scheduler_->Acquire(kWorker, AcquireRequest("gpu", absl::ZeroDuration(), "cuda:0"),
                      [&](auto got) { answer = got; });
  Tick();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ((*answer)->lease().job(), job);
}

TEST_F(SchedulerTest, AWorkerOfAnotherMinorVersionIsRefused) {
  v1::AcquireLeaseRequest request = AcquireRequest("w");
  request.mutable_worker()->set_version("0.2.0");
  Answer answer;
  EXPECT_EQ(scheduler_->Acquire(kWorker, request, [&](auto got) { answer = got; }), 0);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(answer->status()), "VERSION_MISMATCH");
  EXPECT_THAT(std::string(answer->status().message()),
              testing::AllOf(HasSubstr("0.2.0"), HasSubstr("0.1.0")));
}

TEST_F(SchedulerTest, AnAbandonedWaitTakesNoJob) {
  bool called = false;
  const int64_t ticket = scheduler_->Acquire(kWorker, AcquireRequest("w", absl::Seconds(10)),
                                             [&](auto) { called = true; });
  EXPECT_TRUE(scheduler_->Abandon(ticket));
  EXPECT_FALSE(scheduler_->Abandon(ticket));
  const std::string job = CreateJob();
  Tick();
  EXPECT_FALSE(called);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
}

TEST_F(SchedulerTest, ASilentWorkerLosesItsJobAndIsFencedOff) {
  const std::string job = CreateJob();
  const v1::Lease lost = Acquire("silent").lease();
  clock_.Advance(absl::Seconds(29));
  ASSERT_TRUE(Heartbeat(lost).ok());
  EXPECT_EQ(observer_["renewed"], 1);
  clock_.Advance(absl::Seconds(29));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  clock_.Advance(absl::Seconds(1));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_QUEUED);
  const v1::Lease next = Acquire("other").lease();
  EXPECT_EQ(next.lease_epoch(), 2);
  EXPECT_EQ(next.attempt(), 2);

  const absl::Status late = Complete(lost, Succeeded());
  EXPECT_EQ(late.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(late), kLeaseLost);
  EXPECT_EQ(ReasonOf(Heartbeat(lost).status()), kLeaseLost);
  EXPECT_EQ(observer_["complete"], 1);
  EXPECT_EQ(observer_["heartbeat"], 1);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Complete(next, Succeeded()).ok());
}

TEST_F(SchedulerTest, ThreeLostLeasesFailTheJob) {
  const std::string job = CreateJob();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Acquire().has_lease());
    clock_.Advance(absl::Seconds(30));
    Tick();
  }
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_FAILED);
  EXPECT_EQ(GetJob(job).status().error().reason(), "WORKER_LOST");
}

TEST_F(SchedulerTest, OnOneMachineAttemptsThatEndWithTheServerDoNotCount) {
  policy_.one_machine = true;
  Restart();
  const std::string job = CreateJob();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Acquire().has_lease()) << i;
    Restart();  // server and worker were killed
    clock_.Advance(absl::Seconds(30));
    Tick();
    ASSERT_EQ(StateOf(job), v1::JOB_STATE_QUEUED) << i;
  }
  // A worker that outlives the server and is lost later counts as ever.
  for (int i = 0; i < 3; ++i) {
    const v1::Lease lease = Acquire().lease();
    Restart();
    ASSERT_TRUE(Heartbeat(lease).ok());
    clock_.Advance(absl::Seconds(30));
    Tick();
  }
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_FAILED);
}

TEST_F(SchedulerTest, ALeaseOfAnUnknownJobIsLost) {
  v1::Lease lease;
  lease.set_job("jobs/gone");
  EXPECT_EQ(ReasonOf(Heartbeat(lease).status()), kLeaseLost);
  lease.set_job("gone");
  EXPECT_EQ(Heartbeat(lease).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SchedulerTest, CancellationReachesTheWorkerAndEndsTheJob) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Cancel(job);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_CANCELLING);
  const auto heartbeat = Heartbeat(lease);
  ASSERT_TRUE(heartbeat.ok());
  EXPECT_EQ(heartbeat->command(), v1::ATTEMPT_COMMAND_CANCEL);
  v1::CompleteAttemptRequest stopped;
  stopped.mutable_cancelled();
  ASSERT_TRUE(Complete(lease, stopped).ok());
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_CANCELLED);
}

TEST_F(SchedulerTest, ACancelledJobWhoseWorkerDiedIsCancelledWhenItsLeaseEnds) {
  const std::string job = CreateJob();
  Acquire();
  Cancel(job);
  clock_.Advance(absl::Seconds(30));
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_CANCELLED);
}

TEST_F(SchedulerTest, APublishedJobStaysSucceededWhenCancelledTooLate) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Cancel(job);
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  Cancel(job);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(SchedulerTest, APauseReachesTheWorkerAndAResumeTheNext) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Pause(job);
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_PAUSING);
  const auto heartbeat = Heartbeat(lease);
  ASSERT_TRUE(heartbeat.ok());
  EXPECT_EQ(heartbeat->command(), v1::ATTEMPT_COMMAND_PAUSE);
  v1::CompleteAttemptRequest paused;
  paused.mutable_paused();
  ASSERT_TRUE(Complete(lease, paused).ok());
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_PAUSED);
  EXPECT_TRUE(Complete(lease, paused).ok()) << "a repeat is allowed";
  Restart();
  EXPECT_FALSE(Acquire().has_lease());
  Resume(job);
  EXPECT_EQ(Acquire().lease().attempt(), 2);
  EXPECT_EQ(GetJob(job).status().max_attempts(), 4);
}

TEST_F(SchedulerTest, AWorkerThatNeverHeardOfPausesCannotHoldAJob) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire("old").lease();
  Pause(job);
  for (int seconds : {20, 10, 0}) {
    clock_.Advance(absl::Seconds(10));
    const auto heartbeat = Heartbeat(lease);
    ASSERT_TRUE(heartbeat.ok());
    EXPECT_EQ(heartbeat->lease_duration().seconds(), seconds);
  }
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(ReasonOf(Heartbeat(lease).status()), kLeaseLost);
  EXPECT_EQ(ReasonOf(Complete(lease, Succeeded())), kLeaseLost);
}

TEST_F(SchedulerTest, AWorkerThatIsPausingKeepsItsLeaseUntilItHasStopped) {
  const std::string job = CreateJob();
  v1::HeartbeatRequest request;
  *request.mutable_lease() = Acquire().lease();
  request.set_obeying(v1::ATTEMPT_COMMAND_PAUSE);
  Pause(job);
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(absl::Seconds(20));
    const auto heartbeat = scheduler_->Heartbeat(kWorker, request);
    ASSERT_TRUE(heartbeat.ok()) << heartbeat.status();
    EXPECT_EQ(heartbeat->lease_duration().seconds(), 30);
    Tick();
  }
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_PAUSING);
}

TEST_F(SchedulerTest, DeadlinesGoOnWhileAJobIsPaused) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_deadline()->set_seconds(20);
  const std::string job = CreateJob(request);
  Pause(job);
  clock_.Advance(absl::Seconds(20));
  Tick();
  EXPECT_EQ(GetJob(job).status().error().reason(), "JOB_DEADLINE");
}

TEST_F(SchedulerTest, DeadlinesFailQueuedAndRunningJobs) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_deadline()->set_seconds(20);
  const std::string running = CreateJob(request);
  const std::string queued = CreateJob(request);
  const v1::Lease lease = Acquire().lease();
  clock_.Advance(absl::Seconds(20));
  Tick();
  EXPECT_EQ(StateOf(running), v1::JOB_STATE_FAILED);
  EXPECT_EQ(StateOf(queued), v1::JOB_STATE_FAILED);
  EXPECT_EQ(GetJob(running).status().error().reason(), "JOB_DEADLINE");
  EXPECT_EQ(ReasonOf(Heartbeat(lease).status()), kLeaseLost);
}

TEST_F(SchedulerTest, AfterARestartLeasesHaveTheirFullTime) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  clock_.Advance(absl::Minutes(10));  // the server was down
  Restart();
  Tick();
  EXPECT_EQ(StateOf(job), v1::JOB_STATE_RUNNING);
  clock_.Advance(absl::Seconds(29));
  Tick();
  EXPECT_TRUE(Heartbeat(lease).ok());
  EXPECT_TRUE(Complete(lease, Succeeded()).ok());
}

TEST_F(SchedulerTest, AFailedJobIsOfferedAgainAfterItsBackoff) {
  const std::string job = CreateJob();
  v1::CompleteAttemptRequest failed;
  failed.mutable_error()->set_reason("CHILD_CRASHED");
  failed.mutable_error()->set_error_class(v1::ERROR_CLASS_SYSTEM);
  failed.mutable_error()->set_retryable(true);
  ASSERT_TRUE(Complete(Acquire().lease(), failed).ok());
  EXPECT_FALSE(Acquire().has_lease());
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Acquire().lease().job(), job);
}

TEST_F(SchedulerTest, DrainingRefusesWaitingAndNewWorkers) {
  Answer waiting;
  Answer late;
  scheduler_->Acquire(kWorker, AcquireRequest("a", absl::Seconds(10)),
                      [&](auto got) { waiting = got; });
  scheduler_->Drain();
  scheduler_->Acquire(kWorker, AcquireRequest("b", absl::Seconds(10)),
                      [&](auto got) { late = got; });
  for (const Answer& answer : {waiting, late}) {
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ReasonOf(answer->status()), kDraining);
  }
}

TEST_F(SchedulerTest, ListsWorkersWithTheirLeasesByPage) {
  const std::string job = CreateJob();
  Acquire("b");
  Acquire("a");
  Acquire("c");
  v1::ListWorkersRequest request;
  request.set_page_size(2);
  auto page = scheduler_->ListWorkers(request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->workers_size(), 2);
  EXPECT_EQ(page->workers(0).info().name(), "a");
  EXPECT_EQ(page->workers(1).info().name(), "b");
  ASSERT_EQ(page->workers(1).leases_size(), 1);
  EXPECT_EQ(page->workers(1).leases(0).job(), job);
  request.set_page_token(page->next_page_token());
  page = scheduler_->ListWorkers(request);
  ASSERT_EQ(page->workers_size(), 1);
  EXPECT_EQ(page->workers(0).info().name(), "c");
  EXPECT_EQ(page->next_page_token(), "");
  clock_.Advance(absl::Minutes(5));
  EXPECT_EQ(scheduler_->ListWorkers(v1::ListWorkersRequest())->workers_size(), 0);
}

TEST_F(SchedulerTest, ACompletionWithoutAnOutcomeIsRefused) {
  CreateJob();
  EXPECT_EQ(Complete(Acquire().lease(), {}).code(), absl::StatusCode::kInvalidArgument);
}

// Many workers and clients at once, with the real thread: for ThreadSanitizer, and
// because each job must run exactly once.
TEST_F(SchedulerTest, ManyWorkersRunEachJobOnce) {
  constexpr int kJobs = 40;
  constexpr int kWorkers = 4;
  const Maintenance maintenance([this] { return scheduler_->Tick(); }, wakeup_,
                                absl::Milliseconds(5));
  absl::Mutex mutex;
  std::multiset<std::string> ran;
  std::vector<std::thread> threads;
  for (int w = 0; w < kWorkers; ++w) {
    threads.emplace_back([&, w] {
      while (true) {
        Answer answer;
        Wakeup answered;
        scheduler_->Acquire(kWorker, AcquireRequest(absl::StrCat("w", w)), [&](auto got) {
          answer = std::move(got);
          answered.Poke();
        });
        answered.Wait(absl::InfiniteDuration());
        if (answer->ok() && (*answer)->has_lease()) {
          EXPECT_TRUE(Complete((*answer)->lease(), Succeeded()).ok());
          absl::MutexLock lock(&mutex);
          ran.insert((*answer)->lease().job());
        }
        absl::MutexLock lock(&mutex);
        if (ran.size() >= kJobs) return;
      }
    });
  }
  std::set<std::string> created;
  for (int i = 0; i < kJobs; ++i) created.insert(CreateJob());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created.size(), size_t{kJobs});
  EXPECT_EQ(ran, std::multiset<std::string>(created.begin(), created.end()));
}

TEST_F(SchedulerTest, WhatIsOverdueIsNotLookedForWithEveryJobThatIsQueued) {
  Tick();
  faulty_.TakeCalls("LeasesEndingBy");
  for (int i = 0; i < 10; ++i) {
    CreateJob();
    Tick();
  }
  EXPECT_EQ(faulty_.TakeCalls("LeasesEndingBy"), 0);
  clock_.Advance(absl::Milliseconds(250));
  Tick();
  EXPECT_EQ(faulty_.TakeCalls("LeasesEndingBy"), 1);
}

TEST_F(SchedulerTest, AWallClockSetBackHoldsNothingUp) {
  Answer answer;
  scheduler_->Acquire(kWorker, AcquireRequest("w", absl::Seconds(10)),
                      [&](auto got) { answer = std::move(got); });
  Tick();
  faulty_.TakeCalls("LeasesEndingBy");
  clock_.StepWall(-absl::Hours(1));
  clock_.Advance(absl::Seconds(10));
  Tick();
  EXPECT_EQ(faulty_.TakeCalls("LeasesEndingBy"), 1);
  ASSERT_TRUE(answer.has_value());
  EXPECT_FALSE((*answer)->has_lease());
}

}  // namespace
}  // namespace latentforge::service
