#include "service/errors.h"

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "service/page_token.h"

namespace latentforge::service {
namespace {

template <typename Detail>
int CountDetails(const google::rpc::Status& status, Detail* last) {
  int count = 0;
  for (const auto& any : status.details()) count += any.Is<Detail>() && any.UnpackTo(last);
  return count;
}

TEST(ErrorsTest, ExactlyOneErrorInfoAlways) {
  google::rpc::ErrorInfo info;
  const auto plain = ToRpcStatus(absl::NotFoundError("no file"));
  EXPECT_EQ(CountDetails(plain, &info), 1);
  EXPECT_EQ(info.reason(), "NOT_FOUND");
  EXPECT_EQ(info.domain(), "latentforge");
  const auto own =
      ToRpcStatus(MakeError(absl::StatusCode::kAborted, "LEASE_LOST", "over", {{"job", "j1"}}));
  EXPECT_EQ(CountDetails(own, &info), 1);
  EXPECT_EQ(info.reason(), "LEASE_LOST");
  EXPECT_EQ(info.metadata().at("job"), "j1");
  EXPECT_EQ(own.code(), 10);
  EXPECT_EQ(own.message(), "over");
}

TEST(ErrorsTest, FieldErrorsListEveryViolation) {
  const absl::Status status =
      MakeFieldError("INVALID_FIELD", {{"a", "is 1"}, {"b", "/x does not exist"}});
  EXPECT_EQ(status.message(), "a is 1; b: /x does not exist");
  google::rpc::BadRequest request;
  ASSERT_EQ(CountDetails(ToRpcStatus(status), &request), 1);
  ASSERT_EQ(request.field_violations_size(), 2);
  EXPECT_EQ(request.field_violations(1).field(), "b");
  EXPECT_EQ(request.field_violations(1).description(), "/x does not exist");
}

TEST(ErrorsTest, RetryInfoHoldsTheDelay) {
  google::rpc::RetryInfo info;
  const auto status =
      ToRpcStatus(WithRetryDelay(absl::UnavailableError("busy"), absl::Milliseconds(1500)));
  ASSERT_EQ(CountDetails(status, &info), 1);
  EXPECT_EQ(info.retry_delay().seconds(), 1);
  EXPECT_EQ(info.retry_delay().nanos(), 500'000'000);
}

TEST(ErrorsTest, WhatIsNoUtf8ComesOverTheWireToo) {
  const std::string cut = "caf\xC3";  // within a character
  const absl::Status status =
      MakeFieldError("BAD_NAME", {{"labels." + cut, "is " + cut}}, {{"name", cut}});
  for (const absl::Status& error : {status, absl::InternalError(cut)}) {
    google::rpc::Status received;
    ASSERT_TRUE(received.ParseFromString(ToRpcStatus(error).SerializeAsString()));
    google::rpc::ErrorInfo info;
    EXPECT_EQ(CountDetails(received, &info), 1);
    EXPECT_EQ(info.reason(), ReasonOf(error));
    EXPECT_THAT(received.message(), testing::HasSubstr("caf"));
  }
  google::rpc::BadRequest request;
  ASSERT_EQ(CountDetails(ToRpcStatus(status), &request), 1);
  EXPECT_THAT(request.field_violations(0).description(), testing::StartsWith("is caf"));
}

TEST(PageTokenTest, OnlyTheSameKeyAndBindingRead) {
  const PageTokenCodec codec("key");
  const std::string token = codec.Encode("17", "filter");
  EXPECT_EQ(*codec.Decode(token, "filter"), "17");
  EXPECT_FALSE(codec.Decode(token, "other").ok());
  EXPECT_FALSE(PageTokenCodec("key2").Decode(token, "filter").ok());
  EXPECT_FALSE(codec.Decode("", "filter").ok());
  for (size_t i = 0; i < token.size(); ++i)
    EXPECT_FALSE(codec.Decode(token.substr(0, i), "filter").ok()) << i;
  // Position and binding cannot be shifted into one another.
  EXPECT_NE(codec.Encode("1", "7"), codec.Encode("17", ""));
}

}  // namespace
}  // namespace latentforge::service
