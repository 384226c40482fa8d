// T21 and T22 without threads: whatever comes in whatever order, a job has one end, keeps it, and
// never waits for a worker that is gone.
#include <random>
#include <string>
#include <vector>

#include "tests/service/job_state_fixture.h"

namespace latentforge::service {
namespace {

// One job, a user, and a worker that may be late.
class RandomLife {
 public:
  explicit RandomLife(uint64_t seed) : random_(seed) {}

  void Run() {
    for (int step = 0; step < 24; ++step) {
      now_ += absl::Seconds(Below(20));
      Apply(Any());
    }
    // The worker is gone: time alone takes the job from it.
    now_ += kLease30;
    Apply(command::ExpireLease{});
    EXPECT_FALSE(HoldsLease(state())) << v1::JobState_Name(state());
    // And a cancellation ends it.
    const v1::JobState before = state();
    Apply(command::Cancel{});
    EXPECT_TRUE(IsTerminal(state()));
    EXPECT_TRUE(!IsTerminal(before) || state() == before) << v1::JobState_Name(before);
    EXPECT_EQ(ends_, retries_ + 1) << "ends that nobody took back";
  }

 private:
  v1::JobState state() const { return record_.job.status().state(); }
  int64_t Below(int64_t bound) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(bound));
  }

  // Mostly the lease that holds, sometimes the one before.
  LeaseRef Lease() {
    const int64_t back = Below(8) == 0 ? 1 : 0;
    return {record_.job.status().attempt() - static_cast<int32_t>(back),
            record_.lease_epoch - back};
  }

  Command Any() {
    switch (Below(14)) {
      case 0:
      case 1:
        return command::Claim{"w", kLease30};
      case 2:
        return command::Extend{Lease(), kLease30, Below(2) == 0};
      case 3:
        return command::Report{Lease(), {}, kLease30};
      case 4:
        return command::Succeed{Lease(), {}};
      case 5:
        return command::Fail{Lease(), Error(v1::ERROR_CLASS_SYSTEM, Below(4) != 0)};
      case 6:
        return command::Stop{Lease()};
      case 7:
        return command::Halt{Lease()};
      case 8:
        return command::Release{Lease()};
      case 9:
        return command::ExpireLease{};
      case 10:
        return command::Cancel{};
      case 11:
        return command::Pause{};
      case 12:
        return command::Resume{};
      default:
        return command::Retry{};
    }
  }

  void Apply(const Command& command) {
    const absl::StatusOr<Transition> decided = Decide(record_, command, now_);
    const bool cancel = std::holds_alternative<command::Cancel>(command);
    EXPECT_TRUE(decided.ok() || !cancel) << "a cancellation is never refused";
    if (!decided.ok() || !decided->changed) return;
    const bool retry = std::holds_alternative<command::Retry>(command);
    if (IsTerminal(state()) && !decided->events.empty()) {
      EXPECT_TRUE(retry && state() != v1::JOB_STATE_SUCCEEDED) << "an end that changed";
    }
    retries_ += retry ? 1 : 0;
    for (const v1::JobEvent& event : decided->events) {
      EXPECT_EQ(event.sequence(), ++sequence_);
      ends_ += IsTerminal(event.state_changed().state()) ? 1 : 0;
    }
    record_ = decided->next;
    EXPECT_EQ(record_.job.last_sequence(), sequence_);
  }

  std::mt19937_64 random_;
  absl::Time now_ = kNow;
  JobRecord record_ = Queued();
  int64_t sequence_ = 1;
  int ends_ = 0;
  int retries_ = 0;
};

TEST(RandomTransitionsTest, AJobHasOneEndAndIsNeverStuck) {
  for (uint64_t seed = 0; seed < 20'000 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomLife(seed).Run();
  }
}

}  // namespace
}  // namespace latentforge::service
