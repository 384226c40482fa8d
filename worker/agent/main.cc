// latentforge-worker: takes leases from a server and runs each in a compute process.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/program.h"
#include "base/standard_descriptors.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/agent/agent.h"
#include "worker/agent/attempt_roots.h"
#include "worker/agent/attempt_runner.h"
#include "worker/agent/lease_client.h"
#include "worker/agent/machine.h"
#include "worker/agent/scratch.h"
#include "worker/agent/worker_flags.h"

namespace latentforge::agent {
namespace {

constexpr absl::Duration kRpcTimeout = absl::Seconds(5);
constexpr absl::Duration kSweepInterval = absl::Hours(1);
constexpr timespec kTick = {0, 100'000'000};

double ThreadSafeRandom() {
  thread_local absl::InsecureBitGen generator;
  return absl::Uniform(generator, 0.0, 1.0);
}

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Waits a tick. True when a stop signal came.
bool StopSignalWithinTick() {
  const sigset_t signals = StopSignals();
  return sigtimedwait(&signals, nullptr, &kTick) > 0;
}

// Tells this process from others of its name.
std::string NewInstance() {
  absl::BitGen generator;
  return absl::StrFormat("%016x%016x", absl::Uniform<uint64_t>(generator),
                         absl::Uniform<uint64_t>(generator));
}

v1::WorkerInfo DescribeWorker(const WorkerFlags& flags) {
  v1::WorkerInfo info;
  info.set_name(flags.name);
  info.set_instance(NewInstance());
  info.set_version(kVersion);
  info.set_hostname(HostName());
  info.set_slots(flags.slots);
  for (const std::string& device : Devices("/")) info.add_devices(device);
  info.set_memory_bytes(flags.memory_bytes);
  info.mutable_labels()->insert(flags.labels.begin(), flags.labels.end());
  return info;
}

AttemptOptions DescribeAttempts(const WorkerFlags& flags) {
  AttemptOptions options;
  options.convert = flags.convert;
  options.statistics = flags.statistics;
  options.allowed_roots = ResolveRoots({flags.allowed_roots.begin(), flags.allowed_roots.end()});
  options.worker = flags.name;
  options.device = flags.device;
  options.threads = flags.threads;
  options.session.stop_grace = flags.stop_grace;
  return options;
}

// Waits until something ends the worker. OK for a stop signal.
absl::Status Serve(const WorkerFlags& flags, const Agent& agent, const LeaseClient& client,
                   Scratch& scratch) {
  Clock& clock = RealClock();
  absl::Duration next_sweep = clock.Monotonic();
  bool ready = flags.ready_file.empty();
  while (!StopSignalWithinTick()) {
    const absl::Duration now = clock.Monotonic();
    if (const absl::Status refusal = agent.refusal(); !refusal.ok()) return refusal;
    if (const absl::Duration gone = client.UnreachableFor(); gone > flags.exit_when_server_gone) {
      return absl::UnavailableError(
          absl::StrCat(flags.server, " has not answered for ", absl::FormatDuration(gone)));
    }
    if (!ready && client.EverReached()) {
      ready = true;
      LF_RETURN_IF_ERROR(WriteFileAtomic(flags.ready_file, absl::StrCat(flags.name, "\n")));
    }
    if (now >= next_sweep) {
      next_sweep = now + kSweepInterval;
      scratch.Sweep(flags.scratch_keep, clock.Now());
    }
  }
  return absl::OkStatus();
}

// Gives leases back, unless the server is gone. A second signal, or a server that
// does not answer in time, ends it.
void Stop(const WorkerFlags& flags, Agent& agent, bool server_gone) {
  Log(Severity::kInfo, "stopping; again to leave at once");
  agent.Drain();
  if (server_gone) agent.GiveUp();
  const absl::Duration deadline = RealClock().Monotonic() + flags.stop_grace + kRpcTimeout;
  while (!agent.WaitUntilStopped(absl::ZeroDuration())) {
    // Compute processes are killed with us.
    if (StopSignalWithinTick()) _exit(128 + SIGTERM);
    if (RealClock().Monotonic() > deadline) agent.GiveUp();
  }
}

int Fail(const std::string& message, const char* next_step) {
  Log(Severity::kError, message);
  Log(Severity::kError, absl::StrCat("next: ", next_step));
  return 1;
}

int Run(const WorkerFlags& flags) {
  ConfigureLog(flags.log_format, Severity::kInfo);
  if (const absl::Status program = CheckProgram(flags.convert); !program.ok()) {
    return Fail(
        absl::StrCat("--convert: ", program.message(), " [WORKER_MISCONFIGURED]"),
        "install latentforge-convert beside latentforge-worker, or name it: --convert FILE");
  }
  if (const absl::Status device = CheckDevicePresent(flags.device, Devices("/")); !device.ok()) {
    return Fail(absl::StrCat("--device ", device.message(), " [DEVICE_UNAVAILABLE]"),
                "leave --device out, or start the worker where the device is");
  }
  const absl::StatusOr<std::unique_ptr<Scratch>> scratch = Scratch::Open(flags.scratch);
  if (!scratch.ok()) {
    return Fail(absl::StrCat("scratch folder: ", scratch.status().message()),
                "name a folder that this worker alone may write: --scratch");
  }
  const auto channel = MakeServerChannel(flags.server, flags.security);
  if (!channel.ok()) {
    return Fail(absl::StrCat("server ", flags.server, ": ", channel.status().message()),
                "correct the flag or file that the message names: --server, --tls-ca, --tls-cert, "
                "--tls-key, --token-file");
  }
  // Before any thread starts, so that only Serve and Stop get them.
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  Log(Severity::kInfo, "worker started",
      {{"name", flags.name},
       {"server", flags.server},
       {"version", kVersion},
       {"scratch", (*scratch)->root().string()}});
  LeaseClient client(*channel, kRpcTimeout, RealClock());
  AttemptRunner runner(client, **scratch, RealClock(), ThreadSafeRandom, DescribeAttempts(flags));
  AgentOptions options;
  options.info = DescribeWorker(flags);
  Agent agent(client, runner, ThreadSafeRandom, options);
  const absl::Status ended = Serve(flags, agent, client, **scratch);
  if (!ended.ok()) Log(Severity::kError, absl::StrCat("leaving: ", ended.message()));
  Stop(flags, agent, absl::IsUnavailable(ended));
  return ended.ok() ? 0 : 1;
}

}  // namespace
}  // namespace latentforge::agent

int main(int argc, char** argv) {
  latentforge::HoldStandardDescriptors();
  int exit_code = 0;
  const std::optional<latentforge::agent::WorkerFlags> flags =
      latentforge::agent::ParseWorkerFlags(argc, argv, &exit_code);
  return flags.has_value() ? latentforge::agent::Run(*flags) : exit_code;
}
