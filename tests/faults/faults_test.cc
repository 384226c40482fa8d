// Real servers and workers under random faults, held against what is promised: one server on
// SQLite, two on PostgreSQL. A short run with a fixed seed by default; scripts/faults sets
// LATENTFORGE_FAULT_SECONDS and LATENTFORGE_FAULT_SEED.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "tests/faults/checker.h"
#include "tests/faults/clients.h"
#include "tests/faults/injector.h"
#include "tests/faults/proxied_cluster.h"
#include "tests/faults/recorder.h"

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

struct StoreParam {
  const char* name;
  bool postgresql;
};

const std::vector<Tenant> kTenants = {{"ads", "token-of-ads"}, {"search", "token-of-search"}};

std::string WriteTokens(const fs::path& file) {
  std::ofstream tokens(file);
  for (const Tenant& tenant : kTenants)
    tokens << "sha256:" << Sha256Hex(tenant.token) << " client " << tenant.name << " user\n";
  return file.string();
}

class FaultsTest : public testing::TestWithParam<StoreParam> {
 protected:
  static ProxiedCluster Start(const fs::path& token_file) {
    ClusterOptions options;
    options.server_flags = {"--token-file", token_file.string(), "--max-attempts", "6"};
    return GetParam().postgresql ? ProxiedCluster::OnPostgres(2, options) : ProxiedCluster(options);
  }

  // Workers, spread over the servers, and every connection.
  Targets StartTargets() {
    Targets targets{.worker_link = {"workers and servers", {}},
                    .client_link = {"clients and servers", {}},
                    .database_link = {"servers and database", {}}};
    for (size_t server = 0; server < cluster_.servers(); ++server) {
      targets.worker_link.proxies.push_back(&proxied_.at_workers(server));
      targets.client_link.proxies.push_back(&proxied_.at_clients(server));
      if (GetParam().postgresql)
        targets.database_link.proxies.push_back(&proxied_.at_database(server));
    }
    for (size_t i = 0; i < 3; ++i) {
      const std::string name = absl::StrCat("w", i);
      targets.workers[name].server = proxied_.worker_address(i % cluster_.servers());
      cluster_.StartWorker(name, targets.workers[name]);
    }
    return targets;
  }

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

  TempDir folder_;
  ProxiedCluster proxied_ = Start(WriteTokens(folder_.path() / "tokens"));
  Cluster& cluster_ = proxied_.cluster();
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
    if (kind[0] != ' ') faults += count;
  }
  std::printf("%lld faults in %s; %zu requests, %zu jobs, %lld events, %zu watches\n",
              static_cast<long long>(faults), absl::FormatDuration(time).c_str(),
              history.submits.size(), history.jobs.size(), static_cast<long long>(events),
              history.watches.size());
  for (const auto& [state, count] : ends) std::printf("%6d  %s\n", count, state.c_str());
}

TEST_P(FaultsTest, PromisesHoldUnderRandomFaults) {
  const absl::Duration length = absl::Seconds(FromEnvironment("LATENTFORGE_FAULT_SECONDS", 9));
  const auto seed = static_cast<uint64_t>(FromEnvironment("LATENTFORGE_FAULT_SEED", 1));
  Recorder recorder;
  Injector injector(cluster_, StartTargets(), seed);
  const absl::Time begin = absl::Now();
  {
    ClientOptions options{.tenants = kTenants, .folder = cluster_.Path(""), .seed = seed};
    for (size_t server = 0; server < cluster_.servers(); ++server)
      options.addresses.push_back(proxied_.client_address(server));
    Clients clients(options, recorder);
    std::mt19937_64 random(seed + 1);
    // Longer where the machine is so busy that little happens.
    while ((absl::Now() - begin < length || !recorder.Enough()) && !HasFailure()) {
      absl::SleepFor(absl::Milliseconds(20 + random() % 180));
      injector.Inject();
    }
  }
  History history = recorder.Take();
  Complete(history);
  Print(history, injector, absl::Now() - begin);
  for (const Violation& violation : Check(history)) {
    ADD_FAILURE() << "promise (" << violation.promise << "): " << violation.what;
  }
}

INSTANTIATE_TEST_SUITE_P(Store, FaultsTest,
                         testing::Values(StoreParam{"sqlite", false},
                                         StoreParam{"postgresql", true}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace latentforge::faults
