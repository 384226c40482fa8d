// lf_service_load: puts one load on a running server, and prints what it measured as JSON.
#include <cstdio>
#include <filesystem>
#include <string>

#include "CLI/CLI.hpp"
#include "base/file.h"
#include "bench/service/loads.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::bench {
namespace {

struct Arguments {
  std::string load, server, folder;
  int64_t jobs = 1000;
  int concurrency = 64;
  int workers = 1;
  int64_t watches = 1000;
  int64_t events = 20;
  double interval_ms = 20;
  int connections = 8;
};

absl::Status Prepare(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder / "text.txt")) return absl::OkStatus();
  const absl::Status written = checkpoint::WriteTinyCheckpoint(folder / "model");
  return written.ok() ? WriteFileAtomic(folder / "text.txt", std::string(1 << 16, 'a')) : written;
}

Json Measure(const Arguments& arguments, Target& target) {
  const absl::Duration interval = absl::Milliseconds(arguments.interval_ms);
  if (arguments.load == "submit") {
    return SubmitLoad(target, arguments.jobs, arguments.concurrency);
  }
  if (arguments.load == "dispatch") {
    return DispatchLoad(target, arguments.jobs, arguments.workers, interval);
  }
  if (arguments.load == "list") return ListLoad(target, arguments.jobs);
  return WatchLoad(target, {.watches = arguments.watches,
                            .jobs = arguments.jobs,
                            .events = arguments.events,
                            .interval = interval});
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Puts a load on a latentforge-server, and prints what it measured as JSON.");
  app.add_option("load", arguments.load, "What to do")
      ->required()
      ->check(CLI::IsMember({"submit", "dispatch", "list", "watch"}));
  app.add_option("--server", arguments.server, "Address of the server")->required();
  app.add_option("--folder", arguments.folder, "Where jobs' files are made")->required();
  app.add_option("--jobs", arguments.jobs, "Jobs; calls of list")->capture_default_str();
  app.add_option("--concurrency", arguments.concurrency, "Submits at a time")
      ->capture_default_str();
  app.add_option("--workers", arguments.workers, "Waiting workers")->capture_default_str();
  app.add_option("--watches", arguments.watches, "Open watches")->capture_default_str();
  app.add_option("--events", arguments.events, "Events of each job")->capture_default_str();
  app.add_option("--interval-ms", arguments.interval_ms, "Between submits, or a job's events")
      ->capture_default_str();
  app.add_option("--connections", arguments.connections, "Connections")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (const absl::Status prepared = Prepare(arguments.folder); !prepared.ok()) {
    std::fprintf(stderr, "lf_service_load: %s\n", std::string(prepared.message()).c_str());
    return 1;
  }
  Target target(arguments.server, arguments.folder, arguments.connections);
  std::printf("%s\n", Measure(arguments, target).dump().c_str());
  return 0;
}

}  // namespace
}  // namespace latentforge::bench

int main(int argc, char** argv) { return latentforge::bench::Main(argc, argv); }
