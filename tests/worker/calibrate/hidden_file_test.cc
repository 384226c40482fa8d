#include "worker/calibrate/hidden_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::calibrate {
namespace {

constexpr HiddenShape kShape{.sequences = 3, .length = 4, .width = 5, .dtype = at::kFloat};

TEST(HiddenFileTest, WritesAndReadsSequences) {
  const auto path = checkpoint::NewTestDirectory("hidden") / "hidden.1.bin";
  const at::Tensor all = at::arange(60, at::kFloat).view({3, 4, 5});
  {
    auto file = HiddenFile::Create(path, kShape);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Write(2, all.narrow(0, 2, 1)).ok());
    ASSERT_TRUE(file->Write(0, all.narrow(0, 0, 2)).ok());
  }
  const auto file = HiddenFile::Open(path, kShape);
  ASSERT_TRUE(file.ok()) << file.status();
  at::Tensor read = at::empty({2, 4, 5}, at::kFloat);
  ASSERT_TRUE(file->Read(1, read).ok());
  EXPECT_TRUE(at::equal(read, all.narrow(0, 1, 2)));
  EXPECT_EQ(file->Read(2, read).code(), absl::StatusCode::kInvalidArgument);
}

TEST(HiddenFileTest, RefusesAbsentAndCutFiles) {
  const auto path = checkpoint::NewTestDirectory("hidden_cut") / "hidden.1.bin";
  EXPECT_EQ(HiddenFile::Open(path, kShape).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomic(path, std::string(239, 'x')).ok());
  EXPECT_EQ(HiddenFile::Open(path, kShape).status().code(), absl::StatusCode::kDataLoss);
}

TEST(HiddenFileTest, AFolderOfItsNameIsNoFileAndIsReplaced) {
  const auto path = checkpoint::NewTestDirectory("hidden_folder") / "hidden.1.bin";
  ASSERT_TRUE(CreateDirectories(path / "deeper").ok());
  EXPECT_EQ(HiddenFile::Open(path, kShape).status().code(), absl::StatusCode::kDataLoss);
  // Also where a folder's size is that of the file.
  struct stat status;
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  const HiddenShape as_large{
      .sequences = 1, .length = 1, .width = status.st_size / 4, .dtype = at::kFloat};
  EXPECT_EQ(HiddenFile::Open(path, as_large).status().code(), absl::StatusCode::kDataLoss);
  const auto file = HiddenFile::Create(path, kShape);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(HiddenFile::Open(path, kShape).ok());
}

TEST(HiddenFileTest, CountsAsWholeOnceItHasItsName) {
  const auto path = checkpoint::NewTestDirectory("hidden_commit") / "hidden.1.bin";
  EXPECT_FALSE(CommitFile(path).ok()) << "nothing was written";
  ASSERT_TRUE(HiddenFile::Create(PartialPath(path), kShape).ok());
  EXPECT_EQ(HiddenFile::Open(path, kShape).status().code(), absl::StatusCode::kNotFound);
  // Whatever has the name.
  ASSERT_TRUE(CreateDirectories(path / "deeper").ok());
  ASSERT_TRUE(CommitFile(path).ok());
  EXPECT_TRUE(HiddenFile::Open(path, kShape).ok());
}

TEST(HiddenFileTest, AFullDiskIsAnError) {
  // Beyond what any disk holds; the space is reserved before anything is written.
  const HiddenShape huge{.sequences = int64_t{1} << 20, .length = 1 << 16, .width = 1 << 14};
  const auto path = checkpoint::NewTestDirectory("hidden_full") / "hidden.1.bin";
  const auto file = HiddenFile::Create(path, huge);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.status().message().find("reserve 2251799813685248 bytes"), absl::string_view::npos)
      << file.status();
}

}  // namespace
}  // namespace latentforge::calibrate
