#include "base/file_lock.h"

#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

using testing::HasSubstr;

class FileLockTest : public testing::Test {
 protected:
  ~FileLockTest() override { std::filesystem::remove(path_); }

  const std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) / absl::StrCat("file_lock_", getpid());
};

TEST_F(FileLockTest, OneHoldsItAndIsNamed) {
  {
    const auto lock = FileLock::Acquire(path_);
    ASSERT_TRUE(lock.ok()) << lock.status();
    EXPECT_TRUE(lock->made());
    const absl::Status second = FileLock::Acquire(path_).status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(second.message(), HasSubstr(absl::StrCat("process ", getpid())));
  }
  const auto again = FileLock::Acquire(path_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->made());
}

TEST_F(FileLockTest, AKilledHolderHoldsNothing) {
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FileLock::Acquire(path_);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(FileLock::Acquire(path_).ok());
}

TEST_F(FileLockTest, LeavesNoFileWhenToldSo) {
  {
    auto lock = FileLock::Acquire(path_);
    ASSERT_TRUE(lock.ok()) << lock.status();
    lock->RemoveFile();
    EXPECT_FALSE(std::filesystem::exists(path_));
  }
  EXPECT_TRUE(FileLock::Acquire(path_)->made());
}

TEST_F(FileLockTest, SaysWhyThereIsNone) {
  EXPECT_EQ(FileLock::Acquire(path_ / "none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace latentforge
