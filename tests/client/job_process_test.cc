// The real `latentforge job`, `health`, `model` and `evaluate` against a real server
// without workers.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "base/json.h"
#include "client/child_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::client {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

struct Ending {
  std::string how;
  std::string output;
  std::string messages;
};

Ending Finish(ChildProcess& child) {
  Ending ending;
  const absl::StatusOr<std::string> output = ReadChildOutput(
      child, [&](const std::string& line) { absl::StrAppend(&ending.messages, line, "\n"); },
      [] {});
  EXPECT_TRUE(output.ok()) << output.status();
  ending.output = output.value_or("");
  ending.how = child.exit_status().ToString();
  return ending;
}

// What it writes first.
ChildOutput AwaitOutput(ChildProcess& child) {
  ChildOutput output;
  while (output.out.empty() && output.err.empty() && !child.finished()) {
    EXPECT_TRUE(child.Poll(-1, absl::Seconds(1), &output).ok());
  }
  return output;
}

class JobTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = checkpoint::NewTestDirectory("job");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(folder_ / "model").ok());
    std::ofstream(folder_ / "text.txt") << "Some words.\n";
    address_ = absl::StrCat("unix:", (folder_ / "sock").string());
    StartServer();
  }

  void StartServer(const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {Program("latentforge-server"),
                                        "--listen",
                                        address_,
                                        "--database",
                                        folder_ / "db",
                                        "--ready-file",
                                        folder_ / "ready",
                                        "--drain-delay",
                                        "0s"};
    command.insert(command.end(), more.begin(), more.end());
    auto server = ChildProcess::Start({.argv = command, .log = folder_ / "server.log"});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(folder_ / "ready")) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      usleep(5000);
    }
  }

  void TearDown() override {
    server_.reset();
    std::error_code ignored;  // a leftover in the temporary folder does no harm
    fs::remove_all(folder_, ignored);
  }

  static std::string Program(const std::string& name) {
    return fs::path(LATENTFORGE_BINARY_DIR) / "bin" / name;
  }

  std::unique_ptr<ChildProcess> Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Program("latentforge"));
    auto child = ChildProcess::Start({.argv = arguments});
    EXPECT_TRUE(child.ok()) << child.status();
    return std::move(*child);
  }

  // With --server.
  Ending Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--server", address_});
    return Finish(*Start(arguments));
  }

  Ending Submit(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "job",          "submit",        folder_ / "model",    "--kv-budget",
        "0.5",          "--calibration", folder_ / "text.txt", "--out",
        folder_ / "out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }

  fs::path folder_;
  std::string address_;
  std::unique_ptr<ChildProcess> server_;
};

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
  std::ofstream(folder_ / "more.txt") << "Some more words.\n";
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
              HasSubstr(absl::StrCat("\nqueued\nno worker is connected, so the job waits; start "
                                     "one: latentforge-worker --server ",
                                     address_, "  (")));
}

TEST_F(JobTest, AWatchSurvivesRestartsOfTheServer) {
  const std::string job(absl::StripSuffix(Submit().output, "\n"));
  const auto watch =
      Start({"job", "watch", job, "--from-sequence", "0", "-o", "jsonl", "--server", address_});
  const ChildOutput first = AwaitOutput(*watch);
  ASSERT_NE(first.out, "");
  // Without a grace the last calls are cut off rather than answered.
  for (const int signal : {SIGKILL, SIGTERM, SIGTERM}) {
    server_->Signal(signal);
    ASSERT_TRUE(server_->Wait(absl::Seconds(20)));
    fs::remove(folder_ / "ready");
    StartServer({"--drain-grace", "0s"});
  }
  EXPECT_EQ(Run({"job", "cancel", job}).how, "exit code 0");
  Ending ending = Finish(*watch);
  ending.output.insert(0, first.out);
  EXPECT_EQ(ending.how, "exit code 5") << ending.messages;
  // Every event once.
  const std::string event = "{\"event\":{\"sequence\":\"1\"";
  EXPECT_EQ(ending.output.find(event), ending.output.rfind(event));
  EXPECT_THAT(ending.output, HasSubstr("JOB_STATE_CANCELLED"));
}

TEST_F(JobTest, ErrorsForProgramsAreOneObject) {
  const Ending refused = Submit({"--evaluate", "/nonexistent", "-o", "json", "--request-id", "q"});
  EXPECT_EQ(refused.how, "exit code 6");
  const absl::StatusOr<Json> error = ParseJson(refused.messages);
  ASSERT_TRUE(error.ok()) << refused.messages;
  EXPECT_THAT((*error)["error"]["message"].get<std::string>(), HasSubstr("/nonexistent"));
  EXPECT_FALSE((*error)["error"]["reason"].get<std::string>().empty());
  EXPECT_EQ(Finish(*Start({"job", "get", "x", "--server", "unix:/nonexistent"})).how,
            "exit code 9");
  const absl::StatusOr<Json> usage =
      ParseJson(Finish(*Start({"job", "list", "--page-size", "x", "-o", "json"})).messages);
  ASSERT_TRUE(usage.ok()) << usage.status();
  EXPECT_EQ((*usage)["error"]["reason"], "USAGE");
  EXPECT_EQ(Finish(*Start({"health", "--server", "unix:/nonexistent"})).how, "exit code 9");
}

