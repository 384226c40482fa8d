#include "client/output_lock.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OutputLockTest : public testing::Test {
 protected:
  OutputLockTest() {
    fs::create_directories(root_ / "state");
    fs::create_directories(root_ / "real");
    fs::create_symlink("real", root_ / "link");
  }
  ~OutputLockTest() override { fs::remove_all(root_); }

  absl::StatusOr<OutputLock> Acquire(const std::string& output) {
    return OutputLock::Acquire(root_ / "state", (root_ / output).string());
  }

  const fs::path root_ = fs::path(testing::TempDir()) / absl::StrCat("output_lock_", getpid());
};

TEST_F(OutputLockTest, TheSecondIsRefusedAndToldWhoWrites) {
  {
    const auto first = Acquire("real/out");
    ASSERT_TRUE(first.ok()) << first.status();
    for (const char* same : {"real/out", "link/out", "real/./out/"}) {
      const absl::Status second = Acquire(same).status();
      EXPECT_EQ(ReasonOf(second), "OUTPUT_IN_USE") << same;
      EXPECT_THAT(second.message(), HasSubstr(absl::StrCat("process ", getpid())));
    }
    EXPECT_TRUE(Acquire("real/other").ok());
  }
  EXPECT_TRUE(fs::is_empty(root_ / "state"));
  EXPECT_TRUE(Acquire("real/out").ok());
}

}  // namespace
}  // namespace latentforge::client
