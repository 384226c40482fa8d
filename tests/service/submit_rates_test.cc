#include "service/submit_rates.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

const absl::Duration kStart = absl::Hours(1000);

TEST(SubmitRatesTest, EachTenantHasItsOwn) {
  SubmitRates rates;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(rates.Take("a", 2, kStart).ok());
  const absl::Status refused = rates.Take("a", 2, kStart);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kRateLimited);
  EXPECT_THAT(std::string(refused.message()),
              testing::AllOf(testing::HasSubstr("tenant a"), testing::HasSubstr("more than 2 jobs"),
                             testing::HasSubstr("30s")));
  const auto retry = refused.GetPayload("type.googleapis.com/google.rpc.RetryInfo");
  ASSERT_TRUE(retry.has_value());
  google::rpc::RetryInfo info;
  ASSERT_TRUE(info.ParseFromString(std::string(*retry)));
  EXPECT_EQ(info.retry_delay().seconds(), 30);
  EXPECT_TRUE(rates.Take("b", 2, kStart).ok());
  EXPECT_TRUE(rates.Take("a", 2, kStart + absl::Seconds(30)).ok());
}

TEST(SubmitRatesTest, WithoutALimitNothingIsCounted) {
  SubmitRates rates;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(rates.Take("a", 0, kStart).ok());
}

TEST(SubmitRatesTest, ForgettingTenantsForgivesNobody) {
  SubmitRates rates;
  EXPECT_TRUE(rates.Take("a", 1, kStart).ok());
  for (int i = 0; i < 5000; ++i) EXPECT_TRUE(rates.Take(absl::StrCat("t", i), 1, kStart).ok());
  EXPECT_FALSE(rates.Take("a", 1, kStart + absl::Seconds(1)).ok());
}

}  // namespace
}  // namespace latentforge::service
