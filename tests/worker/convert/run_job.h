// Attempts of a TinyJob, in this process.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/sha256.h"
#include "tests/worker/convert/tiny_job.h"
#include "worker/convert/evaluate_command.h"
#include "worker/convert/pipeline.h"

namespace latentforge::convert {

// Every look at the monotonic clock takes a second, so that no progress event is
// left out; every look at the wall clock is one event.
class StepClock : public Clock {
 public:
  explicit StepClock(std::function<void()> on_event = nullptr) : on_event_(std::move(on_event)) {}
  absl::Time Now() const override {
    if (on_event_) on_event_();
    return absl::UnixEpoch();
  }
  absl::Duration Monotonic() const override { return absl::Seconds(++seconds_); }
  void SleepFor(absl::Duration) override {}

 private:
  std::function<void()> on_event_;
  mutable int64_t seconds_ = 0;
};

// The published artifact's perplexity on the windows that the job measured, and its figures.
inline Json EvaluateAgain(const TinyJob& job) {
  const auto evaluated = Evaluate({.model = job.out(),
                                   .text = job.root / "eval.txt",
                                   .windows = 3,
                                   .window_length = 32,
                                   .dtype = "float32",
                                   .device = "cpu",
                                   .threads = 1},
                                  /*events=*/nullptr, StopToken(), StepClock());
  EXPECT_TRUE(evaluated.ok()) << evaluated.status();
  return evaluated.ok() ? *evaluated : Json::object();
}

inline std::vector<Json> ReadEvents(const std::filesystem::path& path) {
  std::vector<Json> events;
  for (const absl::string_view line :
       absl::StrSplit(ReadFile(path).value(), '\n', absl::SkipEmpty())) {
    events.push_back(ParseJson(line).value());
  }
  return events;
}

struct Outcome {
  absl::Status status;
  std::vector<Json> events;
};

inline ConversionFolders FoldersOf(const TinyJob& job) {
  return {.work = job.work(), .statistics = job.root / "statistics"};
}

// Runs an attempt; asks it to stop at its event number `stop_at` (0: never).
inline Outcome RunJob(const TinyJob& job, int stop_at, const ConversionFolders& folders) {
  const std::filesystem::path path = job.root / "events.jsonl";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  StopToken stop;
  int count = 0;
  const StepClock clock([&] {
    if (++count == stop_at) stop.Request();
  });
  EventWriter events(fd.get(), clock);
  Outcome outcome;
  const absl::StatusOr<JobSpec> spec = ParseJobSpec(WriteJson(job.spec));
  outcome.status = spec.ok() ? RunConversion(*spec, folders, events, stop, clock) : spec.status();
  outcome.events = ReadEvents(path);
  return outcome;
}

inline Outcome RunJob(const TinyJob& job, int stop_at = 0) {
  return RunJob(job, stop_at, FoldersOf(job));
}

// The bytes of an artifact that do not hold times.
inline std::string ArtifactDigest(const std::filesystem::path& out) {
  std::string all;
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json"}) {
    const auto digest = Sha256File(out / name);
    EXPECT_TRUE(digest.ok()) << digest.status();
    all += *digest;
  }
  return all;
}

inline std::vector<std::string> Phases(const Outcome& outcome, const char* kind) {
  std::vector<std::string> phases;
  for (const Json& event : outcome.events) {
    if (event.contains(kind)) phases.push_back(event[kind]["phase"]);
  }
  return phases;
}

}  // namespace latentforge::convert
