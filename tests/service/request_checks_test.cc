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

TEST(RequestChecksTest, AFilterIsBounded) {
  v1::JobFilter filter;
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JobState_MAX; ++state)
    filter.add_states(static_cast<v1::JobState>(state));
  (*filter.mutable_labels())[std::string(63, 'k')] = std::string(63, 'v');
  filter.set_tenant(std::string(63, 't'));
  EXPECT_TRUE(CheckFilter(filter).ok());
  v1::JobFilter states = filter;
  for (int i = 0; i < 10; ++i) states.add_states(v1::JOB_STATE_QUEUED);
  EXPECT_EQ(ReasonOf(CheckFilter(states)), kInvalidField);
  v1::JobFilter label = filter;
  (*label.mutable_labels())["key"] = std::string(64, 'v');
  EXPECT_EQ(ReasonOf(CheckFilter(label)), kInvalidField);
  v1::JobFilter tenant = filter;
  tenant.set_tenant(std::string(1000, 't'));
  EXPECT_EQ(ReasonOf(CheckFilter(tenant)), kInvalidField);
}

}  // namespace
}  // namespace latentforge::service
