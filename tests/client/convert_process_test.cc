// The real `latentforge convert` with the real server and worker and a scripted
// compute process.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/child_process.h"
#include "base/file.h"
#include "base/json.h"
#include "client/child_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/programs_fixture.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class ConvertTest : public ProgramsFixture {
 protected:
  void SetUp() override {
    ProgramsFixture::SetUp();
    fs::create_directories(folder_ / "out");
  }

  void Script(const std::string& attempts) { WriteScript(folder_ / "out.script.json", attempts); }

  std::unique_ptr<ChildProcess> Start(const std::string& output,
                                      const std::vector<std::string>& more = {}) {
    return Launch(
        {"convert", folder_ / "model", "--kv-budget", "0.5", "--calibration", folder_ / "text.txt",
         "--out", folder_ / "out", "--work-dir", folder_ / "work", "-o", output},
        more);
  }

  std::vector<std::string> LeftInWork() const { return Listed(folder_ / "work"); }

  // The pid that the compute process wrote to @/pid; 0 until the whole line is there.
  pid_t ComputePid() const {
    const std::string line = ReadFile(folder_ / "pid").value_or("");
    return line.ends_with('\n') ? std::atoi(line.c_str()) : 0;
  }

  // True when the compute process, which wrote its pid to @/pid, has gone.
  bool ComputeHasGone() const {
    const pid_t pid = ComputePid();
    return pid > 0 && Await([pid] { return kill(pid, 0) != 0; });
  }

  const std::string success_ =
      R"([{"event": {"phaseStarted": {"phase": "PHASE_CALIBRATING"}}},
          {"event": {"phaseFinished": {"phase": "PHASE_CALIBRATING", "seconds": 1, "tokens": "9",
                                       "tokensPerSecond": 9}}},
          {"append": "@/out/report.json", "text": "{\"schema_version\": 1}"},
          {"event": {"result": {"artifactUri": "file://@/out",
                                "reportUri": "file://@/out/report.json", "perplexityBase": 10,
                                "perplexityConverted": 11, "kvBytesPerTokenBase": "128",
                                "kvBytesPerTokenConverted": "64"}}}])";
};

TEST_F(ConvertTest, EndsWithTheTableAndLeavesNothingBehind) {
  Script(success_);
  const Ending ending = Finish(*Start("table"));
  EXPECT_EQ(ending.how, "exit code 0") << ending.progress;
  EXPECT_THAT(ending.output, HasSubstr("perplexity              10.00   11.00  1.100"));
  // No text was named: the calibration text would flatter.
  EXPECT_THAT(ending.output, HasSubstr("held back from calibration\n"));
  EXPECT_THAT(ending.output, HasSubstr("/latentforge evaluate "));
  EXPECT_THAT(ending.output, HasSubstr(" --text OTHER.txt\n"));
  EXPECT_THAT(ending.progress, HasSubstr("calibrating done in 1.0 s, 9 tokens/s"));
  EXPECT_THAT(LeftInWork(), IsEmpty());
}

TEST_F(ConvertTest, JsonIsTheReportAlone) {
  Script(success_);
  const Ending ending = Finish(*Start("json"));
  EXPECT_EQ(ending.how, "exit code 0") << ending.progress;
  EXPECT_EQ(ending.output, "{\n  \"schema_version\": 1\n}\n");
}

TEST_F(ConvertTest, AFailedJobGivesExitCode3AndItsReason) {
  Script(R"([{"event": {"error": {"reason": "TOO_FEW_TOKENS", "message": "text.txt has 3 tokens",
                                  "errorClass": "ERROR_CLASS_USER"}}}, {"exit": 1}])");
  const Ending ending = Finish(*Start("json"));
  EXPECT_EQ(ending.how, "exit code 3") << ending.progress;
  EXPECT_EQ(ending.output, "");
  const std::string last = ending.progress.substr(ending.progress.rfind("{\"error\""));
  const absl::StatusOr<Json> error = ParseJson(last);
  ASSERT_TRUE(error.ok()) << last;
  EXPECT_EQ((*error)["error"]["reason"], "TOO_FEW_TOKENS");
  EXPECT_EQ((*error)["error"]["exitCode"], 3);
  EXPECT_THAT(LeftInWork(), IsEmpty());
}

TEST_F(ConvertTest, CtrlCCancelsAndCleansUp) {
  Script(R"([{"append": "@/pid", "text": "$PID"}, {"sleep_ms": 600000}])");
  const std::unique_ptr<ChildProcess> child = Start("table");
  ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
  child->Signal(SIGINT);
  const Ending ending = Finish(*child);
  EXPECT_EQ(ending.how, "exit code 130");
  EXPECT_THAT(ending.progress, HasSubstr("error: interrupted; the conversion was cancelled"));
  EXPECT_TRUE(ComputeHasGone());
  EXPECT_THAT(LeftInWork(), IsEmpty());
}

