// T4 and T9: two servers of one PostgreSQL, under a kill and under a storm of one request.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/faults/checker.h"
#include "tests/faults/proxied_cluster.h"
#include "tests/faults/servers.h"
#include "tests/service/rpc_client.h"

namespace latentforge::faults {
namespace {

using service::RpcClient;
using service::TinyJob;

class TwoServersTest : public testing::Test {
 protected:
  std::vector<std::string> addresses() const { return {cluster_.address(0), cluster_.address(1)}; }

  TempDir folder_;
  ProxiedCluster proxied_ = ProxiedCluster::OnPostgres(2, {.lease = "60s"});
  Cluster& cluster_ = proxied_.cluster();
};

// One worker with many leases, on one thread: keeps them, and reports under them, at whichever
// server answers.
class BusyWorker {
 public:
  BusyWorker(const std::vector<std::string>& addresses, size_t leases) {
    for (const std::string& address : addresses)
      clients_.push_back(std::make_unique<RpcClient>(address));
    while (leases_.size() < leases) {
      leases_.push_back(clients_[leases_.size() % clients_.size()]->Acquire().lease());
      EXPECT_NE(leases_.back().job(), "");
    }
  }

  // Tells one more event of each job; again until a server has taken it.
  void ReportAll() {
    ++sequence_;
    for (const v1::Lease& lease : leases_) {
      v1::ReportEventsRequest request;
      *request.mutable_lease() = lease;
      v1::AttemptEvent& event = *request.add_events();
      event.set_sequence(sequence_);
      event.mutable_log()->set_text(absl::StrCat("event ", sequence_));
      Insist([&](RpcClient& client) {
        service::Context context;
        v1::ReportEventsResponse response;
        return client.workers->ReportEvents(&context, request, &response);
      });
    }
  }

  void SucceedAll() {
    for (const v1::Lease& lease : leases_)
      Insist([&](RpcClient& client) { return client.Succeed(lease); });
  }

 private:
  template <typename Call>
  void Insist(const Call& call) {
    grpc::Status status;
    while (IsOfFault(status = call(*clients_[current_]))) current_ = 1 - current_;
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  std::vector<std::unique_ptr<RpcClient>> clients_;
  size_t current_ = 0;
  std::vector<v1::Lease> leases_;
  int64_t sequence_ = 0;
};

TEST_F(TwoServersTest, T4WatchesGoOnAtTheOtherServerAndNoJobStartsAgain) {
  constexpr int kJobs = 100, kWatchesOfEach = 2;
  std::vector<std::string> jobs;
  {
    RpcClient client(cluster_.address(0));
    for (int i = 0; i < kJobs; ++i) {
      v1::CreateJobResponse response;
      ASSERT_TRUE(client.Create(TinyJob(folder_.path(), i), &response).ok());
      jobs.push_back(response.job().name());
    }
  }
  BusyWorker worker(addresses(), kJobs);
  std::mutex mutex;
  History history;
  std::vector<std::thread> watchers;
  for (int i = 0; i < kJobs * kWatchesOfEach; ++i) {
    watchers.emplace_back([&, i] {
      Servers servers(addresses());
      Watched watched = Follow(servers, "", jobs[static_cast<size_t>(i % kJobs)], i % 3,
                               std::atomic<bool>(false));
      const std::lock_guard lock(mutex);
      history.watches.push_back(std::move(watched));
    });
  }
  for (int i = 0; i < 3; ++i) worker.ReportAll();
  cluster_.KillServer(0);
  cluster_.Ask(1);
  for (int i = 0; i < 3; ++i) worker.ReportAll();
  worker.SucceedAll();
  for (std::thread& watcher : watchers) watcher.join();
  for (const v1::Job& job : cluster_.List(/*active=*/false)) {
    EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
    EXPECT_EQ(job.status().attempt(), 1) << job.name() << " started again";
    history.submits[job.name()].insert(job.name());
    history.publications[job.name()] = {"the worker"};
    history.jobs[job.name()] = job;
    history.logs[job.name()] = cluster_.History(job.name());
    EXPECT_EQ(history.logs[job.name()].size(), 9u);
  }
  EXPECT_EQ(history.jobs.size(), static_cast<size_t>(kJobs));
  EXPECT_EQ(history.watches.size(), static_cast<size_t>(kJobs * kWatchesOfEach));
  for (const Watched& watched : history.watches) EXPECT_TRUE(watched.at_end.has_value());
  for (const Violation& violation : Check(history)) ADD_FAILURE() << violation.what;
}

TEST_F(TwoServersTest, T9AStormOfOneRequestMakesOneJob) {
  constexpr int kCalls = 200;
  v1::CreateJobRequest request = TinyJob(folder_.path(), 1);
  request.set_request_id("once");
  std::mutex mutex;
  std::map<std::string, int> answers;
  std::vector<std::thread> callers;
  std::atomic<bool> begin = false;
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([&, i] {
      RpcClient client(cluster_.address(static_cast<size_t>(i % 2)));
      while (!begin) std::this_thread::yield();
      for (int call = 0; call < kCalls / 20; ++call) {
        v1::CreateJobResponse response;
        const grpc::Status status = client.Create(request, &response);
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(status.ok()) << status.error_message();
        ++answers[response.ShortDebugString()];
      }
    });
  }
  begin = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_THAT(answers, testing::ElementsAre(testing::Pair(testing::_, kCalls)));
  EXPECT_EQ(cluster_.List(/*active=*/false).size(), 1u);
  // The same name for something else is refused at both.
  request.mutable_spec()->mutable_budget()->set_kv_budget(0.25);
  for (const std::string& address : addresses()) {
    RpcClient client(address);
    v1::CreateJobResponse response;
    const grpc::Status status = client.Create(request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(service::ReasonOf(status), "REQUEST_ID_REUSED");
  }
}

}  // namespace
}  // namespace latentforge::faults
