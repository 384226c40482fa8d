#include "worker/agent/child_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::agent {
namespace {

constexpr size_t kMaxReadBytes = size_t{1} << 20;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make", "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Everything the new process needs, made before fork: after it only
// async-signal-safe calls are allowed, for other threads may have held locks.
struct Launch {
  char* const* argv;
  char* const* environment;
  pid_t parent;
  int in;
  int out;
  int err;
  int failure;
};

[[noreturn]] void Fail(int failure_fd) {
  const int error = errno;
  // The parent reads a short or absent message as "unknown"; nothing else is left to do here.
  if (write(failure_fd, &error, sizeof(error)) < 0) _exit(126);
  _exit(127);
}

void CloseOtherDescriptorsOnExec() {
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
  for (int fd = 3; fd < 4096; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
}

[[noreturn]] void RunInChild(const Launch& launch) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) Fail(launch.failure);
  if (getppid() != launch.parent) _exit(127);  // it died before prctl
  if (setpgid(0, 0) != 0) Fail(launch.failure);

  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);

  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); fd >= 0) {
    if (write(fd, "500", 3) != 3) close(fd);  // a preference only
  }
  if (dup2(launch.in, STDIN_FILENO) < 0 || dup2(launch.out, STDOUT_FILENO) < 0 ||
      dup2(launch.err, STDERR_FILENO) < 0) {
    Fail(launch.failure);
  }
  CloseOtherDescriptorsOnExec();
  execve(launch.argv[0], launch.argv, launch.environment);
  Fail(launch.failure);
}

// What is there, without waiting. True at the end of the stream.
bool ReadAvailable(int fd, std::string* out) {
  std::array<char, 65536> buffer;
  for (size_t total = 0; total < kMaxReadBytes;) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count > 0) {
      out->append(buffer.data(), static_cast<size_t>(count));
      total += static_cast<size_t>(count);
    } else if (count == 0) {
      return true;
    } else if (errno != EINTR) {
      return errno != EAGAIN;
    }
  }
  return false;
}

int PollMilliseconds(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return -1;
  const absl::Duration bounded = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(1));
  return static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(bounded, absl::Milliseconds(1))));
}

}  // namespace

std::string SignalName(int signal) {
  const char* abbreviation = sigabbrev_np(signal);
  return abbreviation != nullptr ? absl::StrCat("SIG", abbreviation)
                                 : absl::StrCat("signal ", signal);
}

std::string ExitStatus::ToString() const {
  if (signal != 0) return absl::StrCat("signal ", SignalName(signal));
  return absl::StrCat("exit code ", code);
}

ChildProcess::ChildProcess(pid_t pid, UniqueFd out, UniqueFd err) noexcept
    : pid_(pid), out_(std::move(out)), err_(std::move(err)) {}

ChildProcess::~ChildProcess() {
  if (finished_) return;
  Signal(SIGKILL);
  Reap();
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const ChildCommand& command) {
  if (command.argv.empty()) return absl::InvalidArgumentError("no program to start");
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null.valid()) return ErrnoStatus(errno, "open", "/dev/null");
  LF_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  LF_ASSIGN_OR_RETURN(Pipe err, MakePipe());
  LF_ASSIGN_OR_RETURN(Pipe failure, MakePipe());
  for (const int fd : {out.read.get(), err.read.get()}) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "set up", "pipe");
  }

  std::vector<std::string> arguments = command.argv;
  std::vector<std::string> environment = command.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  const Launch launch = {argv.data(),     envp.data(),     getpid(),           null.get(),
                         out.write.get(), err.write.get(), failure.write.get()};
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "start", command.argv[0]);
  if (pid == 0) RunInChild(launch);

  std::unique_ptr<ChildProcess> child(
      new ChildProcess(pid, std::move(out.read), std::move(err.read)));
  failure.write.Reset();
  int error = 0;
  ssize_t count;
  do {
    count = read(failure.read.get(), &error, sizeof(error));  // ends when exec closes it
  } while (count < 0 && errno == EINTR);
  if (count == sizeof(error)) return ErrnoStatus(error, "start", command.argv[0]);
  // By number: glibc 2.36 declares pidfd_open without extern "C".
  child->pid_fd_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!child->pid_fd_.valid()) return ErrnoStatus(errno, "watch", command.argv[0]);
  return child;
}

absl::Status ChildProcess::Poll(int wake_fd, absl::Duration timeout, ChildOutput* output) {
  if (finished_) return absl::OkStatus();
  // poll() ignores negative descriptors: streams already at their end, no wake_fd.
  std::array<pollfd, 4> fds = {{{out_.get(), POLLIN, 0},
                                {err_.get(), POLLIN, 0},
                                {pid_fd_.get(), POLLIN, 0},
                                {wake_fd, POLLIN, 0}}};
  if (poll(fds.data(), fds.size(), PollMilliseconds(timeout)) < 0) {
    return errno == EINTR ? absl::OkStatus() : ErrnoStatus(errno, "wait for", "compute process");
  }
  const bool ended = fds[2].revents != 0;
  if (ended) Reap();
  if ((ended || fds[0].revents != 0) && out_.valid() && ReadAvailable(out_.get(), &output->out)) {
    out_.Reset();
  }
  if ((ended || fds[1].revents != 0) && err_.valid() && ReadAvailable(err_.get(), &output->err)) {
    err_.Reset();
  }
  return absl::OkStatus();
}

void ChildProcess::Signal(int signal) {
  if (!finished_) kill(-pid_, signal);
}

void ChildProcess::Reap() {
  // Until waitpid the group's number cannot be given to others.
  kill(-pid_, SIGKILL);
  int status = 0;
  pid_t waited;
  do {
    waited = waitpid(pid_, &status, 0);
  } while (waited < 0 && errno == EINTR);
  finished_ = true;
  pid_fd_.Reset();
  if (waited == pid_ && WIFSIGNALED(status)) {
    exit_status_.signal = WTERMSIG(status);
  } else {
    exit_status_.code = waited == pid_ ? WEXITSTATUS(status) : -1;
  }
}

}  // namespace latentforge::agent
