// latentforge-convert: one attempt of a conversion, or an evaluation.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/command_line.h"
#include "base/file.h"
#include "base/file_confinement.h"
#include "base/log.h"
#include "base/standard_descriptors.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/evaluate_command.h"
#include "worker/convert/event_writer.h"
#include "worker/convert/job_spec.h"
#include "worker/convert/pipeline.h"
#include "worker/convert/process_memory.h"
#include "worker/convert/stop_token.h"

namespace latentforge::convert {
namespace {

constexpr int kExitUsage = 2;

struct Flags {
  std::string spec;
  std::string work_dir;
  std::string statistics;
  std::string lease;
  std::vector<std::string> allowed_roots;
  EvaluateRequest evaluate;
  bool events = false;
};

absl::StatusOr<std::string> ReadSpec(const std::string& path) {
  if (path != "-") return ReadFile(path, 16 << 20);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

// Before any other thread starts. Where the kernel cannot do it, what the server checked has to do.
absl::Status HoldToRoots(const Flags& flags) {
  if (flags.allowed_roots.empty()) return absl::OkStatus();
  FileRoots roots = ProgramRoots();
  roots.read.push_back(flags.spec);
  for (const std::string& own : {flags.work_dir, flags.statistics}) {
    if (own.empty()) continue;
    LF_RETURN_IF_ERROR(CreateDirectories(own));
    roots.write.push_back(own);
  }
  roots.write.insert(roots.write.end(), flags.allowed_roots.begin(), flags.allowed_roots.end());
  const absl::Status held = ConfineFiles(roots);
  if (!absl::IsUnimplemented(held)) return held;
  Log(Severity::kWarning, absl::StrCat("not held to --allowed-root: ", held.message()));
  return absl::OkStatus();
}

int Convert(const Flags& flags) {
  EventWriter events(STDOUT_FILENO, RealClock());
  if (const absl::Status held = HoldToRoots(flags); !held.ok()) {
    Log(Severity::kError, std::string(held.message()));
    ReportEarlyError(held, events);
    return ExitCode(held);
  }
  const absl::StatusOr<std::string> text = ReadSpec(flags.spec);
  absl::StatusOr<JobSpec> spec = text.ok() ? ParseJobSpec(*text) : text.status();
  if (!spec.ok()) {
    const absl::Status status =
        WithReasonByCode(spec.status(), {{absl::StatusCode::kUnimplemented, "METHOD_NOT_SUPPORTED"},
                                         {absl::StatusCode::kOutOfRange, "RANK_OUT_OF_RANGE"},
                                         {absl::StatusCode::kNotFound, "INVALID_SPEC"},
                                         {absl::StatusCode::kPermissionDenied, "INVALID_SPEC"}});
    Log(Severity::kError, std::string(status.message()));
    ReportEarlyError(status, events);
    return ExitCode(status);
  }
  const absl::Status status = RunConversion(*spec, {flags.work_dir, flags.statistics, flags.lease},
                                            events, SignalStopToken(), RealClock());
  if (!status.ok()) Log(Severity::kError, std::string(status.message()));
  return ExitCode(status);
}

int RunEvaluate(const Flags& flags) {
  EventWriter events(STDERR_FILENO, RealClock());
  const absl::StatusOr<Json> result =
      Evaluate(flags.evaluate, flags.events ? &events : nullptr, SignalStopToken(), RealClock());
  if (!result.ok()) {
    if (flags.events && !absl::IsCancelled(result.status())) {
      ReportEarlyError(result.status(), events);
    } else {
      Log(Severity::kError, std::string(result.status().message()));
    }
    return ExitCode(result.status());
  }
  std::cout << WriteJson(*result, 2) << std::endl;
  return 0;
}

// libgomp's threads wait for each other in a busy loop, which on a machine that is shared
// takes the processor from those that they wait for: half the speed and less. To sleep at once is
// no better, as small products follow each other: the factorisation took three times as long. So
// they turn for some microseconds, then sleep. libgomp reads its settings when it is loaded, before
// main, so the program starts itself once more. A user's setting wins; where /proc is not there,
// waiting stays as it is.
void WaitShortly(char** argv) {
  constexpr char kSpinCount[] = "GOMP_SPINCOUNT";
  constexpr char kShortly[] = "2000";
  if (getenv(kSpinCount) != nullptr || getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv(kSpinCount, kShortly, /*overwrite=*/1);
  std::error_code error;
  // By its own name, which is what process lists show.
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) execv(self.c_str(), argv);
}

int Main(int argc, char** argv) {
  WaitShortly(argv);
  LimitHeap(kTightHeap);
  LimitKernelCaches();
  Flags flags;
  CLI::App app("Converts a transformer checkpoint to latent attention: one attempt of one job.",
               "latentforge-convert");
  app.set_version_flag("--version", kVersion);
  app.add_option("--spec", flags.spec, "Job specification, proto3 JSON; - reads stdin");
  app.add_option("--work-dir", flags.work_dir, "Scratch folder of the job");
  app.add_option("--statistics", flags.statistics,
                 "Folder of calibration statistics that later jobs use again (default: none)");
  app.add_option("--lease", flags.lease,
                 "File of the worker with the moment of the machine's monotonic clock behind which "
                 "nothing is published (default: none)");
  app.add_option("--allowed-root", flags.allowed_roots,
                 "Folder beneath which the job's files lie; no link leads elsewhere. Repeatable "
                 "(default: any file)")
      ->allow_extra_args(false);
  CLI::App* evaluate = app.add_subcommand("evaluate", "Measures perplexity");
  EvaluateRequest& request = flags.evaluate;
  evaluate->add_option("model", request.model, "Checkpoint or artifact folder")->required();
  evaluate->add_option("--text", request.text, "Plain text (UTF-8) or JSON lines")->required();
  evaluate->add_option("--text-field", request.text_field, "Field of JSON lines with the text");
  evaluate->add_option("--windows", request.windows, "Windows from the start; 0 means all")
      ->check(CLI::NonNegativeNumber);
  evaluate->add_option("--window-length", request.window_length, "Tokens in a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20));
  evaluate->add_option("--dtype", request.dtype, "bfloat16 or float32");
  evaluate->add_option("--device", request.device, "auto, cpu, cuda or cuda:N");
  evaluate->add_option("--threads", request.threads, "0 means all cores");
  evaluate->add_flag("--events", flags.events, "Progress as JSON lines on stderr");
  ExplainUnknownArguments(&app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  InstallStopSignals();
  ReleaseCodePages();
  if (evaluate->parsed()) return RunEvaluate(flags);
  if (flags.spec.empty() || flags.work_dir.empty()) {
    std::cerr << "latentforge-convert needs --spec and --work-dir, or the command evaluate\n";
    return kExitUsage;
  }
  return Convert(flags);
}

}  // namespace
}  // namespace latentforge::convert

int main(int argc, char** argv) {
  latentforge::HoldStandardDescriptors();
  return latentforge::convert::Main(argc, argv);
}
