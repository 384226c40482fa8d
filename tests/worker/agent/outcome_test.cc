#include "worker/agent/outcome.h"

#include <signal.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::HasSubstr;

AttemptFacts Ended(int code, int signal = 0) {
  AttemptFacts facts;
  facts.exit = ExitStatus{.code = code, .signal = signal};
  facts.phase = v1::PHASE_CALIBRATING;
  return facts;
}

AttemptFacts WithResult(AttemptFacts facts) {
  facts.result.emplace().set_artifact_uri("file:///out");
  return facts;
}

AttemptFacts Stopped(AttemptFacts facts, StopReason stop) {
  facts.stop = stop;
  return facts;
}

v1::ConversionError ErrorOf(const AttemptFacts& facts) {
  const auto outcome = DecideOutcome(facts);
  EXPECT_TRUE(outcome.has_value() && outcome->has_error());
  return outcome.has_value() ? outcome->error() : v1::ConversionError();
}

TEST(OutcomeTest, SuccessNeedsResultAndExitZero) {
  EXPECT_EQ(DecideOutcome(WithResult(Ended(0)))->result().artifact_uri(), "file:///out");
  EXPECT_EQ(ErrorOf(Ended(0)).reason(), "WORKER_CRASHED");
  EXPECT_THAT(ErrorOf(Ended(0)).message(), HasSubstr("exit code 0 without a result"));
  EXPECT_THAT(ErrorOf(WithResult(Ended(1))).message(), HasSubstr("after it had reported a result"));
  EXPECT_THAT(ErrorOf(WithResult(Ended(0, SIGABRT))).message(), HasSubstr("SIGABRT"));
}

TEST(OutcomeTest, ACrashNamesSignalPhaseAndLastLines) {
  AttemptFacts facts = Ended(0, SIGSEGV);
  facts.stderr_tail = {"loading", "bad pointer"};
  const v1::ConversionError error = ErrorOf(facts);
  EXPECT_EQ(error.reason(), "WORKER_CRASHED");
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_EQ(error.phase(), v1::PHASE_CALIBRATING);
  EXPECT_TRUE(error.retryable());
  EXPECT_THAT(error.message(), HasSubstr("signal SIGSEGV"));
  EXPECT_THAT(error.message(), HasSubstr("loading | bad pointer"));
}

TEST(OutcomeTest, ASigkillMeansMemoryWhereTheKernelSaysSo) {
  AttemptFacts by_hand = Ended(0, SIGKILL);
  by_hand.stderr_tail = {"layer 3"};
  EXPECT_EQ(ErrorOf(by_hand).reason(), "WORKER_CRASHED");
  EXPECT_THAT(ErrorOf(by_hand).message(), HasSubstr("or the kernel when memory ran out; its last"));
  by_hand.memory_ran_out = false;
  EXPECT_EQ(ErrorOf(by_hand).reason(), "WORKER_CRASHED");
  EXPECT_THAT(ErrorOf(by_hand).message(), HasSubstr("signal SIGKILL: somebody killed it; the ker"));

  AttemptFacts by_kernel = Ended(0, SIGKILL);
  by_kernel.memory_ran_out = true;
  const v1::ConversionError error = ErrorOf(by_kernel);
  EXPECT_EQ(error.reason(), "OUT_OF_MEMORY");
  EXPECT_EQ(error.error_class(), v1::ERROR_CLASS_RESOURCE);
  EXPECT_TRUE(error.retryable());

  AttemptFacts gpu = Ended(0, SIGABRT);
  gpu.stderr_tail = {"CUDA error: out of memory"};
  EXPECT_EQ(ErrorOf(gpu).reason(), "GPU_OUT_OF_MEMORY");

  AttemptFacts overdue = WithResult(Ended(0, SIGKILL));
  overdue.overdue = true;
  EXPECT_EQ(ErrorOf(overdue).reason(), "WORKER_CRASHED");
}

TEST(OutcomeTest, PassesTheProcesssOwnErrorOn) {
  AttemptFacts facts = Ended(1);
  facts.error.emplace().set_reason("BAD_SOURCE");
  facts.error->set_error_class(v1::ERROR_CLASS_USER);
  EXPECT_EQ(ErrorOf(facts).reason(), "BAD_SOURCE");
  EXPECT_FALSE(ErrorOf(facts).retryable());
  facts.exit = ExitStatus{.signal = SIGSEGV};
  EXPECT_EQ(ErrorOf(facts).reason(), "BAD_SOURCE");
  EXPECT_EQ(ErrorOf(Stopped(facts, StopReason::kRelease)).reason(), "BAD_SOURCE");
}

