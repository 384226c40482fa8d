#include "base/program.h"

#include "gtest/gtest.h"

namespace latentforge {
namespace {

TEST(ProgramTest, SaysWhyAFileCannotBeRun) {
  EXPECT_TRUE(CheckProgram("/bin/sh").ok());
  EXPECT_EQ(CheckProgram("/no/such/program"),
            absl::NotFoundError("/no/such/program does not exist"));
  EXPECT_EQ(CheckProgram("/tmp"), absl::FailedPreconditionError("/tmp is not a file"));
  EXPECT_EQ(CheckProgram("/etc/passwd"),
            absl::PermissionDeniedError("/etc/passwd may not be run by this user"));
}

}  // namespace
}  // namespace latentforge
