#include "worker/model/torch_guard.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace latentforge::model {
namespace {

using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(CatchTorch, GivesValues) {
  const absl::StatusOr<at::Tensor> sum = CatchTorch([] { return at::ones({3}).sum(); }, "a sum");
  ASSERT_TRUE(sum.ok());
  EXPECT_EQ(sum->item<double>(), 3);
  EXPECT_TRUE(CatchTorch([] { at::ones({1}); }, "nothing").ok());
}

TEST(CatchTorch, PassesStatusOn) {
  const absl::Status status = CatchTorch([] { return absl::NotFoundError("here"); }, "x");
  EXPECT_EQ(status, absl::NotFoundError("here"));
  const absl::StatusOr<int> value =
      CatchTorch([]() -> absl::StatusOr<int> { return absl::AbortedError("there"); }, "x");
  EXPECT_EQ(value.status(), absl::AbortedError("there"));
}

TEST(CatchTorch, ShapeErrorsNameTheContext) {
  const absl::StatusOr<at::Tensor> product = CatchTorch(
      [] {
        return at::ones({2, 3}).mm(at::ones({2, 3}));
      },
      "layer 7");
  EXPECT_EQ(product.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(product.status()), HasSubstr("layer 7: "));
  EXPECT_THAT(Message(product.status()), testing::Not(HasSubstr("frame #")));
}

TEST(CatchTorch, ExhaustedMemoryIsAResourceError) {
  const absl::StatusOr<at::Tensor> huge =
      CatchTorch([] { return at::empty({int64_t{1} << 50}, at::kFloat); }, "a petabyte");
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted) << huge.status();
}

TEST(CatchTorch, OtherExceptions) {
  const absl::StatusOr<char> value =
      CatchTorch([] { return std::string("abc").at(9); }, "a string");
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(value.status()), HasSubstr("a string: "));
}

}  // namespace
}  // namespace latentforge::model
