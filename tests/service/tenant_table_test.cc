#include "service/tenant_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

TEST(TenantTableTest, WithoutAFileNobodyIsLimited) {
  const TenantTable table = *NoTenantLimits()();
  EXPECT_EQ(table.Of("search").weight, 1);
  EXPECT_EQ(table.Of("search").max_queued_jobs, 0);
  EXPECT_EQ(table.Of("search").max_queued_kinds, 256);  // but for what would harm others
  EXPECT_TRUE(table.named().empty());
}

TEST(TenantTableTest, WhatATenantDoesNotSayTheStarSays) {
  const auto table = TenantTable::Parse(R"({
    "*": {"max_queued_jobs": 100, "max_submits_per_minute": 60},
    "search": {"weight": 2.5, "max_running_jobs": 4, "max_running_gpus": 8},
    "free": {"max_queued_jobs": 0, "max_queued_kinds": 0}})");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->Of("anybody").max_queued_jobs, 100);
  EXPECT_EQ(table->Of("anybody").weight, 1);
  EXPECT_EQ(table->Of("search").weight, 2.5);
  EXPECT_EQ(table->Of("search").max_running_jobs, 4);
  EXPECT_EQ(table->Of("search").max_running_gpus, 8);
  EXPECT_EQ(table->Of("search").max_queued_jobs, 100);
  EXPECT_EQ(table->Of("free").max_queued_jobs, 0);
  EXPECT_EQ(table->Of("free").max_queued_kinds, 0);
  EXPECT_EQ(table->Of("search").max_queued_kinds, 256);
  EXPECT_EQ(table->Of("free").max_submits_per_minute, 60);
  EXPECT_EQ(table->named().size(), 2u);
}

TEST(TenantTableTest, ErrorsNameTenantAndKey) {
  const std::pair<const char*, const char*> wrong[] = {
      {"[]", "the tenants file"},
      {"{", "syntax error at byte 2"},
      {R"({"a": 3})", "tenant a"},
      {R"({"a": {"wieght": 3}})", "wieght"},
      {R"({"a": {"weight": 0}})", "tenant a: \"weight\" is 0"},
      {R"({"a": {"weight": "2"}})", "tenant a: \"weight\" is \"2\""},
      {R"({"*": {"max_running_jobs": -1}})", "tenant *: \"max_running_jobs\" is -1"},
      {R"({"a": {"max_queued_jobs": 1.5}})", "tenant a: \"max_queued_jobs\" is 1.5"},
      {R"({"no blanks": {}})", "no blanks"},
      {R"({"a": {}, "a": {}})", "\"a\""}};
  for (const auto& [text, part] : wrong) {
    const auto table = TenantTable::Parse(text);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(part)) << text;
  }
}

}  // namespace
}  // namespace latentforge::service
