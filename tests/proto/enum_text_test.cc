#include "proto/enum_text.h"

#include "gtest/gtest.h"
#include "latentforge/v1/job.pb.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge {
namespace {

TEST(EnumTextTest, ValuesAreReadAsFlagsAreWritten) {
  EXPECT_EQ(ShortEnumName(v1::PRECONDITIONER_ROOT_COVARIANCE), "root-covariance");
  EXPECT_EQ(ShortEnumName(v1::RANK_ALLOCATION_CARE_CODE), "care-code");
  EXPECT_EQ(ShortEnumName(v1::METHOD_FULL_MLA), "full-mla");
  EXPECT_EQ(ShortEnumName(v1::JOB_STATE_RUNNING), "running");
  EXPECT_EQ(ShortEnumName(v1::RANK_ALLOCATION_UNSPECIFIED), "");
  EXPECT_EQ(ShortEnumName(static_cast<v1::JobState>(99)), "99");
}

}  // namespace
}  // namespace latentforge
