#include "service/tenant_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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

TEST(TenantTableTest, RootsAreTheTenantsElseTheStarsElseTheServers) {
  const char* const text = R"({"*": {"allowed_roots": ["/m/all"]}, "a": {"weight": 2},
                              "b": {"allowed_roots": ["/m/b/../c/", "/m/all/b"]}})";
  for (const PathRoots& server : {PathRoots{}, PathRoots{"/m"}, PathRoots{"/n", "/m"}}) {
    const auto table = TenantTable::Parse(text, server);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_THAT(table->Of("a").allowed_roots, ElementsAre("/m/all"));
    EXPECT_THAT(table->Of("anybody").allowed_roots, ElementsAre("/m/all"));
    EXPECT_THAT(table->Of("b").allowed_roots, ElementsAre("/m/c", "/m/all/b"));
  }
  const auto silent = TenantTable::Parse(R"({"*": {"weight": 2}, "a": {}})", {"/m"});
  EXPECT_THAT(silent->Of("a").allowed_roots, ElementsAre("/m"));
  EXPECT_THAT(silent->Of("anybody").allowed_roots, ElementsAre("/m"));
  EXPECT_THAT(TenantTable::Parse("{}")->Of("a").allowed_roots, IsEmpty());
  EXPECT_THAT(NoTenantLimits({"/m"})()->Of("a").allowed_roots, ElementsAre("/m"));
}

TEST(TenantTableTest, RootsLieBeneathTheServers) {
  for (const char* tenant : {"*", "a"}) {
    const std::string text =
        std::string("{\"") + tenant + R"(": {"allowed_roots": ["/m/x", "/m/../n"]}})";
    EXPECT_TRUE(TenantTable::Parse(text).ok());
    const auto table = TenantTable::Parse(text, {"/m"});
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(table.status().message()),
                HasSubstr(std::string("tenant ") + tenant +
                          ": \"allowed_roots\" holds /m/../n, expected folders beneath the "
                          "server's --allowed-root /m"));
  }
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
      {R"({"a": {"allowed_roots": []}})", "tenant a: \"allowed_roots\" is []"},
      {R"({"a": {"allowed_roots": null}})", "tenant a lacks \"allowed_roots\""},
      {R"({"a": {"allowed_roots": "/m"}})", "tenant a: \"allowed_roots\" is \"/m\""},
      {R"({"a": {"allowed_roots": ["m"]}})", "expected a list of absolute paths"},
      {R"({"a": {"allowed_roots": ["/m\u0000"]}})", "expected a list of absolute paths"},
      {R"({"a": {"allowed_roots": ["/m", 3]}})", "expected a list of absolute paths"},
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
