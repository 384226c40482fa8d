#include "base/file_confinement.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "base/file.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;

bool Opens(const fs::path& path, int flags = O_RDONLY) {
  return UniqueFd(open(path.c_str(), flags | O_CLOEXEC, 0600)).valid();
}

class FileConfinementTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    for (const char* name : {"inside", "outside", "texts"}) {
      fs::create_directories(folder_ / name);
      ASSERT_TRUE(WriteFileAtomic(folder_ / name / "file", name).ok());
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  // What `check` says in a process of its own that is confined to `roots`.
  static bool Confined(const FileRoots& roots, const std::function<bool()>& check) {
    const pid_t child = fork();
    if (child == 0) _exit(ConfineFiles(roots).ok() && check() ? 0 : 1);
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  fs::path folder_;
};

TEST_F(FileConfinementTest, NoLinkAndNoDotsLeadOut) {
  fs::create_symlink(folder_ / "outside" / "file", folder_ / "inside" / "link");
  fs::create_directory_symlink(folder_ / "outside", folder_ / "inside" / "folder");
  const FileRoots roots = {.read = {}, .write = {folder_ / "inside"}};
  EXPECT_TRUE(Confined(roots, [&] {
    return Opens(folder_ / "inside" / "file") && !Opens(folder_ / "outside" / "file") &&
           !Opens(folder_ / "inside" / "link") && !Opens(folder_ / "inside" / "folder" / "file") &&
           !Opens(folder_ / "inside" / ".." / "outside" / "file") &&
           !Opens(fs::path("/proc/self/root") / folder_.relative_path() / "outside" / "file") &&
           !Opens("/etc/passwd");
  }));
}

TEST_F(FileConfinementTest, ALinkMadeLaterLeadsNowhereEither) {
  EXPECT_TRUE(Confined({.read = {}, .write = {folder_ / "inside"}}, [&] {
    fs::remove(folder_ / "inside" / "file");
    fs::create_symlink(folder_ / "outside" / "file", folder_ / "inside" / "file");
    return !Opens(folder_ / "inside" / "file");
  }));
}

TEST_F(FileConfinementTest, WhatIsToBeReadIsNotWritten) {
  const FileRoots roots = {.read = {folder_ / "texts"}, .write = {folder_ / "inside"}};
  EXPECT_TRUE(Confined(roots, [&] {
    return Opens(folder_ / "texts" / "file") && !Opens(folder_ / "texts" / "file", O_WRONLY) &&
           !Opens(folder_ / "texts" / "new", O_WRONLY | O_CREAT) &&
           unlink((folder_ / "texts" / "file").c_str()) != 0 &&
           rename((folder_ / "inside" / "file").c_str(), (folder_ / "texts" / "x").c_str()) != 0 &&
           WriteFileAtomic(folder_ / "inside" / "new", "x").ok() &&
           RemoveTree(folder_ / "inside" / "new").ok();
  }));
}

TEST_F(FileConfinementTest, ASecondTimeNarrowsTheFirst) {
  EXPECT_TRUE(Confined({.read = {}, .write = {folder_ / "inside", folder_ / "texts"}}, [&] {
    return ConfineFiles({.read = {folder_ / "outside"}, .write = {folder_ / "texts"}}).ok() &&
           !Opens(folder_ / "inside" / "file") && !Opens(folder_ / "outside" / "file") &&
           Opens(folder_ / "texts" / "file");
  }));
}

TEST_F(FileConfinementTest, AFileMayBeARootAndAnAbsentOneAllowsNothing) {
  const FileRoots roots = {.read = {folder_ / "outside" / "file", folder_ / "absent"}, .write = {}};
  EXPECT_TRUE(Confined(roots, [&] {
    return Opens(folder_ / "outside" / "file") && !Opens(folder_ / "inside" / "file") &&
           !Opens(folder_ / "absent", O_WRONLY | O_CREAT);
  }));
}

TEST_F(FileConfinementTest, ProgramsStillRun) {
  EXPECT_TRUE(Confined(ProgramRoots(), [] {
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", "ls /usr >/dev/null", nullptr);
      _exit(127);
    }
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
           !Opens("/etc/passwd") && !Opens("/root") && Opens("/proc/self/status");
  }));
}

}  // namespace
}  // namespace latentforge
