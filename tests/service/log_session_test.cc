#include "service/log_session.h"

#include "service/log_intake.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class LogSessionTest : public SchedulerFixture {
 protected:
  static v1::ReadLogsRequest Request(const std::string& name, bool follow = false) {
    v1::ReadLogsRequest request;
    request.set_name(name);
    request.set_follow(follow);
    return request;
  }

  std::unique_ptr<LogSession> Read(const v1::ReadLogsRequest& request) {
    auto session = LogSession::Start(kCaller, *store_, looks_, request);
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }

  absl::Status Refusal(const v1::ReadLogsRequest& request, const Identity& caller = kCaller) {
    return LogSession::Start(caller, *store_, looks_, request).status();
  }

  // "attempt:sequence" of what is there now, with "+dropped" where lines are missing.
  static std::vector<std::string> Lines(LogSession& session) {
    std::vector<std::string> lines;
    while (true) {
      const auto next = session.Next();
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok() || !next->has_value()) return lines;
      for (const v1::LogEntry& entry : (*next)->entries())
        lines.push_back(
            absl::StrCat(entry.attempt(), ":", entry.sequence(),
                         entry.dropped() > 0 ? absl::StrCat("+", entry.dropped()) : ""));
    }
  }

  void Append(const v1::Lease& lease, int64_t first, int64_t last) {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = lease;
    for (int64_t sequence = first; sequence <= last; ++sequence)
      request.add_lines()->set_sequence(sequence);
    LogIntake intake(*engine_, {.keep = keep_});
    EXPECT_TRUE(intake.Append(kWorker, request).ok());
  }

  // An attempt of the job with this many lines, which the worker gives back.
  void RunAttempt(int64_t lines) {
    const v1::Lease lease = Acquire().lease();
    Append(lease, 1, lines);
    v1::CompleteAttemptRequest released;
    released.mutable_released();
    EXPECT_TRUE(Complete(lease, released).ok());
  }

  LogLooks looks_{*store_, clock_, absl::ZeroDuration()};
  LogLimits keep_;
};

TEST_F(LogSessionTest, ReadsWhatIsThereOfEveryAttemptAndEnds) {
  const std::string job = CreateJob();
  EXPECT_THAT(Lines(*Read(Request(job))), IsEmpty());
  RunAttempt(2);
  RunAttempt(0);
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1, 1);
  const auto session = Read(Request(job));
  EXPECT_THAT(Lines(*session), ElementsAre("1:1", "1:2", "3:1"));
  EXPECT_TRUE(session->finished());
  EXPECT_THAT(Lines(*Read(Request(job + "/attempts/1"))), ElementsAre("1:1", "1:2"));
  EXPECT_THAT(Lines(*Read(Request(job + "/attempts/2"))), IsEmpty());
}

TEST_F(LogSessionTest, AFollowerOfAnAttemptEndsWithIt) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  const auto session = Read(Request(job + "/attempts/1", true));
  EXPECT_THAT(Lines(*session), IsEmpty());
  Append(lease, 1, 2);
  EXPECT_THAT(Lines(*session), ElementsAre("1:1", "1:2"));
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  EXPECT_THAT(Lines(*session), IsEmpty());
  EXPECT_FALSE(session->finished()) << "an append may be under way";
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Lines(*session), IsEmpty());
  EXPECT_TRUE(session->finished());
}

TEST_F(LogSessionTest, AFollowerOfAJobGoesOnToItsNextAttempts) {
  const std::string job = CreateJob();
  const auto session = Read(Request(job, true));
  EXPECT_THAT(Lines(*session), IsEmpty());
  RunAttempt(1);
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Lines(*session), ElementsAre("1:1"));
  EXPECT_FALSE(session->finished()) << "the job waits for its next attempt";
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1, 2);
  EXPECT_THAT(Lines(*session), ElementsAre("2:1", "2:2"));
  ASSERT_TRUE(Complete(lease, Succeeded()).ok());
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Lines(*session), IsEmpty());
  EXPECT_TRUE(session->finished());
}

TEST_F(LogSessionTest, AJobThatEndsWithoutAnAttemptEndsItsFollower) {
  const std::string job = CreateJob();
  const auto session = Read(Request(job, true));
  EXPECT_THAT(Lines(*session), IsEmpty());
  Cancel(job);
  EXPECT_THAT(Lines(*session), IsEmpty());
  EXPECT_TRUE(session->finished());
}

