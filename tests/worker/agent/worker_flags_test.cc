#include "worker/agent/worker_flags.h"

#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

std::optional<WorkerFlags> Parse(std::vector<const char*> arguments, int* exit_code) {
  arguments.insert(arguments.begin(), "latentforge-worker");
  return ParseWorkerFlags(static_cast<int>(arguments.size()), arguments.data(), exit_code);
}

TEST(WorkerFlagsTest, NeedsNoFlags) {
  int exit_code = -1;
  const auto flags = Parse({}, &exit_code);
  ASSERT_TRUE(flags.has_value());
  EXPECT_EQ(flags->server, "127.0.0.1:8470");
  EXPECT_FALSE(flags->name.empty());
  EXPECT_EQ(flags->slots, 1);
  EXPECT_EQ(flags->threads, 0);
  EXPECT_THAT(flags->convert, EndsWith("/latentforge-convert"));
  EXPECT_FALSE(flags->scratch.empty());
  EXPECT_EQ(flags->exit_when_server_gone, absl::InfiniteDuration());
}

TEST(WorkerFlagsTest, ReadsEveryFlag) {
  int exit_code = -1;
  const auto flags =
      Parse({"--server=unix:/run/s.sock", "--name=w1", "--slots=3", "--scratch=/s",
             "--scratch-keep=1h30m", "--convert=/bin/c", "--device=cuda:1", "--threads=5",
             "--ready-file=/r", "--stop-grace=500ms", "--exit-when-server-gone=10s", "--log-json"},
            &exit_code);
  ASSERT_TRUE(flags.has_value());
  EXPECT_EQ(flags->server, "unix:/run/s.sock");
  EXPECT_EQ(flags->name, "w1");
  EXPECT_EQ(flags->slots, 3);
  EXPECT_EQ(flags->scratch, "/s");
  EXPECT_EQ(flags->scratch_keep, absl::Minutes(90));
  EXPECT_EQ(flags->convert, "/bin/c");
  EXPECT_EQ(flags->device, "cuda:1");
  EXPECT_EQ(flags->threads, 5);
  EXPECT_EQ(flags->ready_file, "/r");
  EXPECT_EQ(flags->stop_grace, absl::Milliseconds(500));
  EXPECT_EQ(flags->exit_when_server_gone, absl::Seconds(10));
  EXPECT_EQ(flags->log_format, LogFormat::kJson);
}

TEST(WorkerFlagsTest, SaysWhatItOffers) {
  int exit_code = -1;
  const auto flags =
      Parse({"--memory=24GiB", "--label=zone=a", "--label", "disk=nvme", "--slots=2"}, &exit_code);
  ASSERT_TRUE(flags.has_value());
  EXPECT_EQ(flags->memory_bytes, int64_t{24} << 30);
  EXPECT_EQ(flags->labels, (std::map<std::string, std::string>{{"zone", "a"}, {"disk", "nvme"}}));
  EXPECT_EQ(Parse({"--memory=0"}, &exit_code)->memory_bytes, 0);
  // Slots share what the machine has.
  const int64_t one = Parse({}, &exit_code)->memory_bytes;
  EXPECT_GT(one, 0);
  EXPECT_EQ(Parse({"--slots=4"}, &exit_code)->memory_bytes, one / 4);
  for (const char* wrong : {"--label=zone", "--label==a", "--label=zone=", "--memory=-1"}) {
    EXPECT_FALSE(Parse({wrong}, &exit_code).has_value()) << wrong;
    EXPECT_EQ(exit_code, 2);
  }
}

TEST(WorkerFlagsTest, SlotsShareTheCores) {
  int exit_code = -1;
  EXPECT_GE(Parse({"--slots=2"}, &exit_code)->threads, 1);
}

TEST(WorkerFlagsTest, WrongUsageIsExitCodeTwoAndNamesTheFlag) {
  const std::vector<std::vector<const char*>> wrong = {
      {"--slots=0"},        {"--slots=x"},       {"--slots=1000"}, {"--stop-grace=10"},
      {"--stop-grace=-1s"}, {"--scratch-keep="}, {"--threads=-1"}, {"--surprise"},
      {"--device=tpu"},     {"--device=cuda:x"}, {"extra"}};
  for (const auto& arguments : wrong) {
    int exit_code = -1;
    testing::internal::CaptureStderr();
    EXPECT_FALSE(Parse(arguments, &exit_code).has_value()) << arguments[0];
    EXPECT_EQ(exit_code, 2) << arguments[0];
    const std::string name =
        std::string(arguments[0]).substr(0, std::string(arguments[0]).find('='));
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(name));
  }
}

TEST(WorkerFlagsTest, AMistypedFlagIsAnsweredWithTheNearestOne) {
  int exit_code = -1;
  testing::internal::CaptureStderr();
  EXPECT_FALSE(Parse({"--scrach", "/s"}, &exit_code).has_value());
  EXPECT_EQ(exit_code, 2);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("\"--scrach\" is no flag of latentforge-worker; did you mean --scratch?"));
}

TEST(WorkerFlagsTest, HelpAndVersionEndWell) {
  for (const char* flag : {"--help", "--version"}) {
    int exit_code = -1;
    testing::internal::CaptureStdout();
    EXPECT_FALSE(Parse({flag}, &exit_code).has_value());
    EXPECT_EQ(exit_code, 0);
    EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("latentforge-worker"));
  }
}

}  // namespace
}  // namespace latentforge::agent