TEST_F(ConvertTest, ASecondConversionIntoTheFolderIsRefusedAtOnce) {
  Script(R"([{"append": "@/pid", "text": "$PID"}, {"sleep_ms": 600000}])");
  const std::unique_ptr<ChildProcess> first = Start("table");
  ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
  const Ending second = Finish(*Start("table", {"--seed", "7"}));
  EXPECT_EQ(second.how, "exit code 7");
  EXPECT_THAT(second.progress, HasSubstr(absl::StrCat("another conversion writes to ",
                                                      (folder_ / "out").string(), " already")));
  EXPECT_THAT(second.progress, HasSubstr(absl::StrCat("(process ", first->pid(), ")")));
  EXPECT_THAT(second.progress, HasSubstr("[OUTPUT_IN_USE]\nnext: choose another --out"));
  first->Signal(SIGKILL);
  Finish(*first);
  // A killed holder holds nothing.
  Script(success_);
  EXPECT_EQ(Finish(*Start("table", {"--seed", "7"})).how, "exit code 0");
}

// As `timeout` and service managers send them: to the process, and to its group.
TEST_F(ConvertTest, TwoTermsTogetherAreOne) {
  Script(R"([{"append": "@/pid", "text": "$PID"}, {"sleep_ms": 600000}])");
  const std::unique_ptr<ChildProcess> child = Start("table");
  ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
  child->Signal(SIGTERM);
  absl::SleepFor(absl::Milliseconds(20));
  child->Signal(SIGTERM);
  const Ending ending = Finish(*child);
  EXPECT_EQ(ending.how, "exit code 130");
  EXPECT_THAT(ending.progress, HasSubstr("error: interrupted; the conversion was cancelled"));
  EXPECT_THAT(LeftInWork(), IsEmpty());
}

TEST_F(ConvertTest, ASecondCtrlCLeavesAnObjectForPrograms) {
  Script(R"([{"ignore_sigterm": true}, {"append": "@/pid", "text": "$PID"}, {"hang": true}])");
  const std::unique_ptr<ChildProcess> child = Start("json");
  ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
  child->Signal(SIGINT);
  const Ending ending = Finish(*child, [&](const std::string& line) {
    if (line.find("cancelling; Ctrl-C again") == 0) child->Signal(SIGINT);
  });
  EXPECT_EQ(ending.how, "exit code 130");
  const absl::StatusOr<Json> last =
      ParseJson(ending.progress.substr(ending.progress.find("\n{") + 1));
  ASSERT_TRUE(last.ok()) << ending.progress;
  EXPECT_EQ((*last)["error"]["reason"], "INTERRUPTED");
  EXPECT_EQ((*last)["error"]["exitCode"], 130);
}

TEST_F(ConvertTest, ASecondCtrlCLeavesAtOnceAndTheNextRunWorks) {
  Script(absl::StrCat(R"([{"ignore_sigterm": true}, {"append": "@/pid", "text": "$PID"},
                          {"hang": true}])"));
  const std::unique_ptr<ChildProcess> child = Start("table");
  ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
  child->Signal(SIGINT);
  const Ending ending = Finish(*child, [&](const std::string& line) {
    if (line.find("cancelling; Ctrl-C again") == 0) child->Signal(SIGINT);
  });
  EXPECT_EQ(ending.how, "exit code 130");
  EXPECT_THAT(ending.progress, HasSubstr("\nerror: left at once; what was begun stays "
                                         "[INTERRUPTED]\nnext: the same command goes on\n"));
  EXPECT_TRUE(ComputeHasGone());
  Script(success_);
  const Ending again = Finish(*Start("name"));
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_EQ(again.output, (folder_ / "out").string() + "\n");
  EXPECT_THAT(LeftInWork(), IsEmpty());
}

TEST_F(ConvertTest, AKilledRunTakesItsProcessesAlongAndContinuesInTheSameJob) {
  Script(absl::StrCat(R"([{"append": "@/pid", "text": "$PID"}, {"hang": true}],)",
                      R"([{"append": "@/attempt", "text": "$ATTEMPT"},)", success_.substr(1)));
  {
    const std::unique_ptr<ChildProcess> child = Start("table");
    ASSERT_TRUE(Await([&] { return ComputePid() > 0; }));
    child->Signal(SIGKILL);
    ASSERT_TRUE(child->Wait(absl::Seconds(20)));
  }
  EXPECT_TRUE(ComputeHasGone());
  const Ending again = Finish(*Start("table"));
  EXPECT_EQ(again.how, "exit code 0") << again.progress;
  EXPECT_THAT(again.progress, HasSubstr("continuing the interrupted run"));
  // The work folder of the job counted on: it is the same job.
  EXPECT_EQ(ReadFile(folder_ / "attempt").value_or("none"), "2\n");
}

