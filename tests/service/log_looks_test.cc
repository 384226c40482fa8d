#include "service/log_looks.h"

#include <atomic>
#include <thread>

#include "base/timed_flag.h"
#include "service/log_intake.h"
#include "service/log_session.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class LogLooksTest : public SchedulerFixture {
 protected:
  void Append(const v1::Lease& lease, int64_t sequence, const std::string& text = "") {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = lease;
    request.add_lines()->set_sequence(sequence);
    request.mutable_lines(0)->set_text(text);
    LogIntake intake(*engine_, {});
    EXPECT_TRUE(intake.Append(kWorker, request).ok());
  }

  std::unique_ptr<LogSession> Follow(const std::string& job) {
    v1::ReadLogsRequest request;
    request.set_name(job);
    request.set_follow(true);
    auto session = LogSession::Start(kCaller, faulty_, looks_, request);
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }

  // Lines that each of them is sent now.
  static int64_t Lines(std::vector<std::unique_ptr<LogSession>>& followers) {
    int64_t lines = 0;
    for (const std::unique_ptr<LogSession>& follower : followers) {
      for (auto next = follower->Next(); next.ok() && next->has_value(); next = follower->Next())
        lines += (*next)->entries_size();
    }
    return lines;
  }

  LogLooks looks_{faulty_, clock_, absl::Milliseconds(500)};
};

TEST_F(LogLooksTest, ManyWhoFollowOneJobAskAsOftenAsOne) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  std::vector<std::unique_ptr<LogSession>> followers;
  for (int i = 0; i < 200; ++i) followers.push_back(Follow(job));
  EXPECT_EQ(Lines(followers), 0);
  for (int second = 1; second <= 3; ++second) {
    Append(lease, second);
    clock_.Advance(absl::Seconds(1));
    faulty_.TakeCalls("Logs");
    faulty_.TakeCalls("Attempts");
    EXPECT_EQ(Lines(followers), 200);
    EXPECT_EQ(faulty_.TakeCalls("Logs"), 2) << "one with the line, and one behind it";
    EXPECT_EQ(faulty_.TakeCalls("Attempts"), 2) << "one with each";
  }
  // The end too, and what is told of a job that waits.
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  clock_.Advance(absl::Seconds(3));
  faulty_.TakeCalls("Get");
  EXPECT_EQ(Lines(followers), 0);
  EXPECT_EQ(faulty_.TakeCalls("Get"), 1);
  for (const auto& follower : followers) EXPECT_TRUE(follower->finished());
}

TEST_F(LogLooksTest, WhatIsSharedIsNotOld) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  const LogPlace place = {.job = "j1", .attempt = 1};
  EXPECT_TRUE((*looks_.Share(place))->lines.empty());
  Append(lease, 1);
  EXPECT_TRUE((*looks_.Share(place))->lines.empty());
  EXPECT_EQ((*looks_.Read(place))->lines.size(), 1u);
  clock_.Advance(absl::Milliseconds(500));
  EXPECT_EQ((*looks_.Share(place))->lines.size(), 1u);
  EXPECT_EQ((*looks_.Share({.job = "j1", .attempt = 1, .after = 1}))->lines.size(), 0u);
}

TEST_F(LogLooksTest, LongTextsAreNotKept) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  for (int sequence = 1; sequence <= 20; ++sequence)
    Append(lease, sequence, std::string(4000, 'a'));
  const LogPlace place = {.job = "j1", .attempt = 1};
  for (int i = 0; i < 2; ++i) EXPECT_EQ((*looks_.Share(place))->lines.size(), 20u);
  EXPECT_EQ(faulty_.TakeCalls("Logs"), 2);
}

TEST_F(LogLooksTest, WhoeverReadsHoldsUpNobodyElse) {
  CreateJob();
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1);
  const LogPlace start = {.job = "j1", .attempt = 1};
  const LogPlace end = {.job = "j1", .attempt = 1, .after = 1};
  std::shared_ptr<const LogLook> same;
  std::thread waiting;
  std::thread reading;
  TimedFlag other;
  std::atomic<bool> first = true;
  faulty_.set_before([&](const std::string& method) {
    if (method != "Logs" || !first.exchange(false)) return;
    waiting = std::thread([&] { same = *looks_.Share(start); });
    reading = std::thread([&] {
      EXPECT_TRUE((*looks_.Share(end))->lines.empty());
      other.Set();
    });
    EXPECT_TRUE(other.WaitFor(absl::Seconds(10))) << "another place waits for this one";
  });
  const std::shared_ptr<const LogLook> look = *looks_.Share(start);
  waiting.join();
  reading.join();
  EXPECT_EQ(look->lines.size(), 1u);
  EXPECT_EQ(same, look);
  EXPECT_EQ(faulty_.TakeCalls("Logs"), 2) << "one of each place";
}

TEST_F(LogLooksTest, AnErrorIsEverybodysOwn) {
  CreateJob();
  Acquire();
  const LogPlace place = {.job = "j1", .attempt = 1};
  faulty_.set_away(true);
  EXPECT_FALSE(looks_.Share(place).ok());
  faulty_.set_away(false);
  EXPECT_TRUE(looks_.Share(place).ok());
}

}  // namespace
}  // namespace latentforge::service
