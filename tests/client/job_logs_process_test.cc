// `latentforge job logs` against a real server and worker, with a scripted compute process.
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "tests/client/job_process.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::Not;

class JobLogsTest : public JobTest {
 protected:
  // The process of each attempt of the next job does these steps, then the worker starts.
  std::string Submit(const std::string& attempts) {
    std::ofstream(folder_ / "out.script.json") << "{\"attempts\":[" << attempts << "]}";
    const std::string job(absl::StripSuffix(JobTest::Submit().output, "\n"));
    auto worker = ChildProcess::Start(
        {.argv = {Program("latentforge-worker"), "--server", address_, "--convert",
                  Program("fake_convert"), "--scratch", (folder_ / "scratch").string()},
         .log = folder_ / "worker.log"});
    EXPECT_TRUE(worker.ok()) << worker.status();
    worker_ = std::move(*worker);
    return job;
  }

  void TearDown() override {
    worker_.reset();
    JobTest::TearDown();
  }

  static std::string Result() { return R"({"event":{"result":{"artifactUri":"file:///out"}}})"; }

  std::unique_ptr<ChildProcess> worker_;
};

TEST_F(JobLogsTest, AFollowerSeesEveryAttemptUntilTheJobEnds) {
  const std::string job = Submit(
      absl::StrCat(R"([{"stderr":"reading the model"},{"stderr":"tail\twith tab"},{"signal":11}],)",
                   R"([{"stderr":"second try","times":3},)", Result(), "]"));
  const Ending followed = Run({"job", "logs", job, "--follow"});
  EXPECT_EQ(followed.how, "exit code 0") << followed.messages;
  EXPECT_THAT(followed.output, testing::ContainsRegex("....-..-.. ..:..:..  reading the model\n"));
  EXPECT_THAT(followed.output, HasSubstr("  tail    with tab\n"));
  EXPECT_THAT(followed.output, HasSubstr("  second try\n"));
  EXPECT_EQ(followed.messages, "attempt 1\nattempt 2\n");

  const Ending tail = Run({"job", "logs", job, "--tail", "2", "-o", "jsonl"});
  EXPECT_EQ(tail.how, "exit code 0") << tail.messages;
  EXPECT_EQ(tail.messages, "");
  std::vector<std::string> lines;
  for (const auto line : absl::StrSplit(tail.output, '\n', absl::SkipEmpty()))
    lines.emplace_back(line);
  ASSERT_EQ(lines.size(), 2u) << tail.output;
  const absl::StatusOr<Json> entry = ParseJson(lines.back());
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ((*entry)["attempt"], 2);
  EXPECT_EQ((*entry)["sequence"], "3");
  EXPECT_EQ((*entry)["text"], "second try");

  const Ending first = Run({"job", "logs", job, "--attempt", "1"});
  EXPECT_THAT(first.output, HasSubstr("reading the model"));
  EXPECT_THAT(first.output, Not(HasSubstr("second try")));
}

TEST_F(JobLogsTest, AFollowerSurvivesARestartOfTheServer) {
  const std::string job =
      Submit(absl::StrCat(R"([{"stderr":"before","times":5},{"wait_for":")",
                          (folder_ / "go").string(), R"("},{"stderr":"after"},)", Result(), "]"));
  const auto follower = Start({"job", "logs", job, "--follow", "--server", address_});
  ChildOutput first;
  while (!absl::StrContains(first.out, "before") && !follower->finished())
    ASSERT_TRUE(follower->Poll(-1, absl::Seconds(1), &first).ok());
  server_->Signal(SIGKILL);
  ASSERT_TRUE(server_->Wait(absl::Seconds(20)));
  fs::remove(folder_ / "ready");
  StartServer();
  std::ofstream(folder_ / "go") << "x";
  Ending ending = Finish(*follower);
  EXPECT_EQ(ending.how, "exit code 0") << ending.messages;
  ending.output.insert(0, first.out);
  // Every line once.
  EXPECT_EQ(std::vector<std::string>(absl::StrSplit(ending.output, "  before\n")).size(), 6u)
      << ending.output;
  EXPECT_EQ(std::vector<std::string>(absl::StrSplit(ending.output, "  after\n")).size(), 2u)
      << ending.output;
}

TEST_F(JobLogsTest, CtrlCStopsReading) {
  const std::string job(absl::StripSuffix(JobTest::Submit().output, "\n"));
  const auto follower = Start({"job", "logs", job, "--follow", "--server", address_});
  usleep(300'000);
  follower->Signal(SIGINT);
  const Ending ending = Finish(*follower);
  EXPECT_EQ(ending.how, "exit code 130") << ending.messages;
  EXPECT_EQ(Run({"job", "list", "--state", "queued", "-o", "name"}).output, job + "\n");
}

TEST_F(JobLogsTest, MistakesAreExplained) {
  EXPECT_EQ(Run({"job", "logs", "jobs/nope"}).how, "exit code 6");
  const std::string job(absl::StripSuffix(JobTest::Submit().output, "\n"));
  EXPECT_EQ(Run({"job", "logs", job}).output, "");
  EXPECT_THAT(Run({"job", "logs", job, "--attempt", "7"}).messages,
              HasSubstr("[ATTEMPT_NOT_FOUND]\nnext: "));
  const Ending format = Run({"job", "logs", job, "-o", "json"});
  EXPECT_EQ(format.how, "exit code 2");
  EXPECT_THAT(format.messages, HasSubstr("expected table or jsonl"));
  EXPECT_EQ(Run({"job", "logs", job, "--tail", "0"}).how, "exit code 2");
}

}  // namespace
}  // namespace latentforge::client
