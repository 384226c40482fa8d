#include "client/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "client/exit_code.h"

namespace latentforge::client {
namespace {

// What the handler touches: lock-free atomics, the only thing that is safe there.
std::atomic<int64_t> first_signal{0};  // when, in nanoseconds; 0: none yet
std::atomic<pid_t> groups[8];
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<pid_t>::is_always_lock_free);

constexpr int64_t kSecond = 1'000'000'000;

// Written before its length, which says that it is there.
char leaving_text[1024];
std::atomic<size_t> leaving_size{0};
static_assert(std::atomic<size_t>::is_always_lock_free);

int64_t Monotonic() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

void OnSignal(int signal) {
  const int64_t now = Monotonic();
  int64_t first = 0;
  if (first_signal.compare_exchange_strong(first, now)) return;
  // Whoever stops a process and its group sends SIGTERM twice and means it once.
  if (signal != SIGINT && now - first < kSecond) return;
  if (write(STDERR_FILENO, leaving_text, leaving_size.load()) < 0) {
    // Nobody reads; nothing else is left to do about it.
  }
  for (const std::atomic<pid_t>& group : groups) {
    if (const pid_t id = group.load(); id > 0) kill(-id, SIGKILL);
  }
  _exit(kExitInterrupted);
}

}  // namespace

void InstallInterruptHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void SetLeavingText(absl::string_view text) {
  text = text.substr(0, sizeof(leaving_text));
  leaving_size.store(0);
  std::copy(text.begin(), text.end(), leaving_text);
  leaving_size.store(text.size());
}

bool Interrupted() { return first_signal.load() != 0; }

KillOnInterrupt::KillOnInterrupt(pid_t group) : group_(group) {
  for (std::atomic<pid_t>& slot : groups) {
    pid_t free = 0;
    if (slot.compare_exchange_strong(free, group)) return;
  }
}

KillOnInterrupt::~KillOnInterrupt() {
  for (std::atomic<pid_t>& slot : groups) {
    pid_t expected = group_;
    if (slot.compare_exchange_strong(expected, 0)) return;
  }
}

}  // namespace latentforge::client
