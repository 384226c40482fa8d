// Usage, help, formats, exit codes and `latentforge model inspect` of the real program.
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "tests/client/job_process.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

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

TEST_F(JobTest, OneWordingForDevicesThatAreNotHere) {
  const std::vector<std::string> convert = {"convert", folder_ / "model", "--kv-budget",
                                            "0.5",     "--calibration",   folder_ / "text.txt",
                                            "--out",   folder_ / "out"};
  const std::vector<std::string> evaluate = {"evaluate", folder_ / "model", "--text",
                                             folder_ / "text.txt"};
  for (std::vector<std::string> command : {convert, evaluate}) {
    command.insert(command.end(), {"--device", "cuda:x"});
    const Ending malformed = Finish(*Start(command));
    EXPECT_EQ(malformed.how, "exit code 2");
    EXPECT_THAT(malformed.messages,
                HasSubstr("--device is \"cuda:x\", expected auto, cpu, cuda or cuda:N"));
    if (fs::exists("/dev/nvidiactl")) continue;
    command.back() = "cuda";
    const Ending absent = Finish(*Start(command));
    EXPECT_EQ(absent.how, "exit code 2");
    EXPECT_THAT(absent.messages, HasSubstr("--device is cuda, but this machine has no NVIDIA"));
    EXPECT_THAT(absent.messages, HasSubstr("[DEVICE_UNAVAILABLE]\nnext: leave --device out"));
  }
}

TEST_F(JobTest, UsageErrorsSayWhatWasSeenAndExpected) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"--kv-budget", "abc"}, "--kv-budget is \"abc\", expected a number in (0, 1]"},
      {{"--kv-budget", "0"}, "--kv-budget is \"0\", expected a number in (0, 1]"},
      {{"--kv-budget", ""}, "--kv-budget is \"\", expected a number in (0, 1]"},
      {{"--calibration-sequences", "0"}, "is \"0\", expected an integer from 1 to 1000000"},
      {{"--sequence-length", "1"}, "--sequence-length is \"1\", expected an integer from 2"},
      {{"--evaluate-windows", "0"},
       "--evaluate-windows is \"0\", expected an integer from 1 to 1000000"},
      {{"--window-length", "1"}, "--window-length is \"1\", expected an integer from 2 to 1000000"},
      {{"--threads", "0"}, "--threads is \"0\", expected an integer from 1 to 1024"},
      {{"--threads", "5000000000"}, "expected an integer from 1 to 1024"},
      {{"--quality-gate", "0"}, "--quality-gate is \"0\", expected a number of at least 1"},
      {{"--quality-gate", "nan"}, "--quality-gate is \"nan\", expected a number of at least 1"},
      {{"--heal-learning-rate", "0"}, "--heal-learning-rate is \"0\", expected a number in (0, 1]"},
      {{"--max-perplexity-ratio", "0"},
       "--max-perplexity-ratio is \"0\", expected a number above 1"},
      {{"--max-perplexity-ratio", "inf"}, "is \"inf\", expected a number above 1"},
      {{"--kv-budget", "0.5", "--kv-budget", "0.6"},
       "--kv-budget is given twice, as \"0.5\" and \"0.6\", expected once"},
      {{"--damping", "-1"}, "--damping is \"-1\", expected a number from 0 to 1000000"},
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

TEST_F(JobTest, InspectShowsWhatItReadBeforeItRefuses) {
  fs::create_directories(folder_ / "gpt2");
  std::ofstream(folder_ / "gpt2" / "config.json") << R"({"model_type": "gpt2", "n_layer": 12})";
  const Ending table = Finish(*Start({"model", "inspect", folder_ / "gpt2"}));
  EXPECT_EQ(table.how, "exit code 2");
  EXPECT_THAT(table.output, testing::ContainsRegex("model_type +gpt2\nn_layer +12\n"));
  EXPECT_THAT(table.messages, HasSubstr("[UNSUPPORTED_ARCHITECTURE]\nnext: give a checkpoint"));
  EXPECT_THAT(table.messages, Not(HasSubstr("model inspect")));
  const Ending json = Finish(*Start({"model", "inspect", folder_ / "gpt2", "-o", "json"}));
  const absl::StatusOr<Json> shown = ParseJson(json.output);
  ASSERT_TRUE(shown.ok()) << json.output;
  EXPECT_EQ((*shown)["config"]["model_type"], "gpt2");
  fs::resize_file(folder_ / "model" / "model.safetensors", 5);
  const Ending weights = Finish(*Start({"model", "inspect", folder_ / "model"}));
  EXPECT_THAT(weights.output, HasSubstr("vocab_size"));
  EXPECT_THAT(weights.messages, HasSubstr("[MALFORMED_SAFETENSORS]\nnext: download the weights"));
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
  const std::string token = folder_ / "unseen-token";
  const Ending none = shell(absl::StrCat(program, " auth new-token --subject a --tenant b --role ",
                                         "user --out ", token, " >&-"));
  EXPECT_EQ(none.how, "exit code 1");
  EXPECT_THAT(none.messages, HasSubstr("write standard output: Bad file descriptor"));
  EXPECT_THAT(none.messages, HasSubstr("next: standard output is closed"));
  EXPECT_FALSE(fs::exists(token)) << "its hash was not told";
}

}  // namespace
}  // namespace latentforge::client
