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

TEST(RequestChecksTest, LabelsOfWorkersArePlainWords) {
  v1::AcquireLeaseRequest request;
  request.mutable_worker()->set_name("w");
  request.mutable_worker()->set_version("0.1.0");
  request.mutable_worker()->set_slots(1);
  (*request.mutable_worker()->mutable_labels())["zone"] = "a";
  EXPECT_TRUE(CheckAcquireRequest(request, "0.1.0").ok());
  (*request.mutable_worker()->mutable_labels())["zone"] = "a b";
  const absl::Status status = CheckAcquireRequest(request, "0.1.0");
  EXPECT_EQ(ReasonOf(status), kInvalidField);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worker.labels has \"zone=a b\""));
}

}  // namespace
}  // namespace latentforge::service
