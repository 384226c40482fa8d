// Stands in for latentforge-convert in tests: the same command line, and a script
// instead of a computation.
//
//   fake_convert --spec FILE --work-dir DIR [--statistics DIR] [--lease FILE]
//               [--allowed-root DIR]...
// writes these arguments into DIR/arguments.
//
// The script is JSON: OUT.script.json, where OUT is the path of spec.output.uri,
// or else the file that LATENTFORGE_FAKE_SCRIPT names:
//   {"attempts": [[STEP, …], …]}      the last list serves all later attempts too
// The number of the attempt is counted in DIR/attempts, so it survives kills. Steps:
//   {"event": {…}}       prints an event; sequence and time are filled in
//   {"print": "text"}    prints a line as it is; {"write": "text"} without line end
//   {"stderr": "text", "times": N}
//   {"sleep_ms": N}      SIGTERM ends it with exit code 5
//   {"ignore_sigterm": true}
//   {"wait_for": PATH}   until PATH exists; SIGTERM ends it as above
//   {"append": PATH, "text": "…"}  adds a line to a file
//   {"once": NAME, "append": PATH, "text": "…"}  only if DIR/NAME is absent; makes it
//   {"publish": PATH, "log": FILE}  makes the folder PATH whole or not at all, by the real
//                        program's code, and adds who did it to FILE; nothing where an attempt
//                        has made it; exit code 3 where it may not be made
//   {"spawn_sleeper": PATH}  starts a grandchild that sleeps, writes its pid to PATH
//   {"signal": N}        sends N to itself
//   {"hang": true}       never ends
//   {"exit": N}
// "$DIR", "$OUT", "$PID" and "$ATTEMPT" in text and paths are replaced, in events "$OUT". After the
// last step it exits with 0.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/shared_deadline.h"
#include "base/status_macros.h"
#include "worker/export/manifest.h"
#include "worker/export/published.h"
#include "worker/export/staging.h"

namespace latentforge {
namespace {

constexpr char kArtifactId[] = "fake";
constexpr int kExitUsage = 2;
constexpr int kExitSystem = 3;
constexpr int kExitCancelled = 5;

volatile sig_atomic_t g_terminated = 0;

void OnTerminate(int) { g_terminated = 1; }

void SetTerminateHandler(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGTERM, &action, nullptr);
}

// The fake computes nothing, so it may wait.
void Nap() {
  if (g_terminated != 0) _exit(kExitCancelled);
  usleep(5000);
}

class Script {
 public:
  Script(std::filesystem::path work_dir, std::filesystem::path lease, std::string out, int attempt)
      : work_dir_(std::move(work_dir)),
        lease_(std::move(lease)),
        out_(std::move(out)),
        attempt_(attempt) {}

  void Run(const Json& steps) {
    for (const Json& step : steps) RunStep(step);
  }

 private:
  std::string Expand(const std::string& text) const {
    return absl::StrReplaceAll(text, {{"$DIR", work_dir_.string()},
                                      {"$OUT", out_},
                                      {"$PID", std::to_string(getpid())},
                                      {"$ATTEMPT", std::to_string(attempt_)}});
  }

  std::string Text(const Json& step, const char* key) const {
    return Expand(step.value(key, std::string()));
  }

  void PrintEvent(Json event) {
    if (!event.contains("sequence")) event["sequence"] = ++sequence_;
    if (!event.contains("time"))
      event["time"] = absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone());
    std::cout << absl::StrReplaceAll(WriteJson(event), {{"$OUT", out_}}) << std::endl;
  }

  void Append(const Json& step) const {
    std::ofstream(Text(step, "append"), std::ios::app) << Text(step, "text") << "\n" << std::flush;
  }

  void Once(const Json& step) const {
    const std::filesystem::path marker = work_dir_ / Text(step, "once");
    if (std::filesystem::exists(marker)) return;
    Append(step);
    std::ofstream(marker) << "done\n";
  }

  // By the real program's own code: what it holds under kills and stops is what is tested.
  void Publish(const Json& step) const {
    const std::filesystem::path out = Text(step, "publish");
    const std::string who = absl::StrCat("attempt ", attempt_, " of ", getpid());
    const absl::StatusOr<bool> made = Write(out, who);
    if (!made.ok()) {
      std::cerr << "fake_convert: " << made.status() << "\n";
      _exit(kExitSystem);
    }
    if (*made) std::ofstream(Text(step, "log"), std::ios::app) << who << "\n" << std::flush;
  }

  // False where an earlier attempt has made it.
  absl::StatusOr<bool> Write(const std::filesystem::path& out, const std::string& who) const {
    LF_RETURN_IF_ERROR(CheckLease());
    auto staging = exporter::StagingFolder::Create(out, kArtifactId);
    if (absl::IsAlreadyExists(staging.status())) return Find(out, staging.status());
    LF_RETURN_IF_ERROR(staging.status());
    LF_RETURN_IF_ERROR(staging->Write("weights", std::string(4096, 'w')));
    LF_RETURN_IF_ERROR(staging->Write("manifest", who));
    exporter::Manifest manifest{.job_id = kArtifactId};
    LF_RETURN_IF_ERROR(staging->ReadBack(manifest));
    LF_RETURN_IF_ERROR(
        WriteFileAtomic(staging->path() / exporter::kManifestName, ManifestToText(manifest)));
    LF_RETURN_IF_ERROR(CheckLease());
    const absl::Status published = staging->Publish();
    if (absl::IsAlreadyExists(published)) return Find(out, published);
    LF_RETURN_IF_ERROR(published);
    return true;
  }

