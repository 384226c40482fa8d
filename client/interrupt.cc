#include "client/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "client/exit_code.h"

namespace latentforge::client {
namespace {

// What the handler touches: lock-free atomics, the only thing that is safe there.
std::atomic<int> signals_seen{0};
std::atomic<pid_t> groups[8];
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<pid_t>::is_always_lock_free);

void OnSignal(int) {
  if (signals_seen.fetch_add(1) == 0) return;
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

bool Interrupted() { return signals_seen.load() > 0; }

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
