// `latentforge job` against a real server without workers.
#include "tests/client/job_process.h"

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "gmock/gmock.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST_F(JobTest, LifeOfAJobWithoutAWorker) {
  EXPECT_EQ(Run({"health"}).how, "exit code 0");
  const Ending submitted = Submit({"--label", "team=x", "--request-id", "r"});
  ASSERT_EQ(submitted.how, "exit code 0") << submitted.messages;
  const std::string job(absl::StripSuffix(submitted.output, "\n"));
  EXPECT_THAT(job, StartsWith("jobs/"));
  EXPECT_EQ(Submit({"--label", "team=x", "--request-id", "r"}).output, submitted.output);

  EXPECT_EQ(Run({"job", "list", "--label", "team=x", "-o", "name"}).output, submitted.output);
  EXPECT_EQ(Run({"job", "list", "--state", "failed", "-o", "name"}).output, "");
  const Ending waited = Run({"job", "watch", job, "--timeout", "0s"});
  EXPECT_EQ(waited.how, "exit code 8");
  EXPECT_THAT(waited.messages, HasSubstr("[WAIT_TIMED_OUT]\n"));
  EXPECT_THAT(waited.messages, HasSubstr(absl::StrCat("latentforge job watch ", job)));
  EXPECT_EQ(Run({"job", "delete", job}).how, "exit code 7");  // it has not ended
  EXPECT_EQ(Run({"job", "cancel", job, "-o", "name"}).how, "exit code 0");

  const Ending history = Run({"job", "watch", job, "--from-sequence", "0", "-o", "jsonl"});
  EXPECT_EQ(history.how, "exit code 5");
  EXPECT_THAT(history.output, StartsWith("{\"snapshot\":"));
  EXPECT_THAT(history.output, HasSubstr("{\"event\":{\"sequence\":\"1\""));
  EXPECT_THAT(history.output, HasSubstr("JOB_STATE_CANCELLED"));
  const Ending lines = Run({"job", "watch", job, "--from-sequence", "0"});
  EXPECT_THAT(lines.messages, StartsWith("queued\ncancelled\nerror: "));
  EXPECT_THAT(lines.messages, HasSubstr("[JOB_CANCELLED]\n"));
  EXPECT_EQ(Run({"job", "delete", job}).how, "exit code 0");
  EXPECT_EQ(Run({"job", "get", job}).how, "exit code 6");
}

TEST_F(JobTest, AJobIsPausedAndResumed) {
  const std::string job(absl::StripSuffix(Submit().output, "\n"));
  const Ending paused = Run({"job", "pause", job});
  EXPECT_EQ(paused.how, "exit code 0") << paused.messages;
  EXPECT_THAT(paused.output, testing::ContainsRegex("state +paused\n"));
  EXPECT_EQ(Run({"job", "list", "--state", "paused", "-o", "name"}).output, job + "\n");
  const Ending watched = Run({"job", "watch", job, "--from-sequence", "0", "--timeout", "1s"});
  EXPECT_THAT(watched.messages,
              StartsWith(absl::StrCat("queued\npaused\nit goes on with: ", Program("latentforge"),
                                      " job resume ", job, " --server ", address_, "\nerror: ")));
  EXPECT_EQ(Run({"job", "resume", job, "-o", "name"}).output, job + "\n");
  EXPECT_EQ(Run({"job", "list", "--state", "queued", "-o", "name"}).output, job + "\n");
  EXPECT_EQ(Run({"job", "cancel", job}).how, "exit code 0");
  const Ending late = Run({"job", "pause", job});
  EXPECT_EQ(late.how, "exit code 7");
  EXPECT_THAT(late.messages,
              HasSubstr("is cancelled, expected one that is queued, running, pausing or paused "
                        "[JOB_TERMINAL]\nnext: "));
}

TEST_F(JobTest, CancellingAJobThatHasEndedSaysThatNothingWasCancelled) {
  const std::string job(absl::StripSuffix(Submit({"--deadline", "1s"}).output, "\n"));
  EXPECT_EQ(Run({"job", "watch", job, "--timeout", "30s"}).how, "exit code 3");
  const Ending late = Run({"job", "cancel", job, "-o", "name"});
  EXPECT_EQ(late.how, "exit code 0");
  EXPECT_EQ(late.output, job + "\n");
  EXPECT_EQ(late.messages, job + " had already failed: nothing was cancelled\n");
  const std::string other(absl::StripSuffix(Submit().output, "\n"));
  EXPECT_EQ(Run({"job", "cancel", other}).messages, "");
}

TEST_F(JobTest, ACancelledJobIsRetried) {
  const std::string job(absl::StripSuffix(Submit().output, "\n"));
  EXPECT_THAT(Run({"job", "retry", job}).messages, HasSubstr(" --server "));
  EXPECT_EQ(Run({"job", "cancel", job}).how, "exit code 0");
  EXPECT_EQ(Run({"job", "retry", job, "-o", "name"}).output, job + "\n");
  EXPECT_EQ(Run({"job", "list", "--state", "queued", "-o", "name"}).output, job + "\n");
  const Ending watched = Run({"job", "watch", job, "--from-sequence", "0", "--timeout", "1s"});
  EXPECT_THAT(watched.messages, StartsWith("queued\ncancelled\nqueued\nerror: "));
}

