#include "service/request_checks.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

TEST(RequestChecksTest, WrongAcquireFieldsAreNamed) {
  v1::AcquireLeaseRequest request;
  request.mutable_wait()->set_seconds(-1);
  const absl::Status status = CheckAcquireRequest(request, "0.1.0");
  EXPECT_EQ(ReasonOf(status), kInvalidField);
  for (const char* field : {"worker.name", "worker.slots", "wait"})
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

}  // namespace
}  // namespace latentforge::service
