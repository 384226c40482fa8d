#include "service/auth/identity.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

TEST(IdentityTest, OnlyAdminsSeeOtherTenants) {
  EXPECT_TRUE((Identity{"a", "search", Role::kUser}).Sees("search"));
  EXPECT_FALSE((Identity{"a", "search", Role::kUser}).Sees("speech"));
  EXPECT_FALSE((Identity{"w", "search", Role::kWorker}).Sees("speech"));
  EXPECT_TRUE((Identity{"a", "search", Role::kAdmin}).Sees("speech"));
}

TEST(IdentityTest, RolesHaveNames) {
  for (const Role role : {Role::kUser, Role::kWorker, Role::kAdmin})
    EXPECT_EQ(ParseRole(RoleName(role)), role);
  for (const char* name : {"", "Admin", "root", "users"}) EXPECT_EQ(ParseRole(name), std::nullopt);
}

TEST(IdentityTest, NamesFromOutsideAreChecked) {
  EXPECT_EQ(TenantProblem("search-2.eu_1"), "");
  EXPECT_THAT(TenantProblem(""), HasSubstr("has 0 bytes, expected 1 to 63"));
  EXPECT_THAT(TenantProblem(std::string(64, 'x')), HasSubstr("has 64 bytes"));
  EXPECT_THAT(TenantProblem("a b"), HasSubstr("is \"a b\", expected letters"));
  EXPECT_EQ(SubjectProblem("alice@example.org"), "");
  EXPECT_NE(SubjectProblem("a\nb"), "");
  EXPECT_NE(SubjectProblem(std::string(129, 'x')), "");
}

}  // namespace
}  // namespace latentforge::service