TEST_F(JobTest, UsageErrorsSuggest) {
  const Ending flag = Finish(*Start({"convert", "--kv-bugdet", "1"}));
  EXPECT_EQ(flag.how, "exit code 2");
  EXPECT_THAT(flag.messages, HasSubstr("did you mean --kv-budget?"));
  EXPECT_THAT(Finish(*Start({"jbo"})).messages, HasSubstr("did you mean job?"));
  EXPECT_THAT(Finish(*Start({"convert", "--help"})).output, StartsWith("Example:\n"));
}

TEST_F(JobTest, HelpIsThatOfTheTopic) {
  const auto help = [this](std::vector<std::string> topic) {
    topic.insert(topic.begin(), "help");
    return Finish(*Start(topic));
  };
  EXPECT_EQ(help({}).output, Finish(*Start({"--help"})).output);
  EXPECT_THAT(help({}).output, HasSubstr("asks for the server's health (grpc.health.v1)\n"));
  EXPECT_EQ(help({"job", "submit"}).output, Finish(*Start({"job", "submit", "--help"})).output);
  EXPECT_THAT(help({"exit-codes"}).output, HasSubstr("130  interrupted"));
  const Ending unknown = help({"convrt"});
  EXPECT_EQ(unknown.how, "exit code 2");
  EXPECT_THAT(unknown.messages, HasSubstr("did you mean convert?"));
  EXPECT_THAT(help({"job", "submt"}).messages, HasSubstr("did you mean submit?"));
}

TEST_F(JobTest, AFormatThatACommandHasNotIsRefusedAtOnce) {
  const Ending ending =
      Finish(*Start({"evaluate", folder_ / "model", "--text", folder_ / "text.txt", "-o", "name"}));
  EXPECT_EQ(ending.how, "exit code 2");
  EXPECT_THAT(ending.messages, HasSubstr("-o is \"name\", expected table, json or jsonl"));
}

TEST_F(JobTest, UsageErrorsSayWhatWasSeenAndExpected) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"--kv-budget", "abc"}, "--kv-budget is \"abc\", expected a number in (0, 1]"},
      {{"--kv-budget", "0"}, "--kv-budget is \"0\", expected a number in (0, 1]"},
      {{"--kv-budget", ""}, "--kv-budget is \"\", expected a number in (0, 1]"},
      {{"--calibration-sequences", "0"}, "is \"0\", expected an integer of at least 1"},
      {{"--sequence-length", "0"}, "--sequence-length is \"0\", expected an integer of at least 1"},
      {{"--evaluate-windows", "0"},
       "--evaluate-windows is \"0\", expected an integer of at least 1"},
      {{"--window-length", "1"}, "--window-length is \"1\", expected an integer of at least 2"},
      {{"--threads", "0"}, "--threads is \"0\", expected an integer of at least 1"},
      {{"--threads", "5000000000"}, "expected an integer of at least 1"},
      {{"--damping", "-1"}, "--damping is \"-1\", expected a number of at least 0"},
      {{"--seed", "-1"}, "--seed is \"-1\", expected an integer from 0 to 2^64 - 1"},
      {{"--out", ""}, "--out is empty, expected a value"},
      {{"--evaluate", ""}, "--evaluate is empty, expected a value"},
      {{"--work-dir", ""}, "--work-dir is empty, expected a value"},
      {{"--method", "full-mla"}, "--method is full-mla, which is not available in this version"},
  };
  for (const auto& [arguments, message] : kCases) {
    std::vector<std::string> all = {"convert", "m", "--calibration", "a.txt"};
    for (const auto& [flag, value] : {std::pair("--kv-budget", "0.5"), std::pair("--out", "o")}) {
      if (arguments[0] == flag) continue;
      all.push_back(flag);
      all.push_back(value);
    }
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Ending ending = Finish(*Start(all));
    EXPECT_EQ(ending.how, "exit code 2") << arguments[0];
    EXPECT_THAT(ending.messages, HasSubstr(message));
  }
  EXPECT_THAT(Finish(*Start({"convert", ""})).messages, HasSubstr("MODEL is empty"));
  EXPECT_THAT(Finish(*Start({"job", "watch", "j", "--from-sequence", "-1"})).messages,
              HasSubstr("--from-sequence is \"-1\", expected an integer of at least 0"));
  EXPECT_THAT(Finish(*Start({"job", "list", "--page-size", "0"})).messages,
              HasSubstr("--page-size is \"0\", expected an integer from 1 to 1000"));
  EXPECT_THAT(Finish(*Start({"job", "list", "--state", "quued"})).messages,
              HasSubstr("--state is \"quued\", expected one of"));
  const std::string help = Finish(*Start({"convert", "--help"})).output;
  EXPECT_THAT(help, HasSubstr("kv-latent"));
  EXPECT_THAT(help, Not(HasSubstr("full-mla")));
}

