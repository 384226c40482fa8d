// The real latentforge-server as a process.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/file.h"
#include "gtest/gtest.h"

extern char** environ;

namespace latentforge::service {

// One server process; killed when its owner goes.
class ServerProcess {
 public:
  // `database` is a URI, or a path beneath `dir` unless it is absolute. Leases are short
  // unless `more` says otherwise.
  explicit ServerProcess(const std::filesystem::path& dir, std::vector<std::string> more = {},
                         const std::string& database = "jobs.db") {
    log_ = dir / "log";
    ready_ = dir / "ready";
    std::filesystem::remove(ready_);
    std::vector<std::string> command = {
        LATENTFORGE_BINARY_DIR "/bin/latentforge-server",
        "--listen",
        absl::StrCat("unix:", (dir / "server.sock").string()),
        "--database",
        absl::StrContains(database, "://") ? database : (dir / database).string(),
        "--ready-file",
        ready_.string()};
    if (std::find(more.begin(), more.end(), "--lease-duration") == more.end())
      more.insert(more.end(), {"--lease-duration", "2s"});
    command.insert(command.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~ServerProcess() {
    if (pid_ > 0) Kill(SIGKILL);
  }

  void WaitReady() {
    const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(30);
    while (!std::filesystem::exists(ready_) && RealClock().Monotonic() < deadline)
      RealClock().SleepFor(absl::Milliseconds(5));
    ASSERT_TRUE(std::filesystem::exists(ready_)) << Log();
  }

  // Sends a signal and returns the wait status.
  int Kill(int signal) {
    kill(pid_, signal);
    return Wait();
  }

  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }

  pid_t pid() const { return pid_; }
  std::string Log() const { return ReadFile(log_).value_or(""); }

 private:
  std::filesystem::path log_;
  std::filesystem::path ready_;
  pid_t pid_ = 0;
};

}  // namespace latentforge::service
