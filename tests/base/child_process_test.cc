#include "base/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

ChildCommand Shell(const std::string& script) { return {.argv = {"/bin/sh", "-c", script}}; }

// Runs to the end; fails the test when that takes over 20 s.
ChildOutput Finish(ChildProcess& child) {
  ChildOutput output;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!child.finished() && absl::Now() < deadline) {
    EXPECT_TRUE(child.Poll(-1, absl::Seconds(1), &output).ok());
  }
  EXPECT_TRUE(child.finished());
  return output;
}

// Reads until stdout holds `text`.
void AwaitOutput(ChildProcess& child, const std::string& text) {
  ChildOutput output;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (output.out.find(text) == std::string::npos && absl::Now() < deadline) {
    ASSERT_TRUE(child.Poll(-1, absl::Seconds(1), &output).ok());
  }
  ASSERT_THAT(output.out, HasSubstr(text));
}

bool Exists(pid_t pid) { return kill(pid, 0) == 0; }

std::vector<std::string> OpenDescriptors() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(ChildProcessTest, ReadsBothStreamsAndTheExitCode) {
  auto child = ChildProcess::Start(Shell("echo out; echo err >&2; exit 3"));
  ASSERT_TRUE(child.ok()) << child.status();
  const ChildOutput output = Finish(**child);
  EXPECT_EQ(output.out, "out\n");
  EXPECT_EQ(output.err, "err\n");
  EXPECT_EQ((*child)->exit_status().ToString(), "exit code 3");
  EXPECT_FALSE((*child)->exit_status().ok());
}

TEST(ChildProcessTest, NamesTheSignalOfACrash) {
  auto child = ChildProcess::Start(Shell("kill -SEGV $$"));
  ASSERT_TRUE(child.ok()) << child.status();
  Finish(**child);
  EXPECT_EQ((*child)->exit_status().signal, SIGSEGV);
  EXPECT_EQ((*child)->exit_status().ToString(), "signal SIGSEGV");
}

TEST(ChildProcessTest, NamesAProgramThatCannotBeStarted) {
  const auto absent = ChildProcess::Start({.argv = {"/no/such/program"}});
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("/no/such/program"));
  const auto folder = ChildProcess::Start({.argv = {"/tmp"}});
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kPermissionDenied) << folder.status();
  EXPECT_FALSE(ChildProcess::Start({}).ok());
}

TEST(ChildProcessTest, PassesTheEnvironmentAndReadsNothingFromStdin) {
  ChildCommand command = Shell("cat; echo \"$LF_TEST_VALUE\"");
  command.environment = {"LF_TEST_VALUE=a b"};
  auto child = ChildProcess::Start(command);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(Finish(**child).out, "a b\n");
}

TEST(ChildProcessTest, SurvivesFarMoreStderrThanAPipeHolds) {
  auto child = ChildProcess::Start(Shell(
      "i=0; while [ $i -lt 2000 ]; do printf '%01000d\\n' $i >&2; i=$((i+1)); done; echo done"));
  ASSERT_TRUE(child.ok()) << child.status();
  const ChildOutput output = Finish(**child);
  EXPECT_EQ(output.err.size(), 2000u * 1001u);
  EXPECT_EQ(output.out, "done\n");
}

TEST(ChildProcessTest, StopsWithSigtermOrSigkill) {
  auto polite = ChildProcess::Start(Shell("trap 'exit 5' TERM; echo up; while :; do :; done"));
  ASSERT_TRUE(polite.ok()) << polite.status();
  AwaitOutput(**polite, "up");
  (*polite)->Signal(SIGTERM);
  Finish(**polite);
  EXPECT_EQ((*polite)->exit_status().code, 5);

  auto stubborn = ChildProcess::Start(Shell("trap '' TERM; echo up; while :; do sleep 60; done"));
  ASSERT_TRUE(stubborn.ok()) << stubborn.status();
  AwaitOutput(**stubborn, "up");
  (*stubborn)->Signal(SIGTERM);
  (*stubborn)->Signal(SIGKILL);
  Finish(**stubborn);
  EXPECT_EQ((*stubborn)->exit_status().signal, SIGKILL);
}

TEST(ChildProcessTest, KillsWhatItsGroupLeavesBehind) {
  auto child = ChildProcess::Start(Shell("sleep 1000 & echo $!"));
  ASSERT_TRUE(child.ok()) << child.status();
  const ChildOutput output = Finish(**child);
  pid_t sleeper = 0;
  ASSERT_TRUE(absl::SimpleAtoi(output.out, &sleeper)) << output.out;
  // Its new parent reaps it; until then it is a zombie.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  bool gone = false;
  while (!gone && absl::Now() < deadline) {
    const std::string program = absl::StrCat("/proc/", sleeper, "/exe");
    std::error_code error;
    gone = std::filesystem::read_symlink(program, error).empty();
    std::this_thread::yield();
  }
  EXPECT_TRUE(gone) << "process " << sleeper << " runs on";
}

TEST(ChildProcessTest, DestructorKillsAndReaps) {
  pid_t pid = 0;
  {
    auto child = ChildProcess::Start(Shell("echo up; exec sleep 1000"));
    ASSERT_TRUE(child.ok()) << child.status();
    pid = (*child)->pid();
    AwaitOutput(**child, "up");
    EXPECT_TRUE(Exists(pid));
  }
  EXPECT_FALSE(Exists(pid)) << "neither a process nor a zombie may be left";
}

