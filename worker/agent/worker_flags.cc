#include "worker/agent/worker_flags.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "base/child_process.h"
#include "base/command_line.h"
#include "base/device_name.h"
#include "base/version.h"
#include "worker/agent/machine.h"

namespace latentforge::agent {
namespace {

std::string CheckDuration(const std::string& text) {
  absl::Duration parsed;
  if (absl::ParseDuration(text, &parsed) && parsed >= absl::ZeroDuration()) return "";
  return absl::StrCat("\"", text, "\" is no duration, expected for example 10s");
}

// A flag that takes a duration such as 10s, 500ms or 1h30m.
void AddDuration(CLI::App& app, const std::string& name, absl::Duration& value,
                 const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [&value](const std::string& text) {
           // CheckDuration has seen that it parses.
           if (absl::Duration parsed; absl::ParseDuration(text, &parsed)) value = parsed;
         },
         help)
      ->check(CLI::Validator(std::function<std::string(std::string&)>(CheckDuration), "DURATION"));
}

void AddSecurity(CLI::App& app, ChannelSecurity& security) {
  app.add_option("--tls-ca", security.ca,
                 "Certificates (PEM) that vouch for the server (default: the system's; none of "
                 "these flags: no TLS)")
      ->envname("LATENTFORGE_TLS_CA");
  app.add_option("--tls-cert", security.certificate, "This worker's certificate (PEM)")
      ->envname("LATENTFORGE_TLS_CERT");
  app.add_option("--tls-key", security.key, "Its key (PEM)")->envname("LATENTFORGE_TLS_KEY");
  app.add_option("--tls-server-name", security.server_name,
                 "Name in the server's certificate (default: that of --server)")
      ->envname("LATENTFORGE_TLS_SERVER_NAME");
  app.add_option("--token-file", security.token_file,
                 "File that holds this worker's token alone; read again for each call")
      ->envname("LATENTFORGE_TOKEN_FILE");
}

std::string CheckLabel(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && equals > 0 && equals + 1 < text.size()) return "";
  return absl::StrCat("\"", text, "\" is no label, expected KEY=VALUE such as zone=a");
}

std::string CheckDevice(const std::string& text) {
  return std::string(CheckDeviceName(text).message());
}

// What jobs go by when they choose a worker.
void AddOffer(CLI::App& app, WorkerFlags& flags) {
  app.add_option_function<std::vector<std::string>>(
         "--label",
         [&flags](const std::vector<std::string>& labels) {
           for (const std::string& label : labels) {
             const size_t equals = label.find('=');
             flags.labels[label.substr(0, equals)] = label.substr(equals + 1);
           }
         },
         "Label that jobs may ask for with --worker-label; repeatable")
      ->check(CLI::Validator(std::function<std::string(std::string&)>(CheckLabel), "KEY=VALUE"))
      ->allow_extra_args(false);
  app.add_option(
         "--memory", flags.memory_bytes,
         "Memory that one attempt may use, such as 24GiB: jobs estimated to need more go to "
         "other workers; 0: take any job (default: the least of the machine's memory and "
         "the cgroup's limits, divided by --slots)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
      ->type_name("SIZE");
}

void FillDefaults(WorkerFlags& flags) {
  if (flags.memory_bytes < 0) flags.memory_bytes = UsableMemoryBytes("/") / flags.slots;
  if (flags.name.empty()) flags.name = absl::StrCat(HostName(), "-", getpid());
  if (flags.scratch.empty()) flags.scratch = DefaultScratch().string();
  if (flags.statistics.empty()) {
    flags.statistics = (std::filesystem::path(flags.scratch) / "statistics").string();
  }
  if (flags.convert.empty()) flags.convert = SiblingProgram("latentforge-convert").string();
  if (flags.threads == 0 && flags.slots > 1) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    flags.threads = std::max(1, cores / flags.slots);
  }
}

// CLI11's own exit code; 0 also after help or version, and then *run stays false.
int Parse(int argc, const char* const* argv, WorkerFlags& flags, bool* run) {
  bool json_log = false;
  CLI::App app("Runs the conversions that a latentforge-server hands out.", "latentforge-worker");
  app.set_version_flag("--version", std::string("latentforge-worker ") + kVersion);
  app.add_option("--server", flags.server, "Server: HOST:PORT or unix:/PATH")
      ->capture_default_str();
  AddSecurity(app, flags.security);
  app.add_option("--name", flags.name, "Name, unique among workers (default: HOST-PID)");
  app.add_option("--slots", flags.slots, "Attempts that run at once")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  AddOffer(app, flags);
  app.add_option(
      "--scratch", flags.scratch,
      absl::StrCat("Folder for files of running jobs (default: ", DefaultScratch().string(), ")"));
  app.add_option("--statistics", flags.statistics,
                 "Folder of calibration statistics that later jobs use again, at most 4 GiB "
                 "(default: SCRATCH/statistics)");
  app.add_option("--allowed-root", flags.allowed_roots,
                 "Folder beneath which jobs' models, texts and results lie: attempts touch no file "
                 "elsewhere, wherever a link leads, and none that the server keeps from the job. "
                 "Repeatable (default: what the server says)")
      ->check(CLI::ExistingDirectory)
      ->allow_extra_args(false);
  AddDuration(app, "--scratch-keep", flags.scratch_keep,
              "Remove unused scratch files after this time (default: 168h)");
  app.add_option("--convert", flags.convert,
                 "The latentforge-convert program (default: beside us)");
  app.add_option("--device", flags.device, "Device of jobs that name none: auto, cpu, cuda, cuda:N")
      ->check(CLI::Validator(std::function<std::string(std::string&)>(CheckDevice), "DEVICE"));
  app.add_option("--threads", flags.threads,
                 "Threads of each attempt whose job names none (default: cores / slots)")
      ->check(CLI::Range(0, 4096));
  app.add_option("--ready-file", flags.ready_file, "Written once the server has answered");
  AddDuration(app, "--stop-grace", flags.stop_grace,
              "How long a stopped conversion may take to end (default: 10s)");
  AddDuration(app, "--exit-when-server-gone", flags.exit_when_server_gone,
              "Exit when the server has not answered for this long (default: never)");
  app.add_flag("--log-json", json_log, "Log in JSON lines");
  ExplainUnknownArguments(&app);
  CLI11_PARSE(app, argc, argv);
  if (json_log) flags.log_format = LogFormat::kJson;
  *run = true;
  return 0;
}

}  // namespace

std::optional<WorkerFlags> ParseWorkerFlags(int argc, const char* const* argv, int* exit_code) {
  WorkerFlags flags;
  bool run = false;
  *exit_code = Parse(argc, argv, flags, &run) == 0 ? 0 : 2;
  if (!run) return std::nullopt;
  FillDefaults(flags);
  return flags;
}

}  // namespace latentforge::agent
