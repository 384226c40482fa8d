// Promise T8: callers that do not read cost the server bounded memory and no work, lose nothing,
// and disturb nobody.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/service/process_memory.h"
#include "tests/service/rpc_client.h"
#include "tests/service/server_process.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

constexpr int kReaders = 200;
constexpr int kReadersAConnection = 10;
constexpr int kEvents = 2000;
constexpr size_t kEventBytes = 4000;

// One open watch.
struct Watching {
  Watching(RpcClient& client, const std::string& job, int64_t from) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_from_sequence(from);
    stream = client.jobs->WatchJob(&context, request);
  }

  // The snapshot alone.
  bool Opened() {
    v1::WatchJobResponse message;
    return stream->Read(&message) && message.has_snapshot();
  }

  // Everything that comes, which must be dense after `last`; how the stream ended.
  grpc::Status ReadOn(int64_t& last) {
    for (v1::WatchJobResponse message; stream->Read(&message);) {
      if (!message.has_event()) continue;
      EXPECT_EQ(message.event().sequence(), last + 1);
      last = message.event().sequence();
    }
    return stream->Finish();
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::WatchJobResponse>> stream;
};

class SlowWatchersTest : public testing::Test {
 protected:
  void StartServer(std::vector<std::string> flags) {
    flags.insert(flags.end(), {"--lease-duration", "60s"});
    server_ = std::make_unique<ServerProcess>(dir_.path(), flags);
    server_->WaitReady();
    client_ = NewClient();
    v1::CreateJobResponse created;
    ASSERT_TRUE(client_->Create(TinyJob(dir_.path(), 0), &created).ok());
    job_ = created.job().name();
    lease_ = client_->Acquire().lease();
  }

  std::unique_ptr<RpcClient> NewClient() {
    return std::make_unique<RpcClient>(
        absl::StrCat("unix:", (dir_.path() / "server.sock").string()));
  }

  void Report(int count) {
    for (int done = 0; done < count;) {
      v1::ReportEventsRequest report;
      *report.mutable_lease() = lease_;
      for (int i = 0; i < 100 && done < count; ++i, ++done) {
        v1::AttemptEvent& event = *report.add_events();
        event.set_sequence(++reported_);
        event.mutable_log()->set_text(std::string(kEventBytes, 'x'));
      }
      Context context;
      v1::ReportEventsResponse response;
      const grpc::Status status = client_->workers->ReportEvents(&context, report, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
    }
  }

  TempDir dir_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<RpcClient> client_;
  std::string job_;
  v1::Lease lease_;
  int64_t reported_ = 0;
};

TEST_F(SlowWatchersTest, T8StalledReadersCostLittleAndDisturbNobody) {
  StartServer({"--watch-stall-timeout", "1m"});
  std::vector<std::unique_ptr<RpcClient>> clients;
  std::vector<std::unique_ptr<Watching>> stalled;
  for (int i = 0; i < kReaders; ++i) {
    if (i % kReadersAConnection == 0) clients.push_back(NewClient());
    stalled.push_back(std::make_unique<Watching>(*clients.back(), job_, 0));
  }
  for (const auto& watching : stalled) ASSERT_TRUE(watching->Opened());
  const int64_t before = RssMiB(server_->pid());
  int64_t seen = 0;
  Watching healthy(*client_, job_, 0);
  std::thread reader([&] { EXPECT_TRUE(healthy.ReadOn(seen).ok()); });
  Report(kEvents);
  ASSERT_TRUE(client_->Succeed(lease_).ok());
  reader.join();
  EXPECT_EQ(seen, kEvents + 3);
  const int64_t after = RssMiB(server_->pid());
  // All that they were not sent is 1.6 GB.
  RecordProperty("rss_before_mib", static_cast<int>(before));
  RecordProperty("rss_after_mib", static_cast<int>(after));
  std::printf("%d stalled readers, %d events of %zu bytes: %d MiB before, %d MiB after\n", kReaders,
              kEvents, kEventBytes, static_cast<int>(before), static_cast<int>(after));
  EXPECT_LT(after - before, 120 * kMemoryScale);
  // Whoever reads again has missed nothing.
  int64_t late = 0;
  EXPECT_TRUE(stalled.front()->ReadOn(late).ok());
  EXPECT_EQ(late, kEvents + 3);
}

TEST_F(SlowWatchersTest, AStalledReaderIsClosedAndGoesOnBehindWhatItHas) {
  StartServer({"--watch-stall-timeout", "2s", "--bookmark-interval", "200ms"});
  Watching stalled(*client_, job_, 0);
  ASSERT_TRUE(stalled.Opened());
  Report(kEvents);
  // Longer than the timeout, and less than twice that: then its stream would be reset.
  RealClock().SleepFor(absl::Milliseconds(2300));
  int64_t last = 0;
  const grpc::Status status = stalled.ReadOn(last);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(ReasonOf(status), "SLOW_CONSUMER");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry;
  EXPECT_TRUE(std::any_of(details.details().begin(), details.details().end(),
                          [&](const auto& any) { return any.UnpackTo(&retry); }));
  EXPECT_LT(last, kEvents);
  ASSERT_TRUE(client_->Succeed(lease_).ok());
  Watching resumed(*client_, job_, last);
  EXPECT_TRUE(resumed.ReadOn(last).ok());
  EXPECT_EQ(last, kEvents + 3);
}

TEST_F(SlowWatchersTest, AReaderThatNeverReadsAgainFreesItsPlace) {
  StartServer(
      {"--watch-stall-timeout", "500ms", "--max-watches", "1", "--bookmark-interval", "200ms"});
  const auto other = NewClient();
  Watching stalled(*other, job_, 0);
  ASSERT_TRUE(stalled.Opened());
  Report(kEvents);
  {
    Watching refused(*client_, job_, 0);
    int64_t none = 0;
    EXPECT_EQ(ReasonOf(refused.ReadOn(none)), "TOO_MANY_WATCHES");
  }
  const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(30);
  bool admitted = false;
  while (!admitted && RealClock().Monotonic() < deadline)
    admitted = Watching(*client_, job_, 0).Opened();
  EXPECT_TRUE(admitted);
}

}  // namespace
}  // namespace latentforge::service
