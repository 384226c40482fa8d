#include "base/child_process.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge {
namespace {

constexpr size_t kMaxReadBytes = size_t{1} << 20;

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

ChildProcess::ChildProcess(Spawned spawned, UniqueFd pid_fd)
    : spawned_(std::move(spawned)), pid_fd_(std::move(pid_fd)) {}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const ChildCommand& command) {
  LF_ASSIGN_OR_RETURN(Spawned spawned, Spawn(command));
  // By number: glibc 2.36 declares pidfd_open without extern "C".
  UniqueFd pid_fd(static_cast<int>(syscall(SYS_pidfd_open, spawned.pid, 0)));
  const int error = errno;
  const bool watched = pid_fd.valid();
  // Also without the descriptor: the destructor kills what was started.
  std::unique_ptr<ChildProcess> child(new ChildProcess(std::move(spawned), std::move(pid_fd)));
  if (!watched) return ErrnoStatus(error, "watch", command.argv[0]);
  return child;
}

ChildProcess::~ChildProcess() {
  Signal(SIGKILL);
  while (waitpid(pid(), nullptr, 0) < 0 && errno == EINTR) {
  }
}

absl::Status ChildProcess::Poll(int wake_fd, absl::Duration timeout, ChildOutput* output) {
  if (finished_) return absl::OkStatus();
  // poll() ignores negative descriptors: streams already at their end, no wake_fd.
  std::array<pollfd, 4> fds = {{{spawned_.out.get(), POLLIN, 0},
                                {spawned_.err.get(), POLLIN, 0},
                                {pid_fd_.get(), POLLIN, 0},
                                {wake_fd, POLLIN, 0}}};
  if (poll(fds.data(), fds.size(), PollMilliseconds(timeout)) < 0) {
    return errno == EINTR ? absl::OkStatus() : ErrnoStatus(errno, "wait for", "child process");
  }
  const bool ended = fds[2].revents != 0;
  if (ended) TakeEnd();
  const auto take = [ended](const pollfd& ready, UniqueFd* stream, std::string* text) {
    if (!stream->valid() || (!ended && ready.revents == 0)) return;
    if (ReadAvailable(stream->get(), text)) stream->Reset();
  };
  take(fds[0], &spawned_.out, &output->out);
  take(fds[1], &spawned_.err, &output->err);
  return absl::OkStatus();
}

bool ChildProcess::Wait(absl::Duration timeout) {
  // What is waited for is the kernel, which knows no other clock.
  const Clock& clock = RealClock();
  const absl::Duration deadline = clock.Monotonic() + timeout;
  for (absl::Duration left = timeout; !finished_; left = deadline - clock.Monotonic()) {
    ChildOutput dropped;
    if (!Poll(-1, left, &dropped).ok() || left <= absl::ZeroDuration()) break;
  }
  return finished_;
}

void ChildProcess::Signal(int signal) {
  if (!finished_) kill(-pid(), signal);
}

void ChildProcess::Stop(absl::Duration grace) {
  Signal(SIGTERM);
  if (Wait(grace)) return;
  Signal(SIGKILL);
  if (!Wait(absl::InfiniteDuration())) TakeEnd();  // poll() failed
}

// Blocks until it has ended, and leaves it a zombie for the destructor to reap: until then the
// number of the group cannot be given to others.
void ChildProcess::TakeEnd() {
  siginfo_t info = {};
  int waited;
  do {
    waited = waitid(P_PID, static_cast<id_t>(pid()), &info, WEXITED | WNOWAIT);
  } while (waited < 0 && errno == EINTR);
  kill(-pid(), SIGKILL);  // what it left behind
  finished_ = true;
  pid_fd_.Reset();
  if (waited < 0) {
    exit_status_.code = -1;
  } else if (info.si_code == CLD_EXITED) {
    exit_status_.code = info.si_status;
  } else {
    exit_status_.signal = info.si_status;
  }
}

std::filesystem::path SiblingProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(name) : self.parent_path() / name;
}

}  // namespace latentforge
