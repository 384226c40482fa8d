// T21 and T22 with threads: a user, a worker and time meet over one job.
#include <random>
#include <thread>
#include <vector>

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class RacesTest : public SchedulerFixture {
 protected:
  // One of the things that a worker may say at the end of its attempt.
  static v1::CompleteAttemptRequest AnyOutcome(std::mt19937_64& random) {
    v1::CompleteAttemptRequest request = Succeeded();
    switch (random() % 5) {
      case 0:
        request.mutable_cancelled();
        break;
      case 1:
        request.mutable_paused();
        break;
      case 2:
        request.mutable_released();
        break;
      case 3:
        request.mutable_error()->set_reason("WORKER_CRASHED");
        break;
      default:
        break;
    }
    return request;
  }

  void AnyWish(const std::string& job, std::mt19937_64& random) {
    const auto ask = [&](auto request, auto method) {
      request.set_name(job);
      const auto answer = (*jobs_.*method)(request);
      EXPECT_TRUE(answer.ok() || absl::IsFailedPrecondition(answer.status())) << answer.status();
    };
    switch (random() % 4) {
      case 0:
        return ask(v1::PauseJobRequest(), &JobsOf::Pause);
      case 1:
        return ask(v1::ResumeJobRequest(), &JobsOf::Resume);
      default:
        return Cancel(job);
    }
  }

  std::mt19937_64 random_{7};

  // Dense, with one end, which is the job's.
  void CheckLog(const std::string& job) {
    const auto events = store_->Events(job.substr(5), 0, 1000);
    ASSERT_TRUE(events.ok()) << events.status();
    int64_t sequence = 0;
    int ends = 0;
    for (const v1::JobEvent& event : *events) {
      EXPECT_EQ(event.sequence(), ++sequence);
      ends += IsTerminal(event.state_changed().state()) ? 1 : 0;
    }
    EXPECT_EQ(ends, 1);
    EXPECT_EQ(events->back().state_changed().state(), StateOf(job));
  }
};

TEST_F(RacesTest, OneEndWhoeverIsFirst) {
  for (uint64_t round = 0; round < 60 && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const std::string job = CreateJob();
    std::vector<std::thread> threads;
    // A second user from the start, so that the claim is raced for too.
    threads.emplace_back([&, round] {
      std::mt19937_64 random(round);
      for (int i = 0; i < 3; ++i) AnyWish(job, random);
    });
    Answer answer;
    scheduler_->Acquire(kWorker, AcquireRequest("w"), [&](auto got) { answer = std::move(got); });
    Tick();
    if (answer.has_value() && answer->ok() && (*answer)->has_lease()) {
      threads.emplace_back([&, round, lease = (*answer)->lease()] {
        std::mt19937_64 random(round + 1000);
        const absl::StatusOr<v1::HeartbeatResponse> beat = Heartbeat(lease);
        EXPECT_TRUE(beat.ok() || ReasonOf(beat.status()) == "LEASE_LOST") << beat.status();
        const absl::Status told = Complete(lease, AnyOutcome(random));
        EXPECT_TRUE(told.ok() || ReasonOf(told) == "LEASE_LOST") << told;
      });
      threads.emplace_back([&] {
        std::mt19937_64 random(round + 2000);
        AnyWish(job, random);
      });
    }
    clock_.Advance(absl::Seconds(random_() % 40));
    Tick();
    for (std::thread& thread : threads) thread.join();
    // Whatever they left: time and a cancellation end it.
    clock_.Advance(absl::Minutes(1));
    Tick();
    Cancel(job);
    EXPECT_TRUE(IsTerminal(StateOf(job))) << GetJob(job).ShortDebugString();
    const v1::JobState end = StateOf(job);
    Cancel(job);
    EXPECT_EQ(StateOf(job), end);
    CheckLog(job);
  }
}

}  // namespace
}  // namespace latentforge::service
