// T19: the database is away for five seconds while jobs run.
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/faults/proxied_cluster.h"
#include "tests/service/rpc_client.h"

namespace latentforge::faults {
namespace {

using service::AskHealth;
using service::RpcClient;
using testing::ElementsAre;

constexpr char kJobService[] = "latentforge.v1.JobService";

TEST(StoreOutageTest, T19WorkersGoOnAndNothingIsLostOverFiveSeconds) {
  ProxiedCluster proxied = ProxiedCluster::OnPostgres(1, {.lease = "30s"});
  Cluster& cluster = proxied.cluster();
  cluster.StartWorker("w1");
  const std::string job =
      cluster.Submit({R"({"append":"@/work","text":"begun"},{"wait_for":"@/go"},)"
                      R"({"event":{"log":{"severity":"SEVERITY_INFO","text":"in the dark"}}},)"
                      R"({"append":"@/work","text":"done in attempt $ATTEMPT"},)"
                      R"({"event":{"result":{"artifactUri":"file:///out"}}})"});
  const std::string queued =
      cluster.Submit({R"({"event":{"result":{"artifactUri":"file:///2"}}})"});
  EXPECT_TRUE(Await([&] { return Lines(cluster.Path("work")).size() == 1; }));
  RpcClient client(cluster.address());
  EXPECT_EQ(AskHealth(client, kJobService), 1);

  const int64_t before = proxied.at_database().accepted();
  proxied.at_database().Set({.refused = true});
  proxied.at_database().Cut();
  const absl::Time begin = absl::Now();
  std::ofstream(cluster.Path("go")) << "go\n";
  EXPECT_TRUE(Await([&] { return AskHealth(client, kJobService) == 2; })) << "still ready";
  EXPECT_EQ(AskHealth(client, ""), 1) << "not alive";
  EXPECT_TRUE(Await([&] { return Lines(cluster.Path("work")).size() == 2; }))
      << "the computation stopped";
  int refused = 0;
  while (absl::Now() - begin < absl::Seconds(5)) {
    service::Context context;
    v1::GetJobRequest request;
    request.set_name(job);
    v1::GetJobResponse response;
    const absl::Time asked = absl::Now();
    const grpc::Status status = client.jobs->GetJob(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
    EXPECT_EQ(service::ReasonOf(status), "STORE_DOWN");
    EXPECT_TRUE(service::HasRetryDelay(status));
    EXPECT_LT(absl::Now() - asked, absl::Seconds(1));
    ++refused;
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_GT(refused, 20);
  const int64_t during = proxied.at_database().accepted() - before;
  proxied.at_database().Set({});
  EXPECT_TRUE(Await([&] { return AskHealth(client, kJobService) == 1; })) << "not ready again";

  const v1::Job ended = cluster.AwaitEnd(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED) << ended.ShortDebugString();
  EXPECT_EQ(ended.status().attempt(), 1);
  EXPECT_THAT(Lines(cluster.Path("work")), ElementsAre("begun", "done in attempt 1"));
  int logged = 0;
  for (const v1::JobEvent& event : cluster.History(job))
    logged += event.log().text() == "in the dark" ? 1 : 0;
  EXPECT_EQ(logged, 1);
  EXPECT_EQ(cluster.AwaitEnd(queued).status().state(), v1::JOB_STATE_SUCCEEDED);
  // However many calls there were: tries with pauses while it is away, and the pool afterwards.
  EXPECT_LE(during, 40);
  EXPECT_LE(proxied.at_database().accepted() - before - during, 20);
}

}  // namespace
}  // namespace latentforge::faults