TEST_F(JobTest, ADeletedJobIsNotSubmittedAgain) {
  const std::string job(absl::StripSuffix(Submit({"--request-id", "r"}).output, "\n"));
  EXPECT_EQ(Run({"job", "attempts", job, "-o", "name"}).output, "");
  EXPECT_EQ(Run({"job", "cancel", job}).how, "exit code 0");
  EXPECT_EQ(Run({"job", "delete", job}).how, "exit code 0");
  const Ending repeated = Submit({"--request-id", "r"});
  EXPECT_EQ(repeated.how, "exit code 7");
  EXPECT_THAT(repeated.messages, HasSubstr("[JOB_DELETED]\nnext: use another --request-id"));
}

TEST_F(JobTest, ValidateOnlySubmitsNothing) {
  const Ending valid = Submit({"--validate-only"});
  EXPECT_EQ(valid.how, "exit code 0") << valid.messages;
  EXPECT_THAT(valid.output, HasSubstr("peak memory"));
  EXPECT_EQ(valid.messages, "");
  const Ending long_windows = Submit({"--validate-only", "--window-length", "512"});
  EXPECT_EQ(long_windows.how, "exit code 0");
  EXPECT_THAT(long_windows.messages,
              HasSubstr("warning: evaluation windows of 512 tokens are longer than the model's"));
  EXPECT_EQ(Run({"job", "list", "-o", "name"}).output, "");
}

TEST_F(JobTest, ErrorsSayWhatToDoUnderTheNamesOfTheFlags) {
  fs::create_directories(folder_ / "out" / "x");
  const Ending taken = Submit({"--request-id", "t"});
  EXPECT_EQ(taken.messages, absl::StrCat("error: --out: ", (folder_ / "out").string(),
                                         " exists and is not empty [OUTPUT_NOT_EMPTY]\n"
                                         "next: choose another --out, or remove the folder; "
                                         "nothing is overwritten\n"));
  const Ending usage = Finish(*Start({"convert", "m", "--kv-budget", "0.5", "--out", "o"}));
  EXPECT_THAT(usage.messages, HasSubstr("[USAGE]\n"));
  // Not on PATH here: the command as it can be pasted.
  EXPECT_THAT(usage.messages,
              HasSubstr(absl::StrCat("next: ", Program("latentforge"), " convert --help\n")));
  const Ending absent = Finish(*Start({"model", "inspect", folder_ / "none"}));
  EXPECT_THAT(absent.messages, HasSubstr("[SOURCE_NOT_READABLE]\nnext: "));
  const Ending text = Finish(*Start({"convert", folder_ / "model", "--kv-budget", "0.5",
                                     "--calibration", "nosuch.txt", "--out", folder_ / "o"}));
  EXPECT_EQ(text.how, "exit code 6");
  EXPECT_THAT(text.messages, HasSubstr("[CORPUS_NOT_READABLE]\nnext: "));
}

