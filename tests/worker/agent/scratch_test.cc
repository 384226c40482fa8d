#include "worker/agent/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;

class ScratchTest : public testing::Test {
 protected:
  ScratchTest() {
    fs::remove_all(root_);
    auto scratch = Scratch::Open(root_);
    EXPECT_TRUE(scratch.ok()) << scratch.status();
    scratch_ = *std::move(scratch);
  }
  ~ScratchTest() override { fs::remove_all(root_.parent_path()); }

  static mode_t Mode(const fs::path& path) {
    struct stat info = {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }

  const fs::path root_ =
      fs::path(testing::TempDir()) / absl::StrCat("scratch_test_", getpid()) / "root";
  std::unique_ptr<Scratch> scratch_;
};

TEST_F(ScratchTest, FoldersAreOursAlone) {
  const auto folder = scratch_->Acquire("jobs/abc-1");
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(*folder, root_ / "abc-1");
  EXPECT_EQ(Mode(root_), 0700u);
  EXPECT_EQ(Mode(*folder), 0700u);
}

TEST_F(ScratchTest, KeepsOrRemovesWhatAnAttemptLeaves) {
  const auto folder = scratch_->Acquire("jobs/a");
  ASSERT_TRUE(folder.ok()) << folder.status();
  std::ofstream(*folder / "layer.0") << "work";
  scratch_->Release("jobs/a", /*keep=*/true);
  EXPECT_TRUE(fs::exists(*folder / "layer.0"));
  ASSERT_TRUE(scratch_->Acquire("jobs/a").ok());
  EXPECT_TRUE(fs::exists(*folder / "layer.0"));
  scratch_->Release("jobs/a", /*keep=*/false);
  EXPECT_FALSE(fs::exists(*folder));
  EXPECT_TRUE(fs::exists(root_));
}

TEST_F(ScratchTest, RefusesNamesThatAreNoJobs) {
  for (const std::string name :
       {"", "jobs/", "jobs/..", "jobs/.", "jobs/a/b", "jobs/../x", "workers/a", "a", "jobs/a b"}) {
    EXPECT_EQ(scratch_->Acquire(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
    scratch_->Release(name, /*keep=*/false);
  }
  EXPECT_TRUE(fs::exists(root_));
  EXPECT_FALSE(scratch_->Acquire("jobs/" + std::string(200, 'a')).ok());
}

TEST_F(ScratchTest, RefusesALinkInPlaceOfAFolder) {
  fs::create_directories(root_.parent_path() / "elsewhere");
  fs::create_directory_symlink(root_.parent_path() / "elsewhere", root_ / "a");
  EXPECT_EQ(scratch_->Acquire("jobs/a").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ScratchTest, RefusesARootThatIsAFile) {
  std::ofstream(root_ / "file") << "x";
  EXPECT_FALSE(Scratch::Open(root_ / "file").ok());
}

TEST_F(ScratchTest, SweepsOnlyOldUnusedFoldersOfJobs) {
  const auto released = scratch_->Acquire("jobs/released");
  scratch_->Release("jobs/released", /*keep=*/true);
  const auto used = scratch_->Acquire("jobs/used");
  const auto locked = scratch_->Acquire("jobs/locked");
  scratch_->Release("jobs/locked", /*keep=*/true);
  ASSERT_TRUE(released.ok() && used.ok() && locked.ok());
  const UniqueFd lock(open((*locked / "lock").c_str(), O_CREAT | O_RDWR, 0600));
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  fs::create_directory(root_ / "photos");  // not ours

  const absl::Time now = absl::Now();
  scratch_->Sweep(absl::Hours(1), now);
  EXPECT_TRUE(fs::exists(*released)) << "it is young";
  scratch_->Sweep(absl::Hours(1), now + absl::Hours(2));
  EXPECT_FALSE(fs::exists(*released));
  EXPECT_TRUE(fs::exists(*used));
  EXPECT_TRUE(fs::exists(*locked));
  EXPECT_TRUE(fs::exists(root_ / "photos"));
}

}  // namespace
}  // namespace latentforge::agent
