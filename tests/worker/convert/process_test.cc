// The real process: kill -9 in every phase, SIGTERM, usage and exit codes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/sha256.h"
#include "base/unique_fd.h"
#include "tests/worker/convert/tiny_job.h"

namespace latentforge::convert {
namespace {

using testing::HasSubstr;

struct Ended {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::vector<std::string> lines;  // of stdout
};

// Starts latentforge-convert, sends `signal` as soon as a line of stdout contains
// `until` (empty: never), and waits for its end.
Ended RunConvert(const std::vector<std::string>& args, const std::string& until = "",
                 int signal = 0) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<char*> argv;
  std::string program = LATENTFORGE_BINARY_DIR "/bin/latentforge-convert";
  argv.push_back(program.data());
  std::vector<std::string> copies = args;
  for (std::string& arg : copies) argv.push_back(arg.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  write_end.Reset();
  std::string output;
  char buffer[4096];
  bool sent = until.empty();
  for (ssize_t n; (n = read(read_end.get(), buffer, sizeof(buffer))) > 0;) {
    output.append(buffer, size_t(n));
    if (!sent && output.find(until) != std::string::npos) {
      kill(child, signal);
      sent = true;
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  Ended ended;
  if (WIFEXITED(status)) ended.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  ended.lines = absl::StrSplit(output, '\n', absl::SkipEmpty());
  return ended;
}

// Enough layers and tokens that each phase lasts longer than a signal takes.
checkpoint::TinyOptions SlowModel() {
  return {.hidden_size = 64, .intermediate_size = 128, .num_layers = 6};
}

// A job that has every phase.
TinyJob JobOfEveryPhase(const std::string& name) {
  TinyJob job(name, SlowModel());
  job.spec["healing"] = {{"tokens", "512"},
                         {"sequenceLength", 32},
                         {"batchSequences", 2},
                         {"warmupSteps", 1},
                         {"evaluateEvery", 2}};
  return job;
}

std::vector<std::string> Arguments(const TinyJob& job) {
  EXPECT_TRUE(WriteFileAtomic(job.root / "spec.json", WriteJson(job.spec)).ok());
  return {"--spec", (job.root / "spec.json").string(), "--work-dir", job.work().string()};
}

TEST(ProcessTest, SurvivesKillInEveryPhase) {
  const TinyJob whole = JobOfEveryPhase("kill_whole");
  const Ended reference = RunConvert(Arguments(whole));
  ASSERT_EQ(reference.exit_code, 0);
  const std::string expected = Sha256File(whole.out() / "model.safetensors").value();
  int killed = 0;
  for (const char* phase : {"PHASE_FETCHING", "PHASE_CALIBRATING", "PHASE_FACTORIZING",
                            "PHASE_FINE_TUNING", "PHASE_EVALUATING", "PHASE_PUBLISHING"}) {
    const TinyJob job = JobOfEveryPhase("kill");
    const std::vector<std::string> arguments = Arguments(job);
    const Ended first =
        RunConvert(arguments, absl::StrCat("\"phaseStarted\":{\"phase\":\"", phase, "\""), SIGKILL);
    if (first.signal == SIGKILL) ++killed;
    const Ended second = RunConvert(arguments);
    ASSERT_EQ(second.exit_code, 0) << "killed in " << phase;
    EXPECT_THAT(second.lines.back(), HasSubstr("\"result\""));
    EXPECT_EQ(Sha256File(job.out() / "model.safetensors").value(), expected)
        << "killed in " << phase;
    EXPECT_THAT(job.Outputs(), testing::ElementsAre("out"));
  }
  EXPECT_GE(killed, 5);
}

TEST(ProcessTest, SigtermEndsWithFiveAndNoLastEvent) {
  const TinyJob job("sigterm", SlowModel());
  const Ended ended = RunConvert(Arguments(job), "PHASE_FETCHING", SIGTERM);
  EXPECT_EQ(ended.exit_code, 5);
  EXPECT_EQ(ended.signal, 0);
  for (const std::string& line : ended.lines) {
    const Json event = ParseJson(line).value();
    EXPECT_FALSE(event.contains("error") || event.contains("result")) << line;
  }
  EXPECT_THAT(job.Outputs(), testing::IsEmpty());
}

TEST(ProcessTest, ExitCodesSayWhoHasToAct) {
  EXPECT_EQ(RunConvert({"--no-such-flag"}).exit_code, 2);
  EXPECT_EQ(RunConvert({}).exit_code, 2);
  EXPECT_EQ(RunConvert({"--version"}).exit_code, 0);
  TinyJob job("exit_codes");
  job.spec["method"] = "METHOD_FULL_MLA";
  const Ended refused = RunConvert(Arguments(job));
  EXPECT_EQ(refused.exit_code, 1);
  const Json event = ParseJson(refused.lines.back()).value();
  EXPECT_EQ(event["error"]["reason"], "METHOD_NOT_SUPPORTED");
  EXPECT_EQ(event["sequence"], "1");
}

TEST(ProcessTest, NoLinkLeadsOutOfTheAllowedRoots) {
  const TinyJob whole("roots_whole");
  std::vector<std::string> arguments = Arguments(whole);
  arguments.insert(arguments.end(), {"--allowed-root", whole.root.string()});
  EXPECT_EQ(RunConvert(arguments).exit_code, 0);

  const TinyJob linked("roots_linked"), elsewhere("roots_elsewhere");
  std::filesystem::remove(linked.root / "text.txt");
  std::filesystem::create_symlink(elsewhere.root / "text.txt", linked.root / "text.txt");
  arguments = Arguments(linked);
  EXPECT_EQ(RunConvert(arguments).exit_code, 0) << "nothing holds it";
  std::filesystem::remove_all(linked.out());
  arguments.insert(arguments.end(), {"--allowed-root", linked.root.string()});
  const Ended refused = RunConvert(arguments);
  EXPECT_EQ(refused.exit_code, 1);
  const Json error = ParseJson(refused.lines.back()).value()["error"];
  EXPECT_EQ(error["reason"], "CORPUS_NOT_READABLE");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("text.txt"));
  EXPECT_THAT(linked.Outputs(), testing::IsEmpty());
}

TEST(ProcessTest, EvaluatePrintsOneObject) {
  const TinyJob job("evaluate");
  const std::vector<std::string> arguments = {"evaluate",        (job.root / "model").string(),
                                              "--text",          (job.root / "eval.txt").string(),
                                              "--windows",       "2",
                                              "--window-length", "32",
                                              "--dtype",         "float32",
                                              "--threads",       "1"};
  const Ended ended = RunConvert(arguments);
  ASSERT_EQ(ended.exit_code, 0);
  const Json result = ParseJson(absl::StrJoin(ended.lines, "\n")).value();
  EXPECT_EQ(result["windows"], 2);
  // A random model knows nothing of its 64 tokens.
  EXPECT_NEAR(result["perplexity"].get<double>(), 64, 16);
  const Ended absent = RunConvert({"evaluate", "/nonexistent", "--text", "/nonexistent"});
  EXPECT_EQ(absent.exit_code, 1);
}

}  // namespace
}  // namespace latentforge::convert