TEST_F(JobTest, ExitCodesAreThoseOfTheTable) {
  const auto code = [this](std::vector<std::string> arguments) {
    return Finish(*Start(std::move(arguments))).how;
  };
  fs::create_directories(folder_ / "no-config");
  fs::create_directories(folder_ / "gpt2");
  std::ofstream(folder_ / "gpt2" / "config.json") << R"({"model_type": "gpt2"})";
  fs::create_directories(folder_ / "broken");
  std::ofstream(folder_ / "broken" / "config.json") << "{";
  for (const auto& [model, how] :
       {std::pair("none", "exit code 6"), std::pair("no-config", "exit code 6"),
        std::pair("gpt2", "exit code 2"), std::pair("broken", "exit code 2")}) {
    EXPECT_EQ(code({"model", "inspect", folder_ / model}), how) << model;
    EXPECT_EQ(code({"job", "submit", folder_ / model, "--server", address_, "--kv-budget", "0.5",
                    "--calibration", folder_ / "text.txt", "--out", folder_ / "out"}),
              how)
        << model;
  }
  fs::create_directories(folder_ / "full");
  std::ofstream(folder_ / "full" / "file") << "x";
  EXPECT_EQ(code({"job", "submit", folder_ / "model", "--server", address_, "--kv-budget", "0.5",
                  "--calibration", folder_ / "text.txt", "--out", folder_ / "full"}),
            "exit code 7");
}

TEST_F(JobTest, InspectNamesBudgets) {
  const Ending table = Finish(*Start({"model", "inspect", folder_ / "model"}));
  EXPECT_EQ(table.how, "exit code 0");
  EXPECT_THAT(table.output, HasSubstr("GQA, 4 heads, 2 KV heads of 8"));
  const Ending json = Finish(*Start({"model", "inspect", folder_ / "model", "-o", "json"}));
  const absl::StatusOr<Json> summary = ParseJson(json.output);
  ASSERT_TRUE(summary.ok()) << json.output;
  EXPECT_EQ((*summary)["budgets"][1]["uniform_rank"], 8);
  EXPECT_EQ((*summary)["tokenizer_problem"], "");
  EXPECT_EQ(Finish(*Start({"model", "inspect", folder_ / "none"})).how, "exit code 6");
}

TEST_F(JobTest, InspectMissesTheTokenizer) {
  const std::string file = folder_ / "model" / "tokenizer.json";
  fs::remove(file);
  const Ending table = Finish(*Start({"model", "inspect", folder_ / "model"}));
  EXPECT_EQ(table.how, "exit code 6");
  EXPECT_THAT(table.output, HasSubstr("missing: there is no tokenizer.json\n"));
  EXPECT_THAT(table.output, HasSubstr("GQA, 4 heads")) << "the rest is shown";
  EXPECT_THAT(table.messages, HasSubstr(file));
  EXPECT_THAT(table.messages, HasSubstr("[SOURCE_NOT_READABLE]\nnext: "));
  const Ending json = Finish(*Start({"model", "inspect", folder_ / "model", "-o", "json"}));
  const absl::StatusOr<Json> summary = ParseJson(json.output);
  ASSERT_TRUE(summary.ok()) << json.output;
  EXPECT_THAT((*summary)["tokenizer_problem"].get<std::string>(), HasSubstr(file));
  std::ofstream(file) << "{}";
  const Ending damaged = Finish(*Start({"model", "inspect", folder_ / "model"}));
  EXPECT_EQ(damaged.how, "exit code 2");
  EXPECT_THAT(damaged.messages, HasSubstr("[MALFORMED_TOKENIZER]\nnext: download tokenizer.json"));
}

TEST_F(JobTest, OutputThatNobodyReadsEndsLikeThatOfOtherPrograms) {
  const std::string program = Program("latentforge");
  const auto shell = [](const std::string& script) {
    auto child = ChildProcess::Start({.argv = {"/bin/sh", "-c", script}});
    EXPECT_TRUE(child.ok()) << child.status();
    return Finish(**child);
  };
  for (const char* command : {"help", "--help", "--version", "model inspect model"}) {
    // It runs once the reader has gone.
    const Ending closed = shell(absl::StrCat("cd ", folder_.string(), " && { sleep 0.3; ", program,
                                             " ", command, "; echo $? >&2; } | true"));
    EXPECT_EQ(closed.messages, "141\n") << command;
    const Ending full =
        shell(absl::StrCat("cd ", folder_.string(), " && ", program, " ", command, " > /dev/full"));
    EXPECT_EQ(full.how, "exit code 1") << command;
    EXPECT_THAT(full.messages, HasSubstr("write standard output: No space left on device"));
    EXPECT_THAT(full.messages, HasSubstr("\nnext: free "));
  }
}

}  // namespace
}  // namespace latentforge::client
