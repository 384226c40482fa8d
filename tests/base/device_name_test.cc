#include "base/device_name.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

TEST(DeviceNameTest, TakesThoseThatExistSomewhere) {
  for (const char* device : {"", "auto", "cpu", "cuda", "cuda:0", "cuda:12"}) {
    EXPECT_TRUE(CheckDeviceName(device).ok()) << device;
  }
}

TEST(DeviceNameTest, NamesWhatItDoesNotKnow) {
  for (const char* device :
       {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda: 1", "cuda1", "cuda:1000", "CPU"}) {
    EXPECT_EQ(CheckDeviceName(device).code(), absl::StatusCode::kInvalidArgument) << device;
  }
  EXPECT_EQ(CheckDeviceName("tpu").message(), "is \"tpu\", expected auto, cpu, cuda or cuda:N");
}

}  // namespace
}  // namespace latentforge
