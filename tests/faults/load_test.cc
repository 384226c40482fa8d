// T17, T18 and T28, short: a long queue, many watchers that lose their server, and what a server
// has grown by after many jobs. Times are medians held against what is allowed in the worst case,
// so that a busy machine fails nothing; `scripts/bench service` measures the worst ones.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/faults/watcher.h"
#include "tests/service/rpc_client.h"
#include "tests/service/temp_dir.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {
namespace {

namespace fs = std::filesystem;
using service::RpcClient;
using service::TinyJob;

// What a process has of the machine.
struct Footprint {
  int64_t rss_kib = 0;
  int64_t threads = 0;
  int64_t descriptors = 0;
};

Footprint FootprintOf(pid_t pid) {
  Footprint found;
  for (const std::string& line : Lines(absl::StrCat("/proc/", pid, "/status"))) {
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() < 2) continue;
    int64_t value = 0;
    if (!absl::SimpleAtoi(words[1], &value)) continue;
    if (words[0] == "VmRSS:") found.rss_kib = value;
    if (words[0] == "Threads:") found.threads = value;
  }
  const fs::directory_iterator descriptors(absl::StrCat("/proc/", pid, "/fd"));
  found.descriptors = std::distance(fs::begin(descriptors), fs::end(descriptors));

  return found;
}

