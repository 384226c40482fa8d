#include "client/error.h"

#include "base/json.h"
#include "base/status_macros.h"
#include "client/advice.h"
#include "client/exit_code.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

TEST(ExitCodeTest, EveryCodeOfTheHelpHasItsStatus) {
  EXPECT_EQ(ExitCodeForStatus(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeForStatus(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeForStatus(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCodeForStatus(absl::PermissionDeniedError("")), 4);
  EXPECT_EQ(ExitCodeForStatus(absl::UnauthenticatedError("")), 4);
  EXPECT_EQ(ExitCodeForStatus(absl::NotFoundError("")), 6);
  EXPECT_EQ(ExitCodeForStatus(absl::FailedPreconditionError("")), 7);
  EXPECT_EQ(ExitCodeForStatus(absl::AlreadyExistsError("")), 7);
  EXPECT_EQ(ExitCodeForStatus(absl::AbortedError("")), 7);
  EXPECT_EQ(ExitCodeForStatus(absl::UnavailableError("")), 9);
  EXPECT_EQ(ExitCodeForStatus(absl::DeadlineExceededError("")), 9);
  EXPECT_EQ(ExitCodeForStatus(absl::CancelledError("")), 130);
  EXPECT_EQ(ExitCodeForState(v1::JOB_STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeForState(v1::JOB_STATE_FAILED), 3);
  EXPECT_EQ(ExitCodeForState(v1::JOB_STATE_CANCELLED), 5);
  for (const char* code : {"  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "  6  ", "  7  ",
                           "  8  ", "  9  ", "130  "}) {
    EXPECT_THAT(ExitCodesHelp(), HasSubstr(code));
  }
}

absl::Status FullError() {
  absl::Status status = absl::InvalidArgumentError("kvBudget is 2, expected (0, 1]");
  status = WithViolations(status, {{"spec.budget.kv_budget", "is 2"}, {"spec.device", "is \"x\""}});
  status = WithReason(status, "INVALID_FIELD");
  return WithNextStep(status, "correct it");
}

TEST(ErrorTest, TextHasMessageReasonViolationsAndNextStep) {
  EXPECT_EQ(RenderErrorText(FullError()),
            "error: 2 settings are wrong [INVALID_FIELD]\n"
            "  --kv-budget is 2\n"
            "  --device is \"x\"\n"
            "next: correct it\n");
}

TEST(ErrorTest, OneViolationIsSaidOnceAndTheReasonGivesAdvice) {
  absl::Status status = absl::InvalidArgumentError("spec.output.uri: /a is not empty");
  status = WithViolations(status, {{"spec.output.uri", "/a is not empty"}});
  EXPECT_EQ(RenderErrorText(WithReason(status, "OUTPUT_NOT_EMPTY")),
            "error: --out: /a is not empty [OUTPUT_NOT_EMPTY]\n"
            "next: choose another --out, or remove the folder; nothing is overwritten\n");
}

TEST(ErrorTest, EveryErrorHasAReason) {
  EXPECT_EQ(RenderErrorText(absl::InvalidArgumentError("--x is 1")), "error: --x is 1 [USAGE]\n");
  EXPECT_EQ(RenderErrorText(WithExitCode(absl::DeadlineExceededError("late"), kExitWaitTimedOut)),
            "error: late [WAIT_TIMED_OUT]\n"
            "next: watch the job again: latentforge job watch JOB\n");
  EXPECT_EQ(RenderErrorText(absl::NotFoundError("none")),
            "error: none [NOT_FOUND]\n"
            "next: look whether the file or name in the message is right\n");
}

TEST(ErrorTest, EveryErrorButWrongUsageSaysWhatToDo) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "x");
    EXPECT_EQ(NextStepOf(status).empty(), ExitCodeOf(status) == kExitUsage) << status;
    // A reason that only a newer server knows.
    EXPECT_EQ(NextStepOf(WithReason(status, "NEW")).empty(), ExitCodeOf(status) == kExitUsage);
  }
}

TEST(AdviceTest, FieldsHaveTheNamesOfTheirFlags) {
  EXPECT_EQ(FlagOfField("spec.source.uri"), "MODEL");
  EXPECT_EQ(FlagOfField("spec.output.dtype"), "--output-dtype");
  EXPECT_EQ(FlagOfField("spec.calibration.corpora[1].uri"), "--calibration");
  EXPECT_EQ(FlagOfField("spec.calibration.corpora[1].text_field"), "--calibration-text-field");
  EXPECT_EQ(FlagOfField("spec.calibration.sequence_length"), "--sequence-length");
  EXPECT_EQ(FlagOfField("spec.evaluation.window_length"), "--window-length");
  EXPECT_EQ(FlagOfField("spec.new_thing.x"), "new_thing.x");
  EXPECT_EQ(FlagOfField("lease.job"), "lease.job");
}

TEST(AdviceTest, DescriptionsNameFlagsToo) {
  EXPECT_EQ(WithFlagNames("is 0.5, expected none beside max_perplexity_ratio"),
            "is 0.5, expected none beside --max-perplexity-ratio");
  // Paths, and fields that no flag sets, stay as they are.
  const std::string other = "/x/quality_gate is rank_k, expected \"allocation\"";
  EXPECT_EQ(WithFlagNames(other), other);
  EXPECT_EQ(WithFlagNames(""), "");
}

TEST(ErrorTest, JsonIsOneObjectOnOneLine) {
  const std::string text = RenderErrorJson(WithExitCode(FullError(), kExitJobFailed));
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const absl::StatusOr<Json> json = ParseJson(text);
  ASSERT_TRUE(json.ok()) << json.status();
  const Json& error = (*json)["error"];
  EXPECT_EQ(error["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(error["reason"], "INVALID_FIELD");
  EXPECT_EQ(error["exitCode"], 3);
  EXPECT_EQ(error["nextStep"], "correct it");
  ASSERT_EQ(error["fieldViolations"].size(), 2u);
  EXPECT_EQ(error["fieldViolations"][1]["description"], "is \"x\"");
}

TEST(ErrorTest, PayloadsSurviveAnnotation) {
  const absl::Status status = Annotate(WithExitCode(FullError(), kExitWaitTimedOut), "submit");
  EXPECT_EQ(ReasonOf(status), "INVALID_FIELD");
  EXPECT_EQ(ExitCodeOf(status), 8);
  EXPECT_EQ(ViolationsOf(status).size(), 2u);
}

}  // namespace
}  // namespace latentforge::client