TEST_F(JobTest, EveryRefusalOfTheServerHasOneStyle) {
  const std::string help = absl::StrCat("next: ", Program("latentforge"), " job submit --help\n");
  const std::string long_text(70, 'a');
  EXPECT_EQ(Submit({"--request-id", "r"}).how, "exit code 0");
  const struct {
    Ending ending;
    std::string message;
  } kCases[] = {
      {Run({"job", "get", "A B"}),
       "error: JOB is \"jobs/A B\", expected jobs/ID of a to z, 0 to 9 and \"-\" "
       "[BAD_NAME]\nnext: "},
      {Run({"job", "list", "--page-token", "x"}),
       "error: --page-token is \"x\", expected the next_page_token of an earlier page of the same "
       "list [BAD_PAGE_TOKEN]\nnext: start at the first page"},
      {Run({"worker", "list", "--page-token", "x"}), "[BAD_PAGE_TOKEN]\nnext: start"},
      {Run({"job", "list", "--label", "x"}),
       "error: --label is \"x\", expected KEY=VALUE, such as team=search [USAGE]\nnext: "},
      {Submit({"--label", absl::StrCat(long_text, "=x")}),
       "error: --label has a key of 70 bytes, \"aaa"},
      {Submit({"--label", absl::StrCat("x=", long_text)}),
       "error: --label has a value of 70 bytes for \"x\", expected at most 63 [INVALID_FIELD]\n" +
           help},
      {Submit({"--request-id", "r", "--seed", "7"}),
       "error: --request-id is \"r\", which belongs to"},
      {Submit({"--seed", "7"}),
       absl::StrCat("error: --out is ", (folder_ / "out").string(), ", which jobs/")},
      {Submit({"--device", "tpu"}),
       "error: --device is \"tpu\", expected auto, cpu, cuda or cuda:N [INVALID_FIELD]\n" + help},
      {Submit({"--deadline", "1ms"}), "error: --deadline is 1ms, expected at least 1s"},
      {Submit({"--queue-deadline", "1ms"}), "error: --queue-deadline is 1ms, expected at least 1s"},
      {Submit({"--run-deadline", "1000h"}),
       "error: --run-deadline is 1000h, expected at most 720h"},
      {Submit({"--ttl", "1ms"}),
       "error: --ttl is 1ms, expected 1s to 87672h [INVALID_FIELD]\n" + help},
      {Submit({"--priority", "urgent"}), "error: --priority is \"urgent\", expected "},
      {Submit({"--deadline", "1000h"}), "expected at most 720h [DEADLINE_TOO_LONG]\nnext: "},
      {Submit({"--evaluate", "s3://x/y"}),
       "expected a file: URI or an absolute path [BAD_URI]\nnext: "},
      {Submit({"--preconditioner", "identity", "--allocation", "global"}),
       "error: --allocation is global, expected uniform, care, care-code or profile with "
       "preconditioner identity [INVALID_FIELD]\n" +
           help},
      {Run({"health", "--service", "none"}), "error: --service is \"none\", which server "},
  };
  for (const auto& [ending, message] : kCases) {
    EXPECT_THAT(ending.messages, HasSubstr(message));
    EXPECT_THAT(ending.messages, HasSubstr("]\nnext: "));
  }
  const std::string job = Run({"job", "list", "-o", "name"}).output;
  const Ending ahead =
      Run({"job", "watch", std::string(absl::StripSuffix(job, "\n")), "--from-sequence", "9"});
  EXPECT_THAT(ahead.messages,
              HasSubstr("error: --from-sequence is 9, expected at most 1, the last"));
  EXPECT_THAT(ahead.messages, HasSubstr("[SEQUENCE_AHEAD]\nnext: give a lower --from-sequence"));
}

TEST_F(JobTest, RepeatableFlagsTakeOneValueEachTime) {
  std::ofstream(folder_ / "more.txt") << std::string(1 << 16, 'a') << "\n";
  const Ending submitted =
      Submit({"--calibration", folder_ / "more.txt", "--set", "calibration.seed=7", "--set",
              "calibration.corpora.1.weight=3", "--label", "team=x", "--label", "size=small"});
  ASSERT_EQ(submitted.how, "exit code 0") << submitted.messages;
  const std::string job(absl::StripSuffix(submitted.output, "\n"));
  const absl::StatusOr<Json> stored = ParseJson(Run({"job", "get", job, "-o", "json"}).output);
  ASSERT_TRUE(stored.ok()) << stored.status();
  const Json& calibration = (*stored)["spec"]["calibration"];
  ASSERT_EQ(calibration["corpora"].size(), 2u);
  EXPECT_EQ(calibration["corpora"][1]["weight"], 3);
  EXPECT_EQ(calibration["seed"], "7");
  EXPECT_EQ((*stored)["labels"].size(), 2u);
  const auto list = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {"job", "list", "-o", "name"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return Run(arguments).output;
  };
  EXPECT_EQ(list({"--state", "queued", "--state", "running"}), submitted.output);
  EXPECT_EQ(list({"--label", "team=x", "--label", "size=small"}), submitted.output);
  EXPECT_EQ(list({"--label", "team=x", "--label", "size=large"}), "");
  // A value that no flag precedes is not one more.
  EXPECT_EQ(Run({"job", "list", "--state", "queued", "running"}).how, "exit code 2");
}

TEST_F(JobTest, CtrlCStopsWatchingNotTheJob) {
  const std::string job(absl::StripSuffix(Submit().output, "\n"));
  const auto watch = Start({"job", "watch", job, "--server", address_});
  ASSERT_NE(AwaitOutput(*watch).err, "");  // it has the snapshot
  watch->Signal(SIGINT);
  const Ending ending = Finish(*watch);
  EXPECT_EQ(ending.how, "exit code 130");
  EXPECT_THAT(ending.messages, HasSubstr(absl::StrCat("stopped watching; ", job,
                                                      " is queued [INTERRUPTED]\nnext: ")));
  EXPECT_EQ(Run({"job", "list", "--state", "queued", "-o", "name"}).output, job + "\n");
}

TEST_F(JobTest, AWatchSaysThatNoWorkerIsThere) {
  const Ending waited = Submit({"--wait", "--timeout", "12s", "--request-id", "r"});
  EXPECT_EQ(waited.how, "exit code 8");
  EXPECT_THAT(waited.messages,
              HasSubstr(absl::StrCat("\nqueued\nno worker is connected, so the job waits; start a "
                                     "worker for it: latentforge-worker --server ",
                                     address_, "  (")));
  const std::string job = Run({"job", "list", "-o", "name"}).output;
  EXPECT_THAT(Run({"job", "get", std::string(absl::StripSuffix(job, "\n"))}).output,
              testing::ContainsRegex("waits +no worker is connected"));
}

}  // namespace
}  // namespace latentforge::client
