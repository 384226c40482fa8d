// latentforge-server: keeps jobs and leases them to workers.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/standard_descriptors.h"
#include "base/version.h"
#include "grpc/grpc.h"
#include "service/options.h"
#include "service/server.h"
#include "service/start_advice.h"
#include "service/store/open_store.h"

namespace latentforge::service {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// One for each connection.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
    Log(Severity::kWarning, "the limit of open files stays as it is");
}

int Fail(const absl::Status& status) {
  Log(Severity::kError, absl::StrCat("latentforge-server cannot start: ", status.message()),
      {{"code", absl::StatusCodeToString(status.code())}});
  Log(Severity::kError, absl::StrCat("next: ", StartAdvice(status)));
  return 1;
}

absl::Status Announce(const Server& server, const ServerOptions& options) {
  std::string lines;
  for (const std::string& address : server.addresses()) {
    Log(Severity::kInfo, absl::StrCat("listening on ", address));
    absl::StrAppend(&lines, address, "\n");
  }
  if (!server.metrics_address().empty()) {
    Log(Severity::kInfo, absl::StrCat("metrics on http://", server.metrics_address(), "/metrics"));
    absl::StrAppend(&lines, "metrics ", server.metrics_address(), "\n");
  }
  if (options.ready_file.empty()) return absl::OkStatus();
  return WriteFileAtomic(options.ready_file, lines);
}

int Run(const ServerOptions& options) {
  ConfigureLog(options.json_log ? LogFormat::kJson : LogFormat::kText, Severity::kInfo);
  // Database and socket are for this user alone, whatever the shell's umask.
  umask(0077);
  RaiseDescriptorLimit();
  // Blocked before any thread starts, so that only sigwait below sees them.
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // curl may write to a connection that is gone.
  signal(SIGPIPE, SIG_IGN);
  // Kept for the life of the process: gRPC's own shutdown, when its last user goes,
  // may wait 10 s for the remains of a broken connection.
  grpc_init();
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options, RealClock());
  if (!server.ok()) return Fail(server.status());
  Log(Severity::kInfo, absl::StrCat("latentforge-server ", kVersion, " is serving"),
      {{"database", DescribeDatabase(options.database)}});
  if (const absl::Status announced = Announce(**server, options); !announced.ok())
    return Fail(announced);
  int signal = 0;
  sigwait(&signals, &signal);
  Log(Severity::kInfo, "stopping; a second signal ends the process at once",
      {{"signal", strsignal(signal)}});
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  (*server)->Stop();
  Log(Severity::kInfo, "stopped");
  return 0;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<CommandLine> line = ParseCommandLine(argc, argv);
  if (!line.ok()) {
    std::fprintf(stderr, "latentforge-server: %s\n", std::string(line.status().message()).c_str());
    return 2;
  }
  return line->done ? line->exit_code : Run(line->options);
}

}  // namespace
}  // namespace latentforge::service

int main(int argc, char** argv) {
  latentforge::HoldStandardDescriptors();
  return latentforge::service::Main(argc, argv);
}
