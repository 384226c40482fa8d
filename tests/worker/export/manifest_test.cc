#include "worker/export/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/sha256.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::exporter {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A folder with two files and their manifest.
fs::path SmallArtifact(absl::string_view name) {
  const fs::path dir = checkpoint::NewTestDirectory(name);
  EXPECT_TRUE(WriteFileAtomic(dir / "config.json", "{}").ok());
  EXPECT_TRUE(WriteFileAtomic(dir / "weights", std::string(5000, 'w')).ok());
  Manifest manifest{.job_id = "job-1", .source_digest = "s", .settings_digest = "t"};
  manifest.versions = {{"latentforge", "0.1.0"}};
  EXPECT_TRUE(HashFolder(dir, manifest).ok());
  EXPECT_TRUE(WriteFileAtomic(dir / kManifestName, ManifestToText(manifest)).ok());
  return dir;
}

TEST(ManifestTest, RoundTrip) {
  const fs::path dir = SmallArtifact("round_trip");
  const auto manifest = VerifyArtifact(dir);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->job_id, "job-1");
  EXPECT_EQ(manifest->source_digest, "s");
  EXPECT_EQ(manifest->settings_digest, "t");
  EXPECT_EQ(manifest->versions["latentforge"], "0.1.0");
  ASSERT_EQ(manifest->files.size(), 2u);
  EXPECT_EQ(manifest->files[1].name, "weights");
  EXPECT_EQ(manifest->files[1].size, 5000);
  EXPECT_EQ(manifest->files[1].sha256, Sha256Hex(std::string(5000, 'w')));
}

TEST(ManifestTest, EveryCorruptByteIsFound) {
  for (const size_t position : {size_t{0}, size_t{2500}, size_t{4999}}) {
    const fs::path dir = SmallArtifact("corrupt");
    std::string contents = ReadFile(dir / "weights").value();
    contents[position] ^= 1;
    ASSERT_TRUE(WriteFileAtomic(dir / "weights", contents).ok());
    const absl::Status status = VerifyArtifact(dir).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr((dir / "weights").string()));
  }
}

TEST(ManifestTest, MissingAndShortFilesAreFound) {
  fs::path dir = SmallArtifact("missing");
  ASSERT_TRUE(RemoveTree(dir / "config.json").ok());
  absl::Status status = VerifyArtifact(dir).status();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  dir = SmallArtifact("short");
  ASSERT_TRUE(WriteFileAtomic(dir / "weights", "w").ok());
  EXPECT_TRUE(absl::IsDataLoss(VerifyArtifact(dir).status()));
  ASSERT_TRUE(RemoveTree(dir / kManifestName).ok());
  EXPECT_TRUE(absl::IsNotFound(VerifyArtifact(dir).status()));
}

TEST(ManifestTest, RefusesBadManifests) {
  const std::string digest(64, 'a');
  const Json good = {
      {"format_version", 1},         {"job_id", "j"},
      {"source", {{"digest", "s"}}}, {"settings", {{"digest", "t"}}},
      {"versions", Json::object()},  {"files", {{{"name", "f"}, {"size", 1}, {"sha256", digest}}}}};
  EXPECT_TRUE(ParseManifest(WriteJson(good)).ok());
  const auto refused = [&](const char* pointer, const Json& value, const char* message) {
    Json bad = good;
    bad[Json::json_pointer(pointer)] = value;
    const absl::Status status = ParseManifest(WriteJson(bad)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << pointer;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  refused("/format_version", 2, "format_version");
  refused("/extra", 1, "extra");
  refused("/job_id", 3, "job_id");
  refused("/files", 3, "files");
  refused("/files/0/name", "../../etc/passwd", "name");
  refused("/files/0/name", "", "name");
  refused("/files/0/size", -1, "size");
  refused("/files/0/sha256", "abc", "sha256");
  refused("/versions", 1, "versions");
  EXPECT_FALSE(ParseManifest("[]").ok());
  EXPECT_FALSE(ParseManifest("").ok());
}

TEST(ManifestTest, LinksAndFoldersHaveNoPlaceInAnArtifact) {
  const fs::path dir = SmallArtifact("link");
  fs::create_symlink("/etc/hostname", dir / "link");
  Manifest manifest;
  EXPECT_TRUE(absl::IsInvalidArgument(HashFolder(dir, manifest)));
}

}  // namespace
}  // namespace latentforge::exporter
