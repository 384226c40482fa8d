#include "worker/agent/oom_kills.h"

#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;

class OomKillsTest : public testing::Test {
 protected:
  ~OomKillsTest() override { fs::remove_all(root_); }

  void Write(const fs::path& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }

  const fs::path root_ = fs::path(testing::TempDir()) / absl::StrCat("oom_kills_", getpid());
};

TEST_F(OomKillsTest, TheGroupsCountGoesBeforeTheMachines) {
  EXPECT_EQ(CountOomKills(root_), std::nullopt);
  Write("proc/vmstat", "nr_free_pages 1\noom_kill 9\n");
  EXPECT_EQ(CountOomKills(root_), 9);
  Write("sys/fs/cgroup/memory.events", "low 0\noom 1\noom_kill 2\noom_group_kill 0\n");
  EXPECT_EQ(CountOomKills(root_), 2);
  Write("proc/self/cgroup", "0::/system.slice/worker.service\n");
  EXPECT_EQ(CountOomKills(root_), 2) << "a container shows its own group as the root";
  Write("sys/fs/cgroup/system.slice/worker.service/memory.events", "oom_kill 3\n");
  EXPECT_EQ(CountOomKills(root_), 3);
}

TEST_F(OomKillsTest, ReadsVersionOne) {
  Write("proc/self/cgroup", "5:cpu:/a\n4:memory:/docker/abc\n");
  Write("sys/fs/cgroup/memory/docker/abc/memory.oom_control", "under_oom 0\noom_kill 4\n");
  EXPECT_EQ(CountOomKills(root_), 4);
}

TEST_F(OomKillsTest, AFileWithoutTheCountIsNone) {
  Write("sys/fs/cgroup/memory.events", "oom 1\noom_kill x\n");
  EXPECT_EQ(CountOomKills(root_), std::nullopt);
}

}  // namespace
}  // namespace latentforge::agent
