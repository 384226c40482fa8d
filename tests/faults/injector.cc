#include "tests/faults/injector.h"

#include <signal.h>

#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace latentforge::faults {

Injector::Injector(Cluster& cluster, Targets targets, uint64_t seed)
    : cluster_(cluster), targets_(std::move(targets)), random_(seed) {}

void Injector::Inject() {
  struct Kind {
    const char* name;
    int weight;
    void (Injector::*make)();
  };
  static constexpr Kind kKinds[] = {
      {"kill -9 of a server", 8, &Injector::KillServer},
      {"drain of a server", 2, &Injector::DrainServer},
      {"stop of a server for 0.5 s", 2, &Injector::StopServer},
      {"kill -9 of a worker", 8, &Injector::KillWorker},
      {"drain of a worker", 2, &Injector::DrainWorker},
      {"stop of a worker past its lease", 1, &Injector::StopWorker},
      {"kill -9 of a compute process", 8, &Injector::KillProcess},
      {"stop of a compute process for 0.3 s", 2, &Injector::StopProcess},
      {"cut of connections", 6, &Injector::CutConnections},
      {"half-close of connections", 2, &Injector::HalfClose},
      {"stall of connections for 0.5 s", 2, &Injector::Stall},
      {"delay of 30 ms for 0.5 s", 2, &Injector::Delay},
      {"loss of requests for 0.3 s", 2, &Injector::LoseRequests},
      {"loss of answers for 0.3 s", 2, &Injector::LoseAnswers},
      {"refusal of connections for 0.3 s", 2, &Injector::Refuse},
      {"partition of workers past their leases", 1, &Injector::PartitionWorkers},
      {"outage of the database for 1 s", 1, &Injector::EndDatabase},
  };
  int total = 0;
  for (const Kind& kind : kKinds) total += kind.weight;
  auto left = static_cast<int>(random_() % static_cast<uint64_t>(total));
  for (const Kind& kind : kKinds) {
    left -= kind.weight;
    if (left >= 0) continue;
    if (kind.make == &Injector::EndDatabase && targets_.database_link.proxies.empty()) return;
    ++counts_[kind.name];
    return (this->*kind.make)();
  }
}

void Injector::KillServer() {
  const size_t server = AnyServer();
  cluster_.KillServer(server);
  cluster_.StartServer(server);
}

void Injector::DrainServer() {
  const size_t server = AnyServer();
  cluster_.SignalServer(SIGTERM, server);
  cluster_.AwaitServer(server);
  cluster_.StartServer(server);
}

void Injector::StopServer() {
  const size_t server = AnyServer();
  cluster_.SignalServer(SIGSTOP, server);
  absl::SleepFor(absl::Milliseconds(500));
  cluster_.SignalServer(SIGCONT, server);
}

const std::string& Injector::AnyWorker() {
  const auto at = static_cast<std::ptrdiff_t>(random_() % targets_.workers.size());
  return std::next(targets_.workers.begin(), at)->first;
}

void Injector::KillWorker() {
  const std::string& name = AnyWorker();
  cluster_.worker(name).Signal(SIGKILL);
  cluster_.worker(name).Wait();
  cluster_.StartWorker(name, targets_.workers.at(name));
}

void Injector::DrainWorker() {
  const std::string& name = AnyWorker();
  cluster_.worker(name).Signal(SIGTERM);
  cluster_.worker(name).Wait();
  cluster_.StartWorker(name, targets_.workers.at(name));
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

// One proxy of one kind of connections.
FaultProxy& Injector::AnyProxy() {
  std::vector<const Link*> links = {&targets_.worker_link, &targets_.client_link};
  if (!targets_.database_link.proxies.empty()) links.push_back(&targets_.database_link);
  const Link& link = *links[random_() % links.size()];
  ++counts_[absl::StrCat("  of which between ", link.name)];
  return *link.proxies[random_() % link.proxies.size()];
}

void Injector::Disturb(const std::vector<FaultProxy*>& proxies, const Passage& passage,
                       absl::Duration length) {
  for (FaultProxy* proxy : proxies) proxy->Set(passage);
  absl::SleepFor(length);
  for (FaultProxy* proxy : proxies) proxy->Set({});
}

void Injector::CutConnections() { AnyProxy().Cut(); }

void Injector::HalfClose() { AnyProxy().HalfClose(); }

void Injector::Stall() { Disturb({&AnyProxy()}, {.stalled = true}, absl::Milliseconds(500)); }

void Injector::Delay() {
  Disturb({&AnyProxy()}, {.delay = absl::Milliseconds(30)}, absl::Milliseconds(500));
}

void Injector::LoseRequests() {
  Disturb({&AnyProxy()}, {.lose_requests = true}, absl::Milliseconds(300));
}

void Injector::LoseAnswers() {
  Disturb({&AnyProxy()}, {.lose_answers = true}, absl::Milliseconds(300));
}

void Injector::Refuse() {
  FaultProxy& proxy = AnyProxy();
  proxy.Cut();
  Disturb({&proxy}, {.refused = true}, absl::Milliseconds(300));
}

void Injector::PartitionWorkers() {
  Disturb(targets_.worker_link.proxies, {.stalled = true}, absl::Milliseconds(2500));
}

void Injector::EndDatabase() {
  for (FaultProxy* proxy : targets_.database_link.proxies) proxy->Cut();
  Disturb(targets_.database_link.proxies, {.refused = true}, absl::Seconds(1));
}

}  // namespace latentforge::faults
