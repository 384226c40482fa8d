#include "service/log_intake.h"

#include <functional>
#include <string>
#include <thread>

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class LogIntakeTest : public SchedulerFixture {
 protected:
  static v1::AppendLogsRequest Lines(const v1::Lease& lease, int64_t first, int64_t last) {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = lease;
    for (int64_t sequence = first; sequence <= last; ++sequence) {
      v1::AttemptLogLine& line = *request.add_lines();
      line.set_sequence(sequence);
      line.mutable_time()->set_seconds(1'700'000'000);
      line.set_text("line\x1b");
    }
    return request;
  }

  std::vector<LogRecord> Stored() { return *store_->Logs({.job = "j1", .attempt = 1}); }

  LogIntake intake_{*engine_, {}};
};

TEST_F(LogIntakeTest, KeepsLinesAsTextAndIgnoresRepeats) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  auto response = intake_.Append(kWorker, Lines(lease, 1, 3));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->last_sequence(), 3);
  response = intake_.Append(kWorker, Lines(lease, 2, 5));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->last_sequence(), 5);
  ASSERT_EQ(Stored().size(), 5u);
  EXPECT_EQ(Stored().front().text, "line\\x1b");
  EXPECT_EQ(Stored().front().time, absl::FromUnixSeconds(1'700'000'000));
}

TEST_F(LogIntakeTest, ChangesNeitherJobNorLease) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  const JobRecord before = *store_->Get("j1");
  clock_.Advance(absl::Seconds(10));
  ASSERT_TRUE(intake_.Append(kWorker, Lines(lease, 1, 3)).ok());
  EXPECT_EQ(store_->Get("j1")->version, before.version);
  EXPECT_EQ(store_->Get("j1")->lease_expire_time, before.lease_expire_time);
  EXPECT_EQ(GetJob(job).last_sequence(), 2);
}

TEST_F(LogIntakeTest, ALeaseThatIsOverIsFenced) {
  const std::string job = CreateJob();
  const v1::Lease stale = Acquire().lease();
  clock_.Advance(absl::Seconds(31));
  const v1::Lease lease = Acquire("w2").lease();
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, Lines(stale, 1, 1)).status()), kLeaseLost);
  EXPECT_TRUE(Stored().empty());
  ASSERT_TRUE(intake_.Append(kWorker, Lines(lease, 1, 1)).ok());
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  const absl::Status late = intake_.Append(kWorker, Lines(lease, 2, 2)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(late), kLeaseLost);
  v1::Lease unknown;
  unknown.set_job("jobs/nope");
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, Lines(unknown, 1, 1)).status()), kLeaseLost);
  EXPECT_EQ(observer_["logs"], 3);
}

TEST_F(LogIntakeTest, WhatIsNoOrderIsRefused) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  v1::AppendLogsRequest twice = Lines(lease, 1, 1);
  *twice.add_lines() = twice.lines(0);
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, twice).status()), kInvalidField);
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, Lines(lease, 0, 2)).status()), kInvalidField);
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, Lines(lease, 1, 1001)).status()), kInvalidField);
  EXPECT_TRUE(intake_.Append(kWorker, Lines(lease, 1, 1000)).ok());
}

TEST_F(LogIntakeTest, AStoreThatIsAwayIsSaidSo) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  faulty_.set_away(true);
  EXPECT_EQ(ReasonOf(intake_.Append(kWorker, Lines(lease, 1, 1)).status()), kStoreDown);
}

// Calls back within an append.
class Callback final : public Observer {
 public:
  explicit Callback(std::function<void()> during) : during_(std::move(during)) {}
  void LogsAppended(const LogAppended& /*appended*/) override { during_(); }
  void LogsRefused() override { ++refused; }
  int refused = 0;

 private:
  const std::function<void()> during_;
};

TEST_F(LogIntakeTest, OneTooManyAtATimeIsRefusedAndChangesNothing) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  LogIntake* intake = nullptr;
  absl::Status second;
  // Called while the first append still holds its place.
  Callback observer([&] { second = intake->Append(kWorker, Lines(lease, 4, 4)).status(); });
  JobEngine engine({faulty_, hub_, observer, clock_}, policy_);
  LogIntake narrow(engine, {.writers = 1});
  intake = &narrow;
  ASSERT_TRUE(narrow.Append(kWorker, Lines(lease, 1, 3)).ok());
  EXPECT_EQ(second.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(second), "LOGS_BUSY");
  EXPECT_EQ(observer.refused, 1);
  EXPECT_EQ(Stored().size(), 3u);
}

}  // namespace
}  // namespace latentforge::service
