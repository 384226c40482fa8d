#include "worker/agent/machine.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

class MachineTest : public testing::Test {
 protected:
  MachineTest() {
    fs::create_directories(root_ / "proc");
    fs::create_directories(root_ / "dev");
    fs::create_directories(root_ / "sys/fs/cgroup");
    std::ofstream(root_ / "proc/meminfo") << "MemTotal:       2048 kB\nMemFree:  1 kB\n";
  }
  ~MachineTest() override { fs::remove_all(root_); }

  const fs::path root_ = fs::path(testing::TempDir()) / absl::StrCat("machine_test_", getpid());
};

TEST_F(MachineTest, MemoryIsTheLowerOfMachineAndControlGroup) {
  EXPECT_EQ(UsableMemoryBytes(root_), 2048 * 1024);
  std::ofstream(root_ / "sys/fs/cgroup/memory.max") << "max\n";
  EXPECT_EQ(UsableMemoryBytes(root_), 2048 * 1024);
  std::ofstream(root_ / "sys/fs/cgroup/memory.max") << "4096\n";
  EXPECT_EQ(UsableMemoryBytes(root_), 4096);
  EXPECT_EQ(UsableMemoryBytes(root_ / "nowhere"), 0);
}

TEST_F(MachineTest, ListsNvidiaDevices) {
  EXPECT_THAT(Devices(root_), ElementsAre("cpu"));
  std::ofstream(root_ / "dev/nvidia1") << "";
  EXPECT_THAT(Devices(root_), ElementsAre("cpu", "cuda:1"));
}

TEST(DevicePresentTest, SaysWhichDeviceIsMissing) {
  const std::vector<std::string> one = {"cpu", "cuda:1"};
  for (const char* device : {"", "auto", "cpu", "cuda", "cuda:1"}) {
    EXPECT_TRUE(CheckDevicePresent(device, one).ok()) << device;
  }
  EXPECT_EQ(CheckDevicePresent("cuda:10", one).message(),
            "is cuda:10, but this machine has cpu, cuda:1 (/dev/nvidia10 is absent)");
  EXPECT_EQ(CheckDevicePresent("cuda", {"cpu"}).message(),
            "is cuda, but this machine has cpu (no /dev/nvidiaN is there)");
}

}  // namespace
}  // namespace latentforge::agent
