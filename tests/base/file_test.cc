#include "base/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_F(FileTest, WritesAndReadsBackWithoutLeavingTemporaryFiles) {
  const std::string contents("a\0b", 3);
  ASSERT_TRUE(WriteFileAtomic(folder_ / "f", contents).ok());
  ASSERT_TRUE(WriteFileAtomic(folder_ / "f", contents + "c").ok());
  EXPECT_EQ(*ReadFile(folder_ / "f"), contents + "c");
  EXPECT_THAT(*ListDirectory(folder_), ElementsAre("f"));
}

TEST_F(FileTest, ErrorsNameThePath) {
  EXPECT_EQ(ReadFile(folder_ / "absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ReadFile(folder_ / "absent").status().message(), HasSubstr("absent"));
  EXPECT_FALSE(ReadFile(folder_).ok());
  ASSERT_TRUE(WriteFileAtomic(folder_ / "f", "12345").ok());
  EXPECT_EQ(ReadFile(folder_ / "f", 4).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(FileTest, FullDiskIsResourceExhaustedAndLeavesNothing) {
  EXPECT_EQ(ErrnoStatus(ENOSPC, "writing", "/x").code(), absl::StatusCode::kResourceExhausted);
}

TEST(PathFromUriTest, AcceptsFileUrisAndAbsolutePaths) {
  EXPECT_EQ(*PathFromUri("/a/b"), "/a/b");
  EXPECT_EQ(*PathFromUri("file:///a%20b/%23"), "/a b/#");
  EXPECT_EQ(*PathFromUri("file://localhost/a"), "/a");
  EXPECT_EQ(*PathFromUri("file:/a"), "/a");
  EXPECT_EQ(*PathFromUri(UriFromPath("/a b#?%/é")), "/a b#?%/é");
}

TEST(PathFromUriTest, RefusesEverythingElseByName) {
  for (const char* uri : {"", "relative/path", "http://host/x", "file://host/x", "file:relative",
                          "file:///a#b", "file:///a?b", "file:///a%0", "file:///a%00b"}) {
    EXPECT_EQ(PathFromUri(uri).status().code(), absl::StatusCode::kInvalidArgument) << uri;
  }
  EXPECT_THAT(PathFromUri("s3://b/k").status().message(), HasSubstr("scheme \"s3\""));
}

TEST_F(FileTest, Sha256MatchesPublishedVectors) {
  // FIPS 180-2, appendix B.
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string large((1 << 20) + 17, 'x');
  ASSERT_TRUE(WriteFileAtomic(folder_ / "large", large).ok());
  EXPECT_EQ(*Sha256File(folder_ / "large"), Sha256Hex(large));
}

}  // namespace
}  // namespace latentforge
