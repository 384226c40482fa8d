#include "worker/export/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/export/published.h"

namespace latentforge::exporter {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class StagingTest : public testing::Test {
 protected:
  StagingFolder Begin(const std::string& job = "job") {
    auto folder = StagingFolder::Create(output_, job);
    EXPECT_TRUE(folder.ok()) << folder.status();
    return *std::move(folder);
  }

  static void Fill(StagingFolder& folder, const std::string& contents) {
    EXPECT_TRUE(folder.Write("weights", contents).ok());
    Manifest manifest{.job_id = "job"};
    EXPECT_TRUE(folder.ReadBack(manifest).ok());
    EXPECT_TRUE(WriteFileAtomic(folder.path() / kManifestName, ManifestToText(manifest)).ok());
  }

  const fs::path root_ = checkpoint::NewTestDirectory("staging");
  const fs::path output_ = root_ / "out";
};

TEST_F(StagingTest, AnOlderAttemptPublishesNeitherItsOwnNorALaterOnesFiles) {
  StagingFolder older = Begin();
  Fill(older, "older");
  StagingFolder later = Begin();
  EXPECT_TRUE(later.Write("weights", "half").ok());
  const absl::Status status = older.Publish();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a later attempt of the job"));
  EXPECT_FALSE(fs::exists(output_));
  EXPECT_FALSE(older.Write("more", "x").ok());
  Fill(later, "later");
  EXPECT_TRUE(later.Publish().ok());
  EXPECT_EQ(ReadFile(output_ / "weights").value(), "later");
  EXPECT_TRUE(FindPublished(output_, "job").value().has_value());
  EXPECT_THAT(ListDirectory(root_).value(), ElementsAre("out"));
}

TEST_F(StagingTest, AnOlderAttemptThatCameFirstStays) {
  StagingFolder later = Begin();
  Fill(later, "later");
  {
    StagingFolder other = Begin("other-job");
    Fill(other, "first");
    EXPECT_TRUE(other.Publish().ok());
  }
  EXPECT_TRUE(absl::IsAlreadyExists(later.Publish()));
  EXPECT_EQ(ReadFile(output_ / "weights").value(), "first");
}

TEST_F(StagingTest, OtherJobsFoldersStay) {
  const StagingFolder one = Begin("job-1");
  const StagingFolder two = Begin("job-12");
  EXPECT_TRUE(fs::exists(one.path()));
  std::optional<StagingFolder> again = Begin("job-1");
  EXPECT_FALSE(fs::exists(one.path()));
  EXPECT_TRUE(fs::exists(two.path()));
  again.reset();
  EXPECT_EQ(ListDirectory(root_)->size(), 1u);
}

}  // namespace
}  // namespace latentforge::exporter
