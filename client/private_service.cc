#include "client/private_service.h"

#include <algorithm>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "client/result_table.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

constexpr char kServer[] = "latentforge-server";
constexpr char kWorker[] = "latentforge-worker";
constexpr absl::Duration kStopGrace = absl::Seconds(10);

std::filesystem::path ReadyFile(const std::filesystem::path& folder, const std::string& name) {
  return folder / absl::StrCat(name, ".ready");
}

std::filesystem::path LogFile(const std::filesystem::path& folder, const std::string& name) {
  return folder / absl::StrCat(name, ".log");
}

// Nobody else watches this server, so it drains at once. The short lease makes a
// cancellation reach the worker within two seconds, and lets a rerun take over the
// job of a killed run within six.
std::vector<std::string> ServerCommand(const PrivateServiceOptions& options,
                                       const std::string& address) {
  return {options.server,
          "--listen",
          address,
          "--database",
          options.folder / "jobs.db",
          "--ready-file",
          ReadyFile(options.folder, kServer),
          "--lease-duration",
          "6s",
          "--one-machine",
          "--drain-delay",
          "0s",
          "--drain-grace",
          "100ms"};
}

std::vector<std::string> WorkerCommand(const PrivateServiceOptions& options,
                                       const std::string& address) {
  return {options.worker, "--server", address, "--scratch", options.folder / "scratch",
          // Outlives this run: another budget needs no calibration.
          "--statistics", options.folder.parent_path() / "statistics", "--convert", options.convert,
          // There is no other machine for what seems too large: let it try.
          "--memory", "0", "--ready-file", ReadyFile(options.folder, kWorker)};
}

}  // namespace

std::string LogTail(const std::filesystem::path& path, int lines) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "";
  std::vector<std::string> all = absl::StrSplit(*text, '\n', absl::SkipWhitespace());
  if (static_cast<int>(all.size()) > lines) all.erase(all.begin(), all.end() - lines);
  std::string tail;
  for (const std::string& line : all) absl::StrAppend(&tail, "\n  | ", Printable(line));
  return tail;
}

absl::StatusOr<std::unique_ptr<PrivateService>> PrivateService::Start(
    const PrivateServiceOptions& options, Clock& clock) {
  std::unique_ptr<PrivateService> service(new PrivateService(options, clock));
  // A killed run leaves its socket; the folder is locked, so nobody uses it.
  LF_RETURN_IF_ERROR(RemoveTree(options.socket));
  LF_ASSIGN_OR_RETURN(service->server_,
                      service->StartOne(kServer, ServerCommand(options, service->address())));
  LF_ASSIGN_OR_RETURN(service->worker_,
                      service->StartOne(kWorker, WorkerCommand(options, service->address())));
  return service;
}

std::string PrivateService::address() const {
  return absl::StrCat("unix:", options_.socket.string());
}

absl::Status PrivateService::CheckOne(const std::string& name, ChildProcess& process) const {
  if (!process.Wait(absl::ZeroDuration())) return absl::OkStatus();
  // On a full disk its log is empty.
  LF_RETURN_IF_ERROR(CheckNotFull(options_.folder, options_.free_bytes));
  const std::filesystem::path log = LogFile(options_.folder, name);
  return WithNextStep(WithReason(absl::InternalError(absl::StrCat(
                                     name, " ended with ", process.exit_status().ToString(),
                                     "; the end of ", log.string(), ":", LogTail(log, 15))),
                                 "CHILD_DIED"),
                      absl::StrCat("less ", ShellWord(log.string()),
                                   "  (the same command again continues where this one stopped)"));
}

absl::StatusOr<std::unique_ptr<PrivateService::Program>> PrivateService::StartOne(
    const std::string& name, std::vector<std::string> command) const {
  const std::filesystem::path ready = ReadyFile(options_.folder, name);
  LF_RETURN_IF_ERROR(RemoveTree(ready));
  const std::filesystem::path log = LogFile(options_.folder, name);
  absl::StatusOr<std::unique_ptr<ChildProcess>> child =
      ChildProcess::Start({.argv = std::move(command), .log = log});
  if (!child.ok()) {
    LF_RETURN_IF_ERROR(CheckNotFull(options_.folder, options_.free_bytes));  // its log
    return WithReason(child.status(), "PROGRAM_UNUSABLE");
  }
  auto program = std::make_unique<Program>(*std::move(child));
  const absl::Duration deadline = clock_.Monotonic() + options_.patience;
  std::error_code error;
  while (!std::filesystem::exists(ready, error)) {
    LF_RETURN_IF_ERROR(CheckOne(name, *program->process));
    if (options_.interrupted && options_.interrupted()) return absl::CancelledError("interrupted");
    if (clock_.Monotonic() > deadline) {
      return absl::InternalError(
          absl::StrCat(name, " was not ready after ", absl::FormatDuration(options_.patience),
                       "; the end of ", log.string(), ":", LogTail(log, 15)));
    }
    clock_.SleepFor(absl::Milliseconds(10));
  }
  return program;
}

absl::Status PrivateService::Check() {
  LF_RETURN_IF_ERROR(CheckOne(kServer, *server_->process));
  return CheckOne(kWorker, *worker_->process);
}

void PrivateService::Stop() {
  worker_->process->Stop(kStopGrace);
  server_->process->Stop(kStopGrace);
}

}  // namespace latentforge::client