absl::Duration Median(std::vector<absl::Duration> times) {
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

template <typename Call>
absl::Duration Timed(const Call& call) {
  const absl::Time begin = absl::Now();
  const grpc::Status status = call();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return absl::Now() - begin;
}

class LoadTest : public testing::Test {
 protected:
  // Submits jobs of these numbers; their names.
  std::vector<std::string> Submit(int first, int count) {
    RpcClient client(cluster_.address());
    std::vector<std::string> names;
    for (int i = first; i < first + count; ++i) {
      v1::CreateJobResponse response;
      submits_.push_back(
          Timed([&] { return client.Create(TinyJob(files_.path(), i), &response); }));
      names.push_back(response.job().name());
    }
    return names;
  }

  TempDir files_;
  // All calls here are of one tenant.
  Cluster cluster_{{.server_flags = {"--max-watches-per-tenant", "0"}, .lease = "60s"}};
  std::vector<absl::Duration> submits_;
};

TEST_F(LoadTest, T17TenThousandQueuedJobs) {
  constexpr int kJobs = 10'000, kThreads = 16;
  Submit(0, 1);  // makes the files
  {
    std::vector<std::thread> submitters;
    for (int t = 0; t < kThreads; ++t) {
      submitters.emplace_back([&, t] {
        RpcClient client(cluster_.address());
        for (int i = 1 + t; i < kJobs; i += kThreads) {
          v1::CreateJobResponse response;
          const grpc::Status status = client.Create(TinyJob(files_.path(), i), &response);
          ASSERT_TRUE(status.ok()) << status.error_message();
        }
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
  }
  RpcClient client(cluster_.address());
  submits_.clear();
  Submit(kJobs, 100);
  EXPECT_LT(Median(submits_), absl::Milliseconds(50));

  std::vector<absl::Duration> pages;
  v1::ListJobsRequest list;
  list.mutable_filter()->add_states(v1::JOB_STATE_QUEUED);
  int64_t listed = 0;
  do {
    v1::ListJobsResponse response;
    pages.push_back(Timed([&] {
      service::Context context;
      return client.jobs->ListJobs(&context, list, &response);
    }));
    listed += response.jobs_size();
    list.set_page_token(response.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_EQ(listed, kJobs + 100);
  EXPECT_LT(Median(pages), absl::Milliseconds(100));

  std::vector<absl::Duration> dispatches;
  for (int i = 0; i < 200; ++i) {
    v1::AcquireLeaseResponse response;
    dispatches.push_back(Timed([&] {
      service::Context context;
      return client.workers->AcquireLease(&context, RpcClient::AcquireRequest(20), &response);
    }));
    EXPECT_TRUE(client.Succeed(response.lease()).ok());
  }
  EXPECT_LT(Median(dispatches), absl::Milliseconds(50));
  EXPECT_LT(FootprintOf(cluster_.server().pid()).rss_kib, 100 << 10);
}

TEST_F(LoadTest, T18AThousandWatchersLoseTheirServerAndNoEvent) {
  constexpr int kJobs = 50, kWatchers = 1000, kEvents = 20;
  const std::vector<std::string> jobs = Submit(0, kJobs);
  std::vector<v1::Lease> leases;
  {
    RpcClient client(cluster_.address());
    for (int i = 0; i < kJobs; ++i) leases.push_back(client.Acquire().lease());
  }
  const WatcherPool pool(cluster_.address(), 8);
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (size_t i = 0; i < kWatchers; ++i)
    watchers.push_back(std::make_unique<Watcher>(pool, i, jobs[i % kJobs]));
  const auto report = [&](int event) {
    RpcClient client(cluster_.address());
    for (const v1::Lease& lease : leases) {
      service::Context context;
      context.set_wait_for_ready(true);
      v1::ReportEventsRequest request;
      *request.mutable_lease() = lease;
      request.add_events()->set_sequence(event);
      request.mutable_events(0)->mutable_log()->set_text("an event");
      v1::ReportEventsResponse response;
      const grpc::Status status = client.workers->ReportEvents(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
    }
  };
  for (int event = 1; event <= kEvents / 2; ++event) report(event);
  for (const auto& watcher : watchers) {
    EXPECT_TRUE(Await([&] { return watcher->last_sequence() == kEvents / 2 + 2; }))
        << watcher->last_sequence();
  }
  EXPECT_LT(FootprintOf(cluster_.server().pid()).rss_kib, 200 << 10);
  cluster_.KillServer();
  cluster_.StartServer();
  for (int event = kEvents / 2 + 1; event <= kEvents; ++event) report(event);
  RpcClient client(cluster_.address());
  for (const v1::Lease& lease : leases) EXPECT_TRUE(client.Succeed(lease).ok());
  for (const auto& watcher : watchers) {
    EXPECT_EQ(watcher->Wait(), "");
    EXPECT_EQ(watcher->last_sequence(), kEvents + 3);  // queued, running, and the end
    EXPECT_GE(watcher->streams(), 2);
  }
  EXPECT_LT(FootprintOf(cluster_.server().pid()).rss_kib, 200 << 10);
}

TEST_F(LoadTest, T28AServerDoesNotGrowWithTheJobsThatItHasServed) {
  int number = 0;
  const auto serve = [&](int jobs) {
    RpcClient client(cluster_.address());
    for (int i = 0; i < jobs; ++i) {
      const std::string job = Submit(++number, 1).front();
      EXPECT_TRUE(client.Succeed(client.Acquire().lease()).ok());
      service::Context watch_context, delete_context;
      v1::WatchJobRequest watch;
      watch.set_name(job);
      watch.set_from_sequence(0);
      const auto stream = client.jobs->WatchJob(&watch_context, watch);
      for (v1::WatchJobResponse message; stream->Read(&message);) {
      }
      EXPECT_TRUE(stream->Finish().ok());
      v1::DeleteJobRequest request;
      request.set_name(job);
      v1::DeleteJobResponse response;
      EXPECT_TRUE(client.jobs->DeleteJob(&delete_context, request, &response).ok());
    }
  };
  serve(200);  // what it needs once
  const Footprint warm = FootprintOf(cluster_.server().pid());
  for (int round = 0; round < 3; ++round) serve(300);
  const Footprint later = FootprintOf(cluster_.server().pid());
  EXPECT_LE(later.rss_kib, warm.rss_kib + (4 << 10));
  EXPECT_LE(later.threads, warm.threads + 2);  // gRPC keeps as many as it last needed
  EXPECT_LE(later.descriptors, warm.descriptors + 2);
  EXPECT_TRUE(cluster_.List(/*active=*/false).empty());
}

}  // namespace
}  // namespace latentforge::faults
