#include "tests/faults/injector.h"

#include <signal.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"

namespace latentforge::faults {

Injector::Injector(Cluster& cluster, std::vector<std::string> workers, uint64_t seed)
    : cluster_(cluster), workers_(std::move(workers)), random_(seed) {}

void Injector::Inject() {
  struct Kind {
    const char* name;
    int weight;
    void (Injector::*make)();
  };
  static constexpr Kind kKinds[] = {
      {"kill -9 of the server", 4, &Injector::KillServer},
      {"drain of the server", 1, &Injector::DrainServer},
      {"stop of the server for 0.5 s", 1, &Injector::StopServer},
      {"kill -9 of a worker", 4, &Injector::KillWorker},
      {"drain of a worker", 1, &Injector::DrainWorker},
      {"stop of a worker past its lease", 1, &Injector::StopWorker},
      {"kill -9 of a compute process", 4, &Injector::KillProcess},
      {"stop of a compute process for 0.3 s", 1, &Injector::StopProcess},
  };
  int total = 0;
  for (const Kind& kind : kKinds) total += kind.weight;
  auto left = static_cast<int>(random_() % static_cast<uint64_t>(total));
  for (const Kind& kind : kKinds) {
    left -= kind.weight;
    if (left >= 0) continue;
    ++counts_[kind.name];
    return (this->*kind.make)();
  }
}

void Injector::KillServer() {
  cluster_.KillServer();
  cluster_.StartServer();
}

void Injector::DrainServer() {
  cluster_.SignalServer(SIGTERM);
  cluster_.AwaitServer();
  cluster_.StartServer();
}

void Injector::StopServer() {
  cluster_.SignalServer(SIGSTOP);
  absl::SleepFor(absl::Milliseconds(500));
  cluster_.SignalServer(SIGCONT);
}

void Injector::KillWorker() {
  const std::string& name = AnyWorker();
  cluster_.worker(name).Signal(SIGKILL);
  cluster_.worker(name).Wait();
  cluster_.StartWorker(name);
}

void Injector::DrainWorker() {
  const std::string& name = AnyWorker();
  cluster_.worker(name).Signal(SIGTERM);
  cluster_.worker(name).Wait();
  cluster_.StartWorker(name);
}

// Longer than its lease: when it goes on, its job is another's.
void Injector::StopWorker() {
  Daemon& worker = cluster_.worker(AnyWorker());
  worker.Signal(SIGSTOP);
  absl::SleepFor(absl::Milliseconds(2500));
  worker.Signal(SIGCONT);
}

// The newest that is still there; 0 without one.
pid_t Injector::LastProcess() const {
  const std::vector<std::string> lines = Lines(cluster_.Path("pids"));
  for (size_t i = lines.size(); i > 0 && i + 6 > lines.size(); --i) {
    pid_t pid = 0;
    if (absl::SimpleAtoi(lines[i - 1], &pid) && IsRunning(pid)) return pid;
  }
  return 0;
}

void Injector::KillProcess() {
  if (const pid_t pid = LastProcess(); pid > 0) kill(pid, SIGKILL);
}

void Injector::StopProcess() {
  const pid_t pid = LastProcess();
  if (pid == 0) return;
  kill(pid, SIGSTOP);
  absl::SleepFor(absl::Milliseconds(300));
  kill(pid, SIGCONT);
}

}  // namespace latentforge::faults
