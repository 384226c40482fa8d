#include "service/start_advice.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

TEST(StartAdviceTest, EveryErrorHasANextStep) {
  for (int code = 1; code <= 16; ++code) {
    EXPECT_NE(StartAdvice(absl::Status(static_cast<absl::StatusCode>(code), "x")), "") << code;
  }
  EXPECT_THAT(StartAdvice(absl::AlreadyExistsError("127.0.0.1:1 is in use")),
              HasSubstr("--listen"));
}

}  // namespace
}  // namespace latentforge::service
