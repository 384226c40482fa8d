#include "client/error.h"

#include "base/json.h"
#include "base/status_macros.h"
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
            "error: kvBudget is 2, expected (0, 1] [INVALID_FIELD]\n"
            "  spec.budget.kv_budget: is 2\n"
            "  spec.device: is \"x\"\n"
            "next: correct it\n");
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
