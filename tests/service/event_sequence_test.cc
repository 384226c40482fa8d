// Promise T27: the events of a job are dense whatever is killed, and once old ones are removed
// whoever asks for them is told where the rest begins.
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/service/rpc_client.h"
#include "tests/service/server_process.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

constexpr int kEventsInAll = 10'000;
constexpr int kBatchSize = 50;

class EventSequenceTest : public testing::Test {
 protected:
  void StartServer(const std::vector<std::string>& more = {}) {
    server_.reset();
    std::vector<std::string> flags = {"--lease-duration", "60s"};
    flags.insert(flags.end(), more.begin(), more.end());
    server_ = std::make_unique<ServerProcess>(dir_.path(), flags);
    server_->WaitReady();
    client_ =
        std::make_unique<RpcClient>(absl::StrCat("unix:", (dir_.path() / "server.sock").string()));
  }

  // As a worker does it: again until it is answered.
  grpc::Status Report(const v1::Lease& lease, int64_t first) {
    v1::ReportEventsRequest report;
    *report.mutable_lease() = lease;
    for (int64_t sequence = first; sequence < first + kBatchSize; ++sequence) {
      report.add_events()->set_sequence(sequence);
      report.mutable_events(report.events_size() - 1)->mutable_perplexity()->set_value(2);
    }
    Context context;
    context.set_wait_for_ready(true);
    v1::ReportEventsResponse response;
    return client_->workers->ReportEvents(&context, report, &response);
  }

  // The events after `from` until `last`, which must be dense; how the watch ended otherwise.
  grpc::Status ReadAll(const std::string& job, int64_t from, int64_t last) {
    Context context;
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_from_sequence(from);
    const auto watch = client_->jobs->WatchJob(&context, request);
    v1::WatchJobResponse message;
    int64_t sequence = from;
    while (sequence < last && watch->Read(&message)) {
      if (!message.has_event()) continue;
      EXPECT_EQ(message.event().sequence(), ++sequence);
    }
    if (sequence < last) return watch->Finish();
    context.TryCancel();
    while (watch->Read(&message)) continue;
    watch->Finish();
    return grpc::Status::OK;
  }

  TempDir dir_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<RpcClient> client_;
};

TEST_F(EventSequenceTest, T27TenThousandEventsAreDenseOverKillsAndCompacted) {
  StartServer();
  v1::CreateJobResponse created;
  ASSERT_TRUE(client_->Create(TinyJob(dir_.path(), 0), &created).ok());
  const std::string job = created.job().name();
  const v1::Lease lease = client_->Acquire().lease();
  std::mt19937 random(27);
  int kills = 0;
  for (int64_t next = 1; next <= kEventsInAll;) {
    if (random() % 20 == 0) {
      ++kills;
      server_->Kill(SIGKILL);
      StartServer();
    }
    const grpc::Status status = Report(lease, next);
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) continue;
    ASSERT_TRUE(status.ok()) << status.error_message();
    // Now and then the answer is lost.
    if (random() % 10 != 0) next += kBatchSize;
  }
  EXPECT_GE(kills, 5);
  const int64_t last = kEventsInAll + 2;  // queued and running came before
  EXPECT_TRUE(ReadAll(job, 0, last).ok());

  server_->Kill(SIGKILL);
  StartServer({"--events-per-job", "1000"});
  grpc::Status status;
  const absl::Duration deadline = RealClock().Monotonic() + absl::Seconds(30);
  int64_t oldest = 0;
  while (last - oldest >= 1000 && RealClock().Monotonic() < deadline) {
    status = ReadAll(job, 0, last);
    google::rpc::Status details;
    google::rpc::ErrorInfo info;
    if (details.ParseFromString(status.error_details())) {
      for (const auto& any : details.details()) any.UnpackTo(&info);
    }
    const auto found = info.metadata().find("oldest_sequence");
    if (found != info.metadata().end()) {
      ASSERT_TRUE(absl::SimpleAtoi(found->second, &oldest));
    }
  }
  EXPECT_EQ(status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(ReasonOf(status), "SEQUENCE_COMPACTED");
  EXPECT_LT(last - oldest, 1000);
  EXPECT_TRUE(ReadAll(job, oldest - 1, last).ok());
  EXPECT_TRUE(client_->Succeed(lease).ok());
}

}  // namespace
}  // namespace latentforge::service
