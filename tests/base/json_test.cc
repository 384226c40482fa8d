#include "base/json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

using ::testing::HasSubstr;

std::string ParseError(absl::string_view text) {
  const absl::StatusOr<Json> parsed = ParseJson(text);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 80);
  return std::string(parsed.status().message());
}

TEST(ParseJsonTest, ReadsEveryKindOfValue) {
  const absl::StatusOr<Json> parsed =
      ParseJson(R"({"a":[1,-2,3.5,true,null,"x\u00e9"],"b":{"c":18446744073709551615}})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed,
            Json::parse(R"({"a":[1,-2,3.5,true,null,"xé"],"b":{"c":18446744073709551615}})"));
}

TEST(ParseJsonTest, RefusesDuplicateKeys) {
  EXPECT_THAT(ParseError(R"({"rank":1,"rank":2})"), HasSubstr("duplicate key \"rank\""));
}

TEST(ParseJsonTest, RefusesIntegersBeyond64Bits) {
  EXPECT_THAT(ParseError("[18446744073709551616]"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(ParseError("[1e999]"), HasSubstr(""));
}

TEST(ParseJsonTest, RefusesDeepNestingWithoutOverflowingTheStack) {
  EXPECT_THAT(ParseError(std::string(200000, '[')), HasSubstr("nested deeper than 64"));
}

TEST(ParseJsonTest, RefusesTrailingTextTruncationAndBadUtf8) {
  for (const char* text : {"{} x", "{\"a\":", "", "nul", "\"\xff\"", "[1,]", "NaN"}) {
    EXPECT_THAT(ParseError(text), HasSubstr("syntax error")) << text;
  }
}

TEST(ParseJsonTest, MessagesAreUtf8WhateverTheInputWas) {
  EXPECT_THAT(ParseError("{\"a\":\"\xff\"}"), HasSubstr("near \"\\\"\\xff\""));
}

TEST(JsonObjectTest, ErrorsNameThingKeyValueAndExpectation) {
  const Json value = Json::parse(R"({"heads":"nine","big":18446744073709551615,"neg":-3})");
  const absl::StatusOr<JsonObject> object = JsonObject::Create(value, "config.json");
  ASSERT_TRUE(object.ok());
  EXPECT_EQ(object->Int("heads", 1, 64).status().message(),
            "config.json: \"heads\" is \"nine\", expected an integer from 1 to 64");
  EXPECT_EQ(object->Int("layers", 1, 9).status().message(),
            "config.json lacks \"layers\", expected an integer from 1 to 9");
  EXPECT_FALSE(object->Int("big", 0, INT64_MAX).ok());
  EXPECT_FALSE(object->Int("neg", 0, 9).ok());
  EXPECT_EQ(*object->IntOr("absent", 0, 9, 7), 7);
}

TEST(JsonObjectTest, RejectsUnknownKeysByName) {
  const Json value = Json::parse(R"({"kv_budget":0.5,"kv_bugdet":0.5})");
  const absl::StatusOr<JsonObject> object = JsonObject::Create(value, "budget");
  ASSERT_TRUE(object.ok());
  EXPECT_EQ(object->RejectUnknownKeys({"kv_budget"}).message(),
            "budget has the unknown key \"kv_bugdet\", expected one of kv_budget; did you mean "
            "kv_budget?");
  // Many are not listed.
  std::vector<std::string> many = {"kv_budget"};
  for (char c = 'a'; c < 'z'; ++c) many.push_back(std::string(3, c));
  EXPECT_EQ(object->RejectUnknownKeys(many).message(),
            "budget has the unknown key \"kv_bugdet\"; did you mean kv_budget?");
}

}  // namespace
}  // namespace latentforge
