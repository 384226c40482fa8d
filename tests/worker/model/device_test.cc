#include "worker/model/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace latentforge::model {
namespace {

using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(SelectDevice, Cpu) {
  const absl::StatusOr<at::Device> device = SelectDevice("cpu");
  ASSERT_TRUE(device.ok());
  EXPECT_TRUE(device->is_cpu());
}

TEST(SelectDevice, AutoTakesWhatIsThere) {
  for (const char* const text : {"auto", ""}) {
    const absl::StatusOr<at::Device> device = SelectDevice(text);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(device->is_cuda(), SelectDevice("cuda").ok());
  }
}

TEST(SelectDevice, RefusesOtherTexts) {
  for (const char* const text : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cudacuda", "cuda0", "CPU"}) {
    const absl::Status status = SelectDevice(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(status), HasSubstr(text));
  }
}

TEST(SelectDevice, CudaIsThereOrWhatIsMissingIsSaid) {
  const auto device = SelectDevice("cuda:0");
  if (device.ok()) {
    EXPECT_EQ(*device, at::Device("cuda:0"));
    return;
  }
  EXPECT_EQ(device.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(device.status()), HasSubstr("libtorch_cuda.so"));
}

TEST(ParseComputeType, Names) {
  EXPECT_EQ(*ParseComputeType("float32"), at::kFloat);
  EXPECT_EQ(*ParseComputeType("bfloat16"), at::kBFloat16);
  EXPECT_EQ(*ParseComputeType(""), at::kBFloat16);
  EXPECT_THAT(Message(ParseComputeType("float16").status()), HasSubstr("\"float16\""));
}

TEST(SetThreads, Limits) {
  EXPECT_FALSE(SetThreads(-1).ok());
  EXPECT_FALSE(SetThreads(1025).ok());
  ASSERT_TRUE(SetThreads(1).ok());
  EXPECT_EQ(at::get_num_threads(), 1);
  ASSERT_TRUE(SetThreads(0).ok());
  EXPECT_GE(at::get_num_threads(), 1);
}

}  // namespace
}  // namespace latentforge::model
