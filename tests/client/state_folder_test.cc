#include "client/state_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "client/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

GetEnvironment FakeEnvironment(const std::map<std::string, std::string>& values) {
  return [values](const char* name) -> std::optional<std::string> {
    const auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

std::filesystem::path NewRoot(const std::string& name) {
  const std::filesystem::path root = std::filesystem::path(testing::TempDir()) / name;
  std::filesystem::remove_all(root);
  return root;
}

TEST(StateRootTest, FollowsXdg) {
  EXPECT_EQ(DefaultStateRoot(FakeEnvironment({{"XDG_STATE_HOME", "/x"}, {"HOME", "/h"}})),
            "/x/latentforge");
  EXPECT_EQ(DefaultStateRoot(FakeEnvironment({{"XDG_STATE_HOME", ""}, {"HOME", "/h"}})),
            "/h/.local/state/latentforge");
  EXPECT_EQ(DefaultStateRoot(FakeEnvironment({})), "/tmp/latentforge-" + std::to_string(geteuid()));
}

TEST(SpecDigestTest, TellsSpecificationsApart) {
  v1::JobSpec spec;
  spec.mutable_budget()->set_kv_budget(0.5);
  const std::string half = SpecDigest(spec);
  EXPECT_EQ(half.size(), 32u);
  EXPECT_EQ(SpecDigest(spec), half);
  spec.mutable_budget()->set_kv_budget(0.25);
  EXPECT_NE(SpecDigest(spec), half);
}

TEST(StateFolderTest, IsPrivateLockedAndFoundAgain) {
  const std::filesystem::path root = NewRoot("state");
  {
    absl::StatusOr<StateFolder> first = StateFolder::Open(root, "d");
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_FALSE(first->existed());
    struct stat info = {};
    ASSERT_EQ(stat(first->path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    const absl::Status second = StateFolder::Open(root, "d").status();
    EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(second.message(), HasSubstr("runs already"));
  }
  absl::StatusOr<StateFolder> again = StateFolder::Open(root, "d");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->existed());
  EXPECT_TRUE(again->Remove().ok());
  EXPECT_FALSE(std::filesystem::exists(again->path()));
}

TEST(StateFolderTest, RefusesWhatOthersCanRead) {
  const std::filesystem::path root = NewRoot("open_state");
  std::filesystem::create_directories(root / "convert-d");
  ASSERT_EQ(chmod((root / "convert-d").c_str(), 0755), 0);
  EXPECT_EQ(StateFolder::Open(root, "d").status().code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::remove_all(root / "convert-d");
  std::filesystem::create_directory_symlink("/tmp", root / "convert-d");
  EXPECT_EQ(StateFolder::Open(root, "d").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(StateFolderTest, AFolderThatCannotBeMadeSaysWhatToDo) {
  const absl::Status status = StateFolder::Open("/proc/none", "d").status();
  EXPECT_EQ(status.message(), "work folder: creating folder /proc/none: No such file or directory");
  EXPECT_EQ(NextStepOf(status), "choose another folder: --work-dir");
}

TEST(StateFolderTest, SocketPathsFitTheKernel) {
  absl::StatusOr<StateFolder> folder = StateFolder::Open(NewRoot(std::string(120, 'x')), "d");
  ASSERT_TRUE(folder.ok()) << folder.status();
  const absl::StatusOr<std::filesystem::path> socket = folder->SocketPath();
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_LE(socket->native().size(), 107u);
  EXPECT_TRUE(std::filesystem::exists(socket->parent_path()));
  EXPECT_TRUE(folder->Remove().ok());
  EXPECT_FALSE(std::filesystem::exists(socket->parent_path()));
}

}  // namespace
}  // namespace latentforge::client
