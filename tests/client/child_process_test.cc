#include "client/child_process.h"

#include <signal.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "client/child_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ChildProcessTest, PipesBothStreams) {
  const auto child = ChildProcess::Start(
      {{"/bin/sh", "-c", "echo out; echo one >&2; printf two >&2; exit 3"}, {}});
  ASSERT_TRUE(child.ok()) << child.status();
  std::vector<std::string> lines;
  const std::string output = ReadChildOutput(
      **child, [&](const std::string& line) { lines.push_back(line); }, [] {});
  EXPECT_EQ(output, "out\n");
  EXPECT_THAT(lines, ElementsAre("one", "two"));
  EXPECT_EQ(DescribeWaitStatus((*child)->Wait()), "exit code 3");
}

TEST(ChildProcessTest, LogsToAFile) {
  const std::filesystem::path log = std::filesystem::path(testing::TempDir()) / "child.log";
  std::filesystem::remove(log);
  const auto child = ChildProcess::Start({{"/bin/sh", "-c", "echo a; echo b >&2"}, log});
  ASSERT_TRUE(child.ok()) << child.status();
  (*child)->Wait();
  EXPECT_EQ(*ReadFile(log), "a\nb\n");
}

TEST(ChildProcessTest, NamesAProgramThatIsNotThere) {
  const auto child = ChildProcess::Start({{"/nonexistent/program"}, {}});
  EXPECT_EQ(child.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(child.status().message(), HasSubstr("/nonexistent/program"));
}

TEST(ChildProcessTest, StopKillsWhatIgnoresSigterm) {
  const auto child = ChildProcess::Start(
      {{"/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"}, {}});
  ASSERT_TRUE(child.ok()) << child.status();
  char ready[6] = {};
  ASSERT_EQ(read((*child)->output_fd(), ready, 6), 6);
  (*child)->Stop(RealClock(), absl::Milliseconds(50));
  EXPECT_THAT(DescribeWaitStatus((*child)->Wait()), HasSubstr("signal 9"));
}

TEST(ChildProcessTest, RunsInAGroupOfItsOwnThatDiesWithTheObject) {
  pid_t pid = 0;
  {
    const auto child = ChildProcess::Start({{"/bin/sleep", "1000"}, {}});
    ASSERT_TRUE(child.ok()) << child.status();
    pid = (*child)->pid();
    EXPECT_EQ(getpgid(pid), pid);
    EXPECT_FALSE((*child)->Poll().has_value());
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

}  // namespace
}  // namespace latentforge::client