  static absl::StatusOr<bool> Find(const std::filesystem::path& out, const absl::Status& taken) {
    LF_ASSIGN_OR_RETURN(const auto found, exporter::FindPublished(out, kArtifactId));
    if (!found.has_value()) return taken;
    return false;
  }

  absl::Status CheckLease() const {
    if (lease_.empty()) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(const SharedDeadline deadline, SharedDeadline::Open(lease_));
    if (RealClock().Monotonic() < deadline.Get()) return absl::OkStatus();
    return absl::AbortedError("the attempt's lease has ended");
  }

  void SpawnSleeper(const Json& step) const {
    const pid_t pid = fork();
    if (pid == 0) {
      for (;;) pause();
    }
    std::ofstream(Text(step, "spawn_sleeper")) << pid << std::flush;
  }

  void RunStep(const Json& step) {
    if (step.contains("event")) return PrintEvent(step["event"]);
    if (step.contains("print")) {
      std::cout << Text(step, "print") << std::endl;
    } else if (step.contains("write")) {
      std::cout << Text(step, "write") << std::flush;
    } else if (step.contains("stderr")) {
      for (int i = 0; i < step.value("times", 1); ++i) std::cerr << Text(step, "stderr") << "\n";
    } else if (step.contains("sleep_ms")) {
      const absl::Time end = absl::Now() + absl::Milliseconds(step["sleep_ms"].get<int>());
      while (absl::Now() < end) Nap();
    } else if (step.contains("ignore_sigterm")) {
      SetTerminateHandler(SIG_IGN);
    } else if (step.contains("wait_for")) {
      while (!std::filesystem::exists(Text(step, "wait_for"))) Nap();
    } else if (step.contains("publish")) {
      Publish(step);
    } else if (step.contains("once")) {
      Once(step);
    } else if (step.contains("append")) {
      Append(step);
    } else if (step.contains("spawn_sleeper")) {
      SpawnSleeper(step);
    } else if (step.contains("signal")) {
      raise(step["signal"].get<int>());
    } else if (step.contains("hang")) {
      for (;;) pause();
    } else if (step.contains("exit")) {
      _exit(step["exit"].get<int>());
    } else {
      std::cerr << "fake_convert: unknown step " << WriteJson(step) << "\n";
      _exit(kExitSystem);
    }
  }

  const std::filesystem::path work_dir_;
  const std::filesystem::path lease_;  // empty: none
  const std::string out_;
  const int attempt_;
  int sequence_ = 0;
};

absl::StatusOr<Json> ReadJson(const std::filesystem::path& path) {
  LF_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseJson(text);
}

// The path of spec.output.uri; empty where there is none.
std::string OutputOf(const Json& spec) {
  const Json output = spec.value("output", Json::object());
  return PathFromUri(output.value("uri", std::string())).value_or("").string();
}

absl::StatusOr<Json> FindScript(const Json& spec) {
  const std::filesystem::path script = OutputOf(spec) + ".script.json";
  if (std::filesystem::exists(script)) return ReadJson(script);
  const char* path = std::getenv("LATENTFORGE_FAKE_SCRIPT");
  if (path == nullptr) return absl::NotFoundError("no script for fake_convert");
  return ReadJson(path);
}

// Counts this attempt; the first is 1.
int CountAttempt(const std::filesystem::path& work_dir) {
  int attempts = 0;
  std::ifstream(work_dir / "attempts") >> attempts;
  std::ofstream(work_dir / "attempts") << ++attempts;
  return attempts;
}

// As the real program does: the work folder is locked while it runs.
bool Lock(const std::filesystem::path& work_dir) {
  const int fd = open((work_dir / "lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

// --spec FILE --work-dir DIR, then others that the real program has, each with a value.
bool IsUsage(const std::vector<std::string>& arguments) {
  if (arguments.size() < 4 || arguments.size() % 2 != 0) return false;
  for (size_t i = 4; i < arguments.size(); i += 2) {
    if (arguments[i] != "--statistics" && arguments[i] != "--allowed-root" &&
        arguments[i] != "--lease") {
      return false;
    }
  }
  return arguments[0] == "--spec" && arguments[2] == "--work-dir";
}

std::string LeaseOf(const std::vector<std::string>& arguments) {
  const auto found = std::find(arguments.begin(), arguments.end(), "--lease");
  return found == arguments.end() ? "" : *(found + 1);
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!IsUsage(arguments)) {
    std::cerr << "usage: fake_convert --spec FILE --work-dir DIR [--statistics DIR] "
                 "[--lease FILE] [--allowed-root DIR]...\n";
    return kExitUsage;
  }
  SetTerminateHandler(OnTerminate);
  const std::filesystem::path work_dir = argv[4];
  const absl::StatusOr<Json> spec = ReadJson(argv[2]);
  const absl::StatusOr<Json> script = spec.ok() ? FindScript(*spec) : spec.status();
  if (!script.ok() || !script->contains("attempts") || (*script)["attempts"].empty()) {
    std::cerr << "fake_convert: " << script.status() << "\n";
    return kExitSystem;
  }
  if (!Lock(work_dir)) {
    std::cerr << "fake_convert: " << work_dir << " is in use\n";
    return kExitSystem;
  }
  std::ofstream(work_dir / "arguments") << absl::StrJoin(arguments, " ");
  const int attempt = CountAttempt(work_dir);
  const Json& attempts = (*script)["attempts"];
  const size_t index = std::min<size_t>(static_cast<size_t>(attempt), attempts.size()) - 1;
  Script(work_dir, LeaseOf(arguments), OutputOf(*spec), attempt).Run(attempts[index]);
  return 0;
}

}  // namespace
}  // namespace latentforge

int main(int argc, char** argv) { return latentforge::Main(argc, argv); }
