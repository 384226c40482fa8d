#include "service/auth/token_file.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class TokenFileTest : public testing::Test {
 protected:
  void Write(const std::string& text) { ASSERT_TRUE(WriteFileAtomic(path_, text).ok()); }

  void Open() {
    auto opened = TokenFile::Open(path_, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    file_ = *std::move(opened);
  }

  bool Knows(const std::string& name) {
    return file_->Current()->Find(absl::StrCat("cn:", name)) != nullptr;
  }

  TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "tokens";
  FakeClock clock_;
  std::unique_ptr<TokenFile> file_;
};

TEST_F(TokenFileTest, IsReadAgainWithinASecondOfAChange) {
  Write("cn:a a t user\n");
  Open();
  EXPECT_TRUE(Knows("a"));
  Write("cn:b b t user\n");
  EXPECT_TRUE(Knows("a"));  // it looks once a second
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(Knows("b"));
  EXPECT_FALSE(Knows("a"));
}

TEST_F(TokenFileTest, AnUnusableFileChangesNothingUntilItIsMended) {
  Write("cn:a a t user\n");
  Open();
  Write("cn:b b t\n");
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(1));
    EXPECT_TRUE(Knows("a"));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("the former one stays in force"));
  EXPECT_THAT(log, HasSubstr("line 1: has 3 fields"));
  EXPECT_EQ(log.find("former"), log.rfind("former"));  // said once
  std::filesystem::remove(path_);
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(Knows("a"));
  Write("cn:c c t user\n");
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(Knows("c"));
}

TEST_F(TokenFileTest, OpeningNamesTheFile) {
  EXPECT_EQ(TokenFile::Open(path_, clock_).status().code(), absl::StatusCode::kNotFound);
  Write("nonsense\n");
  EXPECT_THAT(std::string(TokenFile::Open(path_, clock_).status().message()),
              HasSubstr(absl::StrCat(path_.string(), ": line 1")));
}

}  // namespace
}  // namespace latentforge::service
