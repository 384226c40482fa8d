#include "client/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/interrupt.h"

namespace latentforge::client {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> OpenPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "opening", "a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Between fork and exec: only async-signal-safe calls. Does not return; reports
// the errno of a failed exec through `report`.
[[noreturn]] void Become(char* const* argv, int output, int error, int report, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
      dup2(error, STDERR_FILENO) >= 0) {
    execv(argv[0], argv);
  }
  const int failure = errno;
  const ssize_t ignored = write(report, &failure, sizeof(failure));
  static_cast<void>(ignored);  // the parent sees an exit without exec all the same
  _exit(127);
}

// Waits until exec closed the pipe, or returns the errno that came through it.
int AwaitExec(int fd) {
  int failure = 0;
  ssize_t count = 0;
  do {
    count = read(fd, &failure, sizeof(failure));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(failure) ? failure : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const ChildOptions& options) {
  LF_ASSIGN_OR_RETURN(Pipe report, OpenPipe());
  Pipe output;
  Pipe error;
  if (options.log.empty()) {
    LF_ASSIGN_OR_RETURN(output, OpenPipe());
    LF_ASSIGN_OR_RETURN(error, OpenPipe());
  } else {
    output.write = UniqueFd(
        open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!output.write.valid()) return ErrnoStatus(errno, "opening", options.log);
  }
  std::vector<char*> argv;
  for (const std::string& argument : options.command) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const int error_fd = error.write.valid() ? error.write.get() : output.write.get();
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "starting", options.command[0]);
  if (pid == 0) Become(argv.data(), output.write.get(), error_fd, report.write.get(), parent);
  setpgid(pid, pid);  // in both processes: whoever is first
  report.write.Reset();
  std::unique_ptr<ChildProcess> child(
      new ChildProcess(pid, std::move(output.read), std::move(error.read)));
  if (const int failure = AwaitExec(report.read.get()); failure != 0) {
    return ErrnoStatus(failure, "starting", options.command[0]);
  }
  return child;
}

ChildProcess::ChildProcess(pid_t pid, UniqueFd output, UniqueFd error)
    : pid_(pid), output_(std::move(output)), error_(std::move(error)) {
  KillGroupOnExit(pid_);
}

ChildProcess::~ChildProcess() {
  // Also after the child has ended: others of its group may live.
  kill(-pid_, SIGKILL);
  Wait();
}

std::optional<int> ChildProcess::Poll() {
  if (wait_status_.has_value()) return wait_status_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    ForgetGroup(pid_);
    wait_status_ = status;
  }
  return wait_status_;
}

int ChildProcess::Wait() {
  while (!wait_status_.has_value()) {
    int status = 0;
    const pid_t ended = waitpid(pid_, &status, 0);
    if (ended < 0 && errno == EINTR) continue;
    ForgetGroup(pid_);
    wait_status_ = status;
  }
  return *wait_status_;
}

void ChildProcess::Stop(Clock& clock, absl::Duration grace) {
  Signal(SIGTERM);
  const absl::Duration deadline = clock.Monotonic() + grace;
  while (!Poll().has_value() && clock.Monotonic() < deadline) {
    clock.SleepFor(absl::Milliseconds(10));
  }
  kill(-pid_, SIGKILL);
  Wait();
}

void ChildProcess::Signal(int signal) {
  if (!Poll().has_value()) kill(pid_, signal);
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return absl::StrCat("signal ", signal, " (", strsignal(signal), ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status));
}

std::filesystem::path SiblingProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(name) : self.parent_path() / name;
}

}  // namespace latentforge::client