TEST(OutcomeTest, ABadLineOutweighsTheExit) {
  AttemptFacts facts = WithResult(Ended(0));
  facts.stream = absl::InvalidArgumentError("line 3 is no event");
  EXPECT_EQ(ErrorOf(facts).reason(), "EVENT_STREAM_INVALID");
  EXPECT_EQ(ErrorOf(facts).error_class(), v1::ERROR_CLASS_SYSTEM);
  EXPECT_THAT(ErrorOf(facts).message(), HasSubstr("line 3"));
}

TEST(OutcomeTest, AStopEndsAsWhatItWas) {
  const AttemptFacts killed = Ended(0, SIGKILL);
  EXPECT_TRUE(DecideOutcome(Stopped(killed, StopReason::kCancel))->has_cancelled());
  EXPECT_TRUE(DecideOutcome(Stopped(Ended(5), StopReason::kCancel))->has_cancelled());
  EXPECT_TRUE(DecideOutcome(Stopped(Ended(5), StopReason::kPause))->has_paused());
  EXPECT_TRUE(DecideOutcome(Stopped(killed, StopReason::kPause))->has_paused());
  EXPECT_TRUE(DecideOutcome(Stopped(Ended(5), StopReason::kRelease))->has_released());
  EXPECT_TRUE(DecideOutcome(Stopped(killed, StopReason::kLeaseDeadline))->has_released());
  EXPECT_FALSE(DecideOutcome(Stopped(killed, StopReason::kLeaseLost)).has_value());
  EXPECT_FALSE(DecideOutcome(Stopped(WithResult(Ended(0)), StopReason::kLeaseLost)).has_value());
}

TEST(OutcomeTest, AResultThatWonTheRaceStands) {
  for (const StopReason stop : {StopReason::kPause, StopReason::kCancel, StopReason::kRelease,
                                StopReason::kLeaseDeadline}) {
    EXPECT_TRUE(DecideOutcome(Stopped(WithResult(Ended(0)), stop))->has_result());
  }
}

TEST(OutcomeTest, AnInterruptionFromElsewhereReleases) {
  EXPECT_TRUE(DecideOutcome(Ended(5))->has_released());
}

TEST(OutcomeTest, PreparationErrorsSayWhoHasToAct) {
  AttemptFacts full;
  full.scratch = absl::ResourceExhaustedError("write /scratch/1/spec.json: No space left");
  EXPECT_EQ(ErrorOf(full).reason(), "SCRATCH_FULL");
  EXPECT_EQ(ErrorOf(full).error_class(), v1::ERROR_CLASS_RESOURCE);
  AttemptFacts denied;
  denied.scratch = absl::PermissionDeniedError("make folder /scratch/1: Permission denied");
  EXPECT_EQ(ErrorOf(denied).reason(), "SCRATCH_UNUSABLE");
  AttemptFacts absent;
  absent.start = absl::NotFoundError("start /bin/none: No such file");
  EXPECT_EQ(ErrorOf(absent).reason(), "WORKER_MISCONFIGURED");
  EXPECT_EQ(ErrorOf(absent).error_class(), v1::ERROR_CLASS_SYSTEM);
}

TEST(OutcomeTest, ScratchIsKeptOnlyForALaterAttempt) {
  EXPECT_TRUE(KeepsScratch(*DecideOutcome(Ended(0, SIGSEGV))));
  EXPECT_TRUE(KeepsScratch(*DecideOutcome(Stopped(Ended(5), StopReason::kRelease))));
  EXPECT_TRUE(KeepsScratch(*DecideOutcome(Stopped(Ended(5), StopReason::kPause))));
  EXPECT_FALSE(KeepsScratch(*DecideOutcome(Stopped(Ended(5), StopReason::kCancel))));
  EXPECT_FALSE(KeepsScratch(*DecideOutcome(WithResult(Ended(0)))));
  AttemptFacts user = Ended(1);
  user.error.emplace().set_error_class(v1::ERROR_CLASS_USER);
  EXPECT_FALSE(KeepsScratch(*DecideOutcome(user)));
}

}  // namespace
}  // namespace latentforge::agent
