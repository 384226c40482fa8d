// Real server and workers under random faults, held against what is promised. A short run with a
// fixed seed by default; scripts/faults sets LATENTFORGE_FAULT_SECONDS and LATENTFORGE_FAULT_SEED.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "tests/faults/checker.h"
#include "tests/faults/clients.h"
#include "tests/faults/injector.h"
#include "tests/faults/recorder.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

namespace fs = std::filesystem;

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  int64_t value = otherwise;
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << name << " is \"" << text << "\", expected a whole number";
  }
  return value;
}

// What the disk says of a job's artifact.
void AddArtifact(const std::string& name, const v1::Job& job, History& history) {
  const fs::path out = PathFromUri(job.spec().output().uri()).value();
  std::set<std::string> who;
  for (const std::string& line : Lines(out.string() + ".log")) who.insert(line);
  if (fs::exists(out)) {
    const std::vector<std::string> manifest = Lines(out / "manifest");
    if (manifest.size() == 1 && fs::file_size(out / "weights") == 4096) {
      who.insert(manifest[0]);
    } else {
      history.torn_artifacts.insert(name);
    }
  }
  if (!who.empty()) history.publications[name].assign(who.begin(), who.end());
}

class FaultsTest : public testing::Test {
 protected:
  // Waits until every job has ended, and completes the history.
  void Complete(History& history) {
    EXPECT_TRUE(Await([&] { return cluster_.List(/*active=*/true).empty(); }))
        << "jobs that do not end";
    for (const v1::Job& job : cluster_.List(/*active=*/false)) {
      history.jobs[job.name()] = job;
      history.logs[job.name()] = cluster_.History(job.name());
      AddArtifact(job.name(), job, history);
    }
  }

  Cluster cluster_;
};

void Print(const History& history, const Injector& injector, absl::Duration time) {
  std::map<std::string, int> ends;
  int64_t events = 0;
  for (const auto& [name, job] : history.jobs) {
    ++ends[v1::JobState_Name(job.status().state())];
    events += job.last_sequence();
  }
  int64_t faults = 0;
  for (const auto& [kind, count] : injector.counts()) {
    std::printf("%6lld  %s\n", static_cast<long long>(count), kind.c_str());
    faults += count;
  }
  std::printf("%lld faults in %s; %zu requests, %zu jobs, %lld events, %zu watches\n",
              static_cast<long long>(faults), absl::FormatDuration(time).c_str(),
              history.submits.size(), history.jobs.size(), static_cast<long long>(events),
              history.watches.size());
  for (const auto& [state, count] : ends) std::printf("%6d  %s\n", count, state.c_str());
}

TEST_F(FaultsTest, PromisesHoldUnderRandomFaults) {
  const absl::Duration length = absl::Seconds(FromEnvironment("LATENTFORGE_FAULT_SECONDS", 20));
  const auto seed = static_cast<uint64_t>(FromEnvironment("LATENTFORGE_FAULT_SEED", 1));
  const std::vector<std::string> workers = {"w1", "w2", "w3"};
  for (const std::string& name : workers) cluster_.StartWorker(name);
  Recorder recorder;
  Injector injector(cluster_, workers, seed);
  const absl::Time begin = absl::Now();
  {
    Clients clients({.address = cluster_.address(), .folder = cluster_.Path(""), .seed = seed},
                    recorder);
    std::mt19937_64 random(seed + 1);
    while (absl::Now() - begin < length && !HasFailure()) {
      absl::SleepFor(absl::Milliseconds(50 + random() % 300));
      injector.Inject();
    }
  }
  History history = recorder.Take();
  Complete(history);
  Print(history, injector, absl::Now() - begin);
  EXPECT_GT(history.jobs.size(), 10u);
  EXPECT_GT(history.watches.size(), 10u);
  for (const Violation& violation : Check(history)) {
    ADD_FAILURE() << "promise (" << violation.promise << "): " << violation.what;
  }
}

}  // namespace
}  // namespace latentforge::faults