TEST(ChildProcessTest, DiesWithTheThreadThatStartedIt) {
  absl::StatusOr<std::unique_ptr<ChildProcess>> child = absl::UnknownError("not started");
  std::thread([&] { child = ChildProcess::Start(Shell("exec sleep 1000")); }).join();
  ASSERT_TRUE(child.ok()) << child.status();
  Finish(**child);
  EXPECT_EQ((*child)->exit_status().signal, SIGKILL);
}

TEST(ChildProcessTest, WakesUpForADescriptor) {
  const UniqueFd wake(eventfd(1, EFD_CLOEXEC));
  auto child = ChildProcess::Start(Shell("exec sleep 1000"));
  ASSERT_TRUE(child.ok()) << child.status();
  ChildOutput output;
  EXPECT_TRUE((*child)->Poll(wake.get(), absl::InfiniteDuration(), &output).ok());
  EXPECT_FALSE((*child)->finished());
}

TEST(ChildProcessTest, LeaksNoDescriptorEitherWay) {
  // One that a library forgot to mark close-on-exec.
  const UniqueFd careless(open("/dev/null", O_RDONLY));
  ASSERT_TRUE(careless.valid());
  const std::vector<std::string> before = OpenDescriptors();
  for (int i = 0; i < 3; ++i) {
    auto child = ChildProcess::Start(Shell("exec ls /proc/self/fd"));
    ASSERT_TRUE(child.ok()) << child.status();
    // 3 is the folder that ls reads.
    EXPECT_EQ(Finish(**child).out, "0\n1\n2\n3\n");
  }
  EXPECT_FALSE(ChildProcess::Start({.argv = {"/no/such/program"}}).ok());
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(ChildProcessTest, StartsWithoutBlockedSignals) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigset_t previous;
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &blocked, &previous), 0);
  auto child = ChildProcess::Start(Shell("grep SigBlk /proc/self/status"));
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(Finish(**child).out, "SigBlk:\t0000000000000000\n");
}

TEST(ChildProcessTest, AnExpendableOneDumpsNoCoreAndIsKilledFirst) {
  const absl::StatusOr<std::string> own = ReadFile("/proc/self/oom_score_adj", 100);
  ASSERT_TRUE(own.ok()) << own.status();
  ChildCommand command = Shell("ulimit -c; cat /proc/self/oom_score_adj");
  auto plain = ChildProcess::Start(command);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_THAT(Finish(**plain).out, EndsWith("\n" + *own));
  command.expendable = true;
  auto expendable = ChildProcess::Start(command);
  ASSERT_TRUE(expendable.ok()) << expendable.status();
  EXPECT_EQ(Finish(**expendable).out, "0\n500\n");
}

TEST(ChildProcessTest, LogsToTheEndOfAFile) {
  const std::filesystem::path log = std::filesystem::path(testing::TempDir()) / "child.log";
  ASSERT_TRUE(WriteFileAtomic(log, "before\n").ok());
  ChildCommand command = Shell("echo a; echo b >&2");
  command.log = log;
  auto child = ChildProcess::Start(command);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(Finish(**child).out, "");
  EXPECT_EQ(*ReadFile(log), "before\na\nb\n");
  command.log = log.parent_path() / "no" / "child.log";
  EXPECT_THAT(std::string(ChildProcess::Start(command).status().message()),
              HasSubstr("no/child.log"));
}

TEST(ChildProcessTest, WaitsNoLongerThanItsTimeoutAndReadsWhatBlocksTheChild) {
  auto child = ChildProcess::Start(Shell("exec sleep 1000"));
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_FALSE((*child)->Wait(absl::ZeroDuration()));
  EXPECT_FALSE((*child)->Wait(absl::Milliseconds(20)));
  // Far more than a pipe holds.
  auto chatty = ChildProcess::Start(Shell("head -c 1000000 /dev/zero; exit 4"));
  ASSERT_TRUE(chatty.ok()) << chatty.status();
  ASSERT_TRUE((*chatty)->Wait(absl::Seconds(20)));
  EXPECT_EQ((*chatty)->exit_status().code, 4);
}

TEST(ChildProcessTest, StopKillsWhatIgnoresSigterm) {
  auto polite = ChildProcess::Start(Shell("trap 'exit 5' TERM; echo up; while :; do :; done"));
  ASSERT_TRUE(polite.ok()) << polite.status();
  AwaitOutput(**polite, "up");
  (*polite)->Stop(absl::Seconds(20));
  EXPECT_EQ((*polite)->exit_status().ToString(), "exit code 5");
  auto stubborn = ChildProcess::Start(Shell("trap '' TERM; echo up; while :; do sleep 60; done"));
  ASSERT_TRUE(stubborn.ok()) << stubborn.status();
  AwaitOutput(**stubborn, "up");
  (*stubborn)->Stop(absl::Milliseconds(50));
  EXPECT_EQ((*stubborn)->exit_status().ToString(), "signal SIGKILL");
}

TEST(ChildProcessTest, ItsNumberStaysItsOwnAfterTheEnd) {
  auto child = ChildProcess::Start(Shell("exit 0"));
  ASSERT_TRUE(child.ok()) << child.status();
  const pid_t pid = (*child)->pid();
  EXPECT_EQ(getpgid(pid), pid);
  ASSERT_TRUE((*child)->Wait(absl::Seconds(20)));
  EXPECT_TRUE(Exists(pid));
  child->reset();
  EXPECT_FALSE(Exists(pid));
}

TEST(SiblingProgramTest, LiesBesideThisProgram) {
  EXPECT_EQ(SiblingProgram("other").filename(), "other");
  EXPECT_TRUE(std::filesystem::exists(SiblingProgram("base_child_process_test")));
}

}  // namespace
}  // namespace latentforge
