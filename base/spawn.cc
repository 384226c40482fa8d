#include "base/spawn.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make", "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// Whose reading end does not block.
absl::StatusOr<Pipe> MakeOutputPipe() {
  LF_ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  if (fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "set up", "pipe");
  }
  return pipe;
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
  bool expendable;
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

void BecomeExpendable() {
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); fd >= 0) {
    if (write(fd, "500", 3) != 3) close(fd);  // a preference only
  }
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

  if (launch.expendable) BecomeExpendable();
  if (dup2(launch.in, STDIN_FILENO) < 0 || dup2(launch.out, STDOUT_FILENO) < 0 ||
      dup2(launch.err, STDERR_FILENO) < 0) {
    Fail(launch.failure);
  }
  CloseOtherDescriptorsOnExec();
  execve(launch.argv[0], launch.argv, launch.environment);
  Fail(launch.failure);
}

// Waits until exec closed the pipe; the errno of one that failed came through it.
int AwaitExec(int fd) {
  int failure = 0;
  ssize_t count;
  do {
    count = read(fd, &failure, sizeof(failure));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(failure) ? failure : 0;
}

void Reap(pid_t pid) {
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

// Where the program writes; what it gets of both ends is the writing one.
absl::Status OpenOutputs(const std::filesystem::path& log, Pipe* out, Pipe* err) {
  if (log.empty()) {
    LF_ASSIGN_OR_RETURN(*out, MakeOutputPipe());
    LF_ASSIGN_OR_RETURN(*err, MakeOutputPipe());
    return absl::OkStatus();
  }
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
  for (Pipe* pipe : {out, err}) {
    pipe->write = UniqueFd(open(log.c_str(), kFlags, 0600));
    if (!pipe->write.valid()) return ErrnoStatus(errno, "open", log);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Spawned> Spawn(const ChildCommand& command) {
  if (command.argv.empty()) return absl::InvalidArgumentError("no program to start");
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null.valid()) return ErrnoStatus(errno, "open", "/dev/null");
  Pipe out;
  Pipe err;
  LF_RETURN_IF_ERROR(OpenOutputs(command.log, &out, &err));
  LF_ASSIGN_OR_RETURN(Pipe failure, MakePipe());

  std::vector<std::string> arguments = command.argv;
  std::vector<std::string> environment = command.environment;  // the first of a name counts
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  const Launch launch = {.argv = argv.data(),
                         .environment = envp.data(),
                         .expendable = command.expendable,
                         .parent = getpid(),
                         .in = null.get(),
                         .out = out.write.get(),
                         .err = err.write.get(),
                         .failure = failure.write.get()};
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "start", command.argv[0]);
  if (pid == 0) RunInChild(launch);
  failure.write.Reset();
  if (const int error = AwaitExec(failure.read.get()); error != 0) {
    Reap(pid);
    return ErrnoStatus(error, "start", command.argv[0]);
  }
  return Spawned{pid, std::move(out.read), std::move(err.read)};
}

}  // namespace latentforge
