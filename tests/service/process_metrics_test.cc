#include "service/process_metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsSupersetOf;

constexpr char kStat[] =
    "42 (a) b) c) S 1 42 42 0 -1 4194560 100 0 3 0 250 50 7 8 20 0 5 0 1000 9000000 2000 "
    "18446744073709551615 1 1 0 0 0\n";

class ProcessMetricsTest : public testing::Test {
 protected:
  ProcessMetricsTest() {
    fs::create_directories(proc_ / "self/fd");
    for (const char* name : {"0", "1", "7"}) Write(fs::path("self/fd") / name, "");
    Write("self/stat", kStat);
    Write("self/limits",
          "Limit                     Soft Limit           Hard Limit           Units     \n"
          "Max open files            1024                 524288               files     \n");
    Write("stat", "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n");
  }

  void Write(const fs::path& name, const std::string& text) { std::ofstream(proc_ / name) << text; }

  TempDir dir_;
  const fs::path proc_ = dir_.path();
};

TEST_F(ProcessMetricsTest, ReadsWhatTheKernelWrites) {
  const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(proc_);
  ASSERT_TRUE(usage.ok()) << usage.status();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  EXPECT_DOUBLE_EQ(usage->cpu_seconds, 300 / ticks);
  EXPECT_DOUBLE_EQ(usage->start_time_seconds, 1700000000 + 1000 / ticks);
  EXPECT_EQ(usage->virtual_bytes, 9000000);
  EXPECT_EQ(usage->resident_bytes, 2000 * sysconf(_SC_PAGESIZE));
  EXPECT_EQ(usage->open_files, 3);
  EXPECT_EQ(usage->max_files, 1024);
}

TEST_F(ProcessMetricsTest, NoLimitIsZero) {
  Write("self/limits", "Max open files            unlimited            unlimited   files\n");
  EXPECT_EQ(ReadProcessUsage(proc_)->max_files, 0);
  EXPECT_EQ(ProcessCollector(proc_).Collect().size(), 5);
}

TEST_F(ProcessMetricsTest, OtherContentsAreErrorsThatNameTheFile) {
  const std::pair<const char*, const char*> broken[] = {{"self/stat", "42 no brackets"},
                                                        {"self/stat", "42 (a) S 1 2"},
                                                        {"self/stat", ""},
                                                        {"stat", "cpu 1 2 3\n"},
                                                        {"stat", "btime soon\n"},
                                                        {"self/limits", "Max cpu time 1 1\n"},
                                                        {"self/limits", "Max open files many\n"}};
  for (const auto& [name, text] : broken) {
    const absl::StatusOr<std::string> good = ReadFile(proc_ / name);
    ASSERT_TRUE(good.ok());
    Write(name, text);
    const absl::Status status = ReadProcessUsage(proc_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << name << ": " << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr((proc_ / name).string()));
    EXPECT_TRUE(ProcessCollector(proc_).Collect().empty());
    Write(name, *good);
  }
  EXPECT_TRUE(ReadProcessUsage(proc_).ok());
}

TEST_F(ProcessMetricsTest, TellsOfThisProcess) {
  const auto values = [] {
    std::map<std::string, double> found;
    for (const prometheus::MetricFamily& family : ProcessCollector().Collect()) {
      const bool counter = family.type == prometheus::MetricType::Counter;
      EXPECT_EQ(family.metric.size(), 1);
      found[family.name] = counter ? family.metric[0].counter.value : family.metric[0].gauge.value;
    }
    return found;
  };
  std::map<std::string, double> before = values();
  EXPECT_GT(before["process_resident_memory_bytes"], 1 << 20);
  EXPECT_GT(before["process_virtual_memory_bytes"], before["process_resident_memory_bytes"]);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_LT(before["process_start_time_seconds"], now + 1);
  EXPECT_GT(before["process_start_time_seconds"], now - 600);

  // A system call each, so that processor time passes in user and system mode.
  while (values()["process_cpu_seconds_total"] < before["process_cpu_seconds_total"] + 0.02) {
  }
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(values()["process_open_fds"], before["process_open_fds"] + 1);
  close(fd);
}

}  // namespace
}  // namespace latentforge::service
