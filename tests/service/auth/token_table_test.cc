#include "service/auth/token_table.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string Line(absl::string_view token, absl::string_view rest) {
  return absl::StrCat(TokenTable::CredentialOf(token), " ", rest, "\n");
}

std::string ErrorOf(const std::string& text) {
  const absl::Status status = TokenTable::Parse(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

TEST(TokenTableTest, FindsTokensAndCertificates) {
  const auto table = TokenTable::Parse(absl::StrCat(
      "# people\n\n", Line("secret-a", "alice search user"), "\t",
      Line("secret-b", "ops all admin"),
      "uri:spiffe://example.org/worker/1  w1  default  worker\r\ncn:worker-2 w2 default worker"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 4u);
  const Identity* alice = table->Find(TokenTable::CredentialOf("secret-a"));
  ASSERT_NE(alice, nullptr);
  EXPECT_EQ(*alice, (Identity{"alice", "search", Role::kUser}));
  EXPECT_EQ(table->Find(TokenTable::CredentialOf("secret-b"))->role, Role::kAdmin);
  EXPECT_EQ(table->Find("uri:spiffe://example.org/worker/1")->subject, "w1");
  EXPECT_EQ(table->Find("cn:worker-2")->subject, "w2");
  EXPECT_EQ(table->Find(TokenTable::CredentialOf("secret-c")), nullptr);
  EXPECT_EQ(table->Find("secret-a"), nullptr);
  EXPECT_EQ(table->Find(""), nullptr);
}

TEST(TokenTableTest, WorkersAreOfNoTenantThatSubmits) {
  const auto table =
      TokenTable::Parse("cn:a a search user\ncn:b b ops admin\ncn:w w pool worker\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->Tenants(), testing::ElementsAre("ops", "search"));
}

TEST(TokenTableTest, AnEmptyFileKnowsNobody) {
  const auto table = TokenTable::Parse("");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 0u);
}

TEST(TokenTableTest, TheDigestIsThatOfTheToken) {
  EXPECT_EQ(TokenTable::CredentialOf("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(TokenTableTest, ErrorsNameLineAndField) {
  const std::string good = Line("secret", "alice search user");
  EXPECT_EQ(ErrorOf(good + "sha256:1 a b"),
            "line 2: has 3 fields, expected 4: CREDENTIAL SUBJECT TENANT ROLE");
  EXPECT_EQ(ErrorOf("\nsha256:12ab alice search user"),
            "line 2: field 1, the credential, has 4 characters after sha256:, expected 64 of 0-9 "
            "a-f");
  EXPECT_THAT(ErrorOf(absl::StrCat("sha256:", std::string(64, 'A'), " alice search user")),
              HasSubstr("field 1"));
  EXPECT_THAT(ErrorOf("uri:plain alice search user"), HasSubstr("has no URI after uri:"));
  EXPECT_THAT(ErrorOf("cn: alice search user"), HasSubstr("has no name"));
  EXPECT_THAT(ErrorOf(Line("s", "al\x01ice search user")),
              StartsWith("line 1: field 2, the subject"));
  EXPECT_THAT(ErrorOf(Line("s", "alice se/arch user")), StartsWith("line 1: field 3, the tenant"));
  EXPECT_THAT(ErrorOf(Line("s", "alice search root")),
              HasSubstr("field 4, the role, is \"root\", expected user, worker or admin"));
  EXPECT_EQ(ErrorOf(good + good), "line 2: field 1, the credential, is that of an earlier line");
}

TEST(TokenTableTest, ATokenWrittenThereByMistakeIsNotQuoted) {
  const std::string error = ErrorOf("lft_secretsecretsecret alice search user");
  EXPECT_THAT(error, HasSubstr("begins with none of sha256:, uri: and cn:"));
  EXPECT_THAT(error, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace latentforge::service