TEST_F(LogSessionTest, MissingLinesAreCounted) {
  keep_.lines = 3;
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1, 5);
  const auto session = Read(Request(job));
  EXPECT_THAT(Lines(*session), ElementsAre("1:3+2", "1:4", "1:5"));
  const auto follower = Read(Request(job, true));
  EXPECT_THAT(Lines(*follower), ElementsAre("1:3+2", "1:4", "1:5"));
  Append(lease, 9, 10);
  EXPECT_THAT(Lines(*follower), ElementsAre("1:9+3", "1:10"));
}

TEST_F(LogSessionTest, ATailIsOfTheLastAttempt) {
  const std::string job = CreateJob();
  RunAttempt(5);
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1, 4);
  v1::ReadLogsRequest request = Request(job);
  request.set_tail(2);
  EXPECT_THAT(Lines(*Read(request)), ElementsAre("2:3", "2:4"));
  request.set_tail(100);
  EXPECT_THAT(Lines(*Read(request)), ElementsAre("2:1", "2:2", "2:3", "2:4"));
  request.set_from_attempt(1);
  request.set_tail(1);
  EXPECT_THAT(Lines(*Read(request)), ElementsAre("1:5", "2:1", "2:2", "2:3", "2:4"));
}

TEST_F(LogSessionTest, AReaderGoesOnBehindWhatItHas) {
  const std::string job = CreateJob();
  RunAttempt(3);
  RunAttempt(2);
  v1::ReadLogsRequest request = Request(job);
  request.set_from_attempt(1);
  request.set_from_sequence(2);
  EXPECT_THAT(Lines(*Read(request)), ElementsAre("1:3", "2:1", "2:2"));
  request = Request(job + "/attempts/2");
  request.set_from_sequence(1);
  EXPECT_THAT(Lines(*Read(request)), ElementsAre("2:2"));
}

TEST_F(LogSessionTest, ManyLinesComeInMessagesThatFit) {
  const std::string job = CreateJob();
  const v1::Lease lease = Acquire().lease();
  Append(lease, 1, 1000);
  const auto session = Read(Request(job));
  size_t lines = 0;
  while (!session->finished()) {
    const auto next = session->Next();
    ASSERT_TRUE(next.ok()) << next.status();
    if (!next->has_value()) continue;
    EXPECT_LE((*next)->entries_size(), 256);
    lines += static_cast<size_t>((*next)->entries_size());
  }
  EXPECT_EQ(lines, 1000u);
}

TEST_F(LogSessionTest, RefusesWhatMakesNoSense) {
  const std::string job = CreateJob();
  Acquire();
  EXPECT_EQ(ReasonOf(Refusal(Request("j1"))), "BAD_NAME");
  EXPECT_EQ(ReasonOf(Refusal(Request(job + "/attempts/x"))), "BAD_NAME");
  EXPECT_EQ(ReasonOf(Refusal(Request("jobs/x"))), kJobNotFound);
  EXPECT_EQ(ReasonOf(Refusal(Request(job + "/attempts/2"))), "ATTEMPT_NOT_FOUND");
  v1::ReadLogsRequest request = Request(job);
  request.set_tail(-1);
  EXPECT_EQ(ReasonOf(Refusal(request)), kInvalidField);
  request = Request(job);
  request.set_from_sequence(1);
  EXPECT_EQ(ReasonOf(Refusal(request)), kInvalidField) << "of which attempt?";
  request.set_from_attempt(1);
  request.set_tail(1);
  EXPECT_EQ(ReasonOf(Refusal(request)), kInvalidField) << "from which end?";
  request = Request(job + "/attempts/1");
  request.set_from_attempt(1);
  EXPECT_EQ(ReasonOf(Refusal(request)), kInvalidField);
}

TEST_F(LogSessionTest, AnotherTenantsLogsAreAsAbsentAsItsJob) {
  const std::string job = CreateJob();
  Acquire();
  const Identity other = {"bob", "speech", Role::kUser};
  for (const std::string& name : {job, job + "/attempts/1", job + "/attempts/2"}) {
    const absl::Status refused = Refusal(Request(name), other);
    EXPECT_EQ(refused, JobNotFoundError("j1")) << name;
  }
}

TEST_F(LogSessionTest, ADeletedJobEndsItsFollower) {
  const std::string job = CreateJob();
  const auto session = Read(Request(job, true));
  EXPECT_THAT(Lines(*session), IsEmpty());
  ASSERT_TRUE(store_->Delete({"j1", store_->Get("j1")->version, clock_.Now()}).ok());
  EXPECT_EQ(ReasonOf(session->Next().status()), kJobNotFound);
}

}  // namespace
}  // namespace latentforge::service