TEST_F(ConvertTest, SaysWhyAnAttemptIsRepeated) {
  Script(absl::StrCat(R"([{"event": {"error": {"reason": "CHECKPOINT_CORRUPT",
                          "message": "layer 3 does not read back",
                          "errorClass": "ERROR_CLASS_SYSTEM", "retryable": true}}}, {"exit": 3}], )",
                      success_));
  const Ending ending = Finish(*Start("table"));
  EXPECT_EQ(ending.how, "exit code 0") << ending.progress;
  EXPECT_THAT(ending.progress, HasSubstr("attempt 1 of 3 failed, trying again: layer 3 does not "
                                         "read back [CHECKPOINT_CORRUPT]"));
}

TEST_F(ConvertTest, AFullDiskEndsTheOnlyMachinesJobAtOnce) {
  Script(absl::StrCat(R"([{"event": {"error": {"reason": "OUTPUT_DISK_FULL",
                          "message": "disk of /out has 5 bytes free, expected at least 7",
                          "errorClass": "ERROR_CLASS_RESOURCE", "retryable": true}}}, {"exit": 4}], )",
                      success_));
  const Ending ending = Finish(*Start("table"));
  EXPECT_EQ(ending.how, "exit code 3") << ending.progress;
  const std::string why = "disk of /out has 5 bytes free, expected at least 7";
  EXPECT_THAT(ending.progress,
              HasSubstr(absl::StrCat("\nfailed\nkept: ", (folder_ / "work").string())));
  EXPECT_THAT(ending.progress, HasSubstr(absl::StrCat("error: the conversion failed: ", why,
                                                      " [OUTPUT_DISK_FULL]\nnext: free disk")));
  EXPECT_EQ(ending.progress.find(why), ending.progress.rfind(why));
  EXPECT_THAT(ending.progress, Not(HasSubstr("jobs/")));
  EXPECT_THAT(ending.progress, Not(HasSubstr("trying again")));
}

TEST_F(ConvertTest, OnlyWhatTheSameCommandCanGoOnWithIsPromised) {
  // What only the server finds.
  const std::vector<std::string> wrong = {"--calibration-sequences", "1000000"};
  const Ending refused = Finish(*Start("table", wrong));
  EXPECT_EQ(refused.how, "exit code 2") << refused.progress;
  EXPECT_THAT(refused.progress, HasSubstr("TOO_FEW_TOKENS"));
  EXPECT_THAT(refused.progress, Not(HasSubstr("kept: ")));
  EXPECT_THAT(LeftInWork(), IsEmpty());
  const Ending kept =
      Finish(*Start("table", {"--calibration-sequences", "1000000", "--keep-work"}));
  EXPECT_THAT(kept.progress, HasSubstr(" (logs and files of this run)\n"));
  EXPECT_THAT(kept.progress, Not(HasSubstr("the same command")));
  const Ending again = Finish(*Start("table", wrong));
  EXPECT_THAT(again.progress, HasSubstr(" (what an earlier run finished)\n"));
  EXPECT_THAT(again.progress, Not(HasSubstr("the same command")));
}

TEST_F(ConvertTest, AProgramThatIsMissingIsNamedAtOnce) {
  const std::string missing = folder_ / "bin" / "latentforge-convert";
  fs::remove(missing);
  const Ending ending = Finish(*Start("table"));
  EXPECT_EQ(ending.how, "exit code 6");
  EXPECT_EQ(ending.progress,
            absl::StrCat("error: ", missing,
                         " does not exist [PROGRAM_UNUSABLE]\n"
                         "next: install latentforge in full: its programs belong into one "
                         "folder\n"));
  EXPECT_FALSE(fs::exists(folder_ / "work")) << "nothing was started";
  // The worker on its own.
  auto worker = ChildProcess::Start({.argv = {folder_ / "bin" / "latentforge-worker", "--server",
                                              absl::StrCat("unix:", (folder_ / "s").string())}});
  ASSERT_TRUE(worker.ok()) << worker.status();
  const Ending refused = Finish(**worker);
  EXPECT_EQ(refused.how, "exit code 1");
  EXPECT_THAT(refused.progress,
              HasSubstr(absl::StrCat("--convert: ", missing, " does not exist [WORKER_MISCONF")));
}

TEST_F(ConvertTest, AServerThatDoesNotStartShowsWhy) {
  Script(success_);
  std::ofstream(folder_ / "bin" / "new-server") << "#!/bin/sh\necho no disk left >&2\nexit 4\n";
  fs::permissions(folder_ / "bin" / "new-server", fs::perms::owner_all);
  fs::rename(folder_ / "bin" / "new-server", folder_ / "bin" / "latentforge-server");
  const Ending ending = Finish(*Start("table"));
  EXPECT_EQ(ending.how, "exit code 1");
  EXPECT_THAT(ending.progress, HasSubstr("latentforge-server ended with exit code 4"));
  EXPECT_THAT(ending.progress, HasSubstr("  | no disk left"));
  EXPECT_THAT(ending.progress, HasSubstr("next: less "));
}

}  // namespace
}  // namespace latentforge::client
