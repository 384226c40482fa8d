#include "worker/convert/layer_file_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/convert/base_windows.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::string Key(char digit) { return std::string(64, digit); }
std::string FolderName(char digit) { return Key(digit) + ".layers"; }

LayerFilesId Id(char digit, std::map<std::string, int64_t> extent = {}) {
  return {.key = Key(digit), .layers = 2, .extent = std::move(extent)};
}

class LayerFileStoreTest : public testing::Test {
 protected:
  LayerFileStoreTest()
      : root_(checkpoint::NewTestDirectory("layer_file_store")), kept_(root_ / "kept") {
    for (const char* folder : {"from", "into"}) fs::create_directory(root_ / folder);
    Fill("");
  }

  void Fill(const std::string& more) const {
    for (int64_t layer = 0; layer < 2; ++layer) {
      ASSERT_TRUE(WriteFileAtomic(From(layer), Text(layer) + more).ok());
    }
  }

  static std::string Text(int64_t layer) {
    return std::string(1000, static_cast<char>('p' + layer));
  }
  fs::path From(int64_t layer) const { return root_ / "from" / absl::StrCat("l.", layer); }
  fs::path Into(int64_t layer) const { return root_ / "into" / absl::StrCat("l.", layer); }

  absl::Status Keep(const LayerFilesId& id, int64_t limit = 1 << 20) const {
    return LayerFileStore(KeptFolder(kept_, limit)).Keep(id, [this](int64_t layer) {
      return From(layer);
    });
  }
  bool Restore(const LayerFilesId& id) const {
    return LayerFileStore(KeptFolder(kept_))
        .Restore(id, [this](int64_t layer) { return Into(layer); })
        .value();
  }
  std::vector<std::string> Kept() const { return ListDirectory(kept_).value(); }
  std::vector<std::string> Restored() const { return ListDirectory(root_ / "into").value(); }

  fs::path root_;
  fs::path kept_;
};

TEST_F(LayerFileStoreTest, RestoresWhatWasKeptWithoutACopy) {
  EXPECT_FALSE(Restore(Id('a')));
  ASSERT_TRUE(Keep(Id('a')).ok());
  EXPECT_TRUE(LayerFileStore(KeptFolder(kept_)).Has(Id('a')));
  EXPECT_THAT(Kept(), ElementsAre(FolderName('a')));
  // What an earlier attempt left gives way.
  ASSERT_TRUE(WriteFileAtomic(Into(1), "another").ok());
  ASSERT_TRUE(Restore(Id('a')));
  for (int64_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(ReadFile(Into(layer)).value(), Text(layer));
    EXPECT_TRUE(fs::equivalent(Into(layer), From(layer)));
  }
  // The end of the work folder takes nothing away.
  fs::remove_all(root_ / "from");
  fs::remove_all(root_ / "into");
  fs::create_directory(root_ / "into");
  ASSERT_TRUE(Restore(Id('a')));
  EXPECT_EQ(ReadFile(Into(1)).value(), Text(1));
}

TEST_F(LayerFileStoreTest, FilesThatHoldMoreServeToo) {
  ASSERT_TRUE(Keep(Id('a', {{"rows", 8}, {"wide", 0}})).ok());
  EXPECT_TRUE(Restore(Id('a')));
  EXPECT_TRUE(Restore(Id('a', {{"rows", 8}, {"wide", 0}})));
  EXPECT_FALSE(Restore(Id('a', {{"rows", 9}})));
  EXPECT_FALSE(Restore(Id('a', {{"wide", 1}})));
  // A member that this version adds is in nothing that was kept before it.
  EXPECT_FALSE(Restore(Id('a', {{"gates", 0}})));
  EXPECT_THAT(Kept(), ElementsAre(FolderName('a'))) << "others can use it";
  // Those that hold more take its place.
  Fill("more");
  ASSERT_TRUE(Keep(Id('a', {{"rows", 8}, {"wide", 1}})).ok());
  ASSERT_TRUE(Restore(Id('a', {{"wide", 1}})));
  EXPECT_EQ(ReadFile(Into(0)).value(), Text(0) + "more");
  EXPECT_THAT(Kept(), ElementsAre(FolderName('a')));
}

TEST_F(LayerFileStoreTest, OneWrongBitAnywhereIsFound) {
  for (const std::string name : {"0.safetensors", "1.safetensors", kKeptIndex}) {
    const fs::path path = kept_ / FolderName('a') / name;
    ASSERT_TRUE(Keep(Id('a', {{"rows", 8}})).ok());
    const size_t size = ReadFile(path).value().size();
    for (size_t i = 0; i < size; i += 37) {
      ASSERT_TRUE(Keep(Id('a', {{"rows", 8}})).ok());
      std::string bytes = ReadFile(path).value();
      bytes[i] = static_cast<char>(bytes[i] ^ 0x01);
      ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
      ASSERT_FALSE(Restore(Id('a', {{"rows", 8}}))) << name << ", byte " << i;
      ASSERT_THAT(Kept(), IsEmpty());
      ASSERT_THAT(Restored(), IsEmpty());
    }
  }
  ASSERT_TRUE(Keep(Id('a')).ok());
  fs::remove(kept_ / FolderName('a') / "1.safetensors");
  EXPECT_FALSE(Restore(Id('a')));
  EXPECT_THAT(Kept(), IsEmpty());
  ASSERT_TRUE(Keep(Id('b')).ok());
  fs::rename(kept_ / FolderName('b'), kept_ / FolderName('a'));
  EXPECT_FALSE(Restore(Id('a'))) << "of something else";
  EXPECT_THAT(Kept(), IsEmpty());
}

TEST_F(LayerFileStoreTest, BeyondTheLimitTheLongestUnusedGoWhateverTheyAre) {
  const auto age = [&](const fs::path& path, int hours) {
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  ASSERT_TRUE(Keep(Id('a')).ok());
  ASSERT_TRUE(Keep(Id('b')).ok());
  const BaseWindows windows{KeptFolder(kept_)};
  ASSERT_TRUE(windows.Keep(Key('w'), {}).ok()) << "no digit of a SHA-256: of others";
  ASSERT_TRUE(windows.Keep(Key('c'), std::vector<double>{2.5}).ok());
  age(kept_ / FolderName('a') / kKeptIndex, 9);
  age(kept_ / FolderName('b') / kKeptIndex, 5);
  age(kept_ / (Key('c') + ".windows.json"), 7);
  ASSERT_TRUE(Restore(Id('a')));  // used
  // An index and a measurement take less than half of the files.
  ASSERT_TRUE(Keep(Id('d'), 2 * 3000).ok());
  EXPECT_THAT(Kept(),
              UnorderedElementsAre(FolderName('a'), FolderName('d'), Key('w') + ".windows.json"));

  const absl::Status kept = Keep(Id('e'), 1999);
  EXPECT_TRUE(absl::IsFailedPrecondition(kept)) << kept;
  EXPECT_THAT(std::string(kept.message()), HasSubstr("2000 bytes, expected at most 1999"));
}

TEST_F(LayerFileStoreTest, FoldersOfOthersAndLinksStay) {
  for (const std::string& name : {FolderName('b'), std::string("mine.layers"), FolderName('A')}) {
    ASSERT_TRUE(CreateDirectories(kept_ / name).ok());
    ASSERT_TRUE(WriteFileAtomic(kept_ / name / "mine.txt", std::string(5000, 'x')).ok());
  }
  fs::create_directory_symlink(root_ / "from", kept_ / FolderName('e'));
  EXPECT_FALSE(Restore(Id('b')));
  EXPECT_FALSE(Restore(Id('e')));
  EXPECT_FALSE(Keep(Id('b')).ok());
  // Of a process that died a day ago, and of one that is writing.
  for (const char* process : {".17.tmp", ".18.tmp", ".19.gone.tmp"}) {
    ASSERT_TRUE(CreateDirectories(kept_ / (FolderName('c') + process)).ok());
  }
  for (const char* process : {".17.tmp", ".19.gone.tmp"}) {
    fs::last_write_time(kept_ / (FolderName('c') + process),
                        fs::file_time_type::clock::now() - std::chrono::hours(30));
  }
  ASSERT_TRUE(Keep(Id('a'), 3000).ok());
  EXPECT_THAT(Kept(),
              UnorderedElementsAre(FolderName('a'), FolderName('b'), "mine.layers", FolderName('A'),
                                   FolderName('e'), FolderName('c') + ".18.tmp"));
  EXPECT_TRUE(fs::exists(kept_ / FolderName('b') / "mine.txt"));
}

TEST_F(LayerFileStoreTest, WithoutAFolderNothingIsKept) {
  const LayerFileStore none{KeptFolder("")};
  const auto path = [&](int64_t layer) { return From(layer); };
  EXPECT_TRUE(none.Keep(Id('a'), path).ok());
  EXPECT_FALSE(none.Has(Id('a')));
  EXPECT_FALSE(none.Restore(Id('a'), path).value());
}

TEST(BaseWindowsTest, GivesBackEveryBitOrNothing) {
  const fs::path folder = checkpoint::NewTestDirectory("base_windows");
  const BaseWindows windows{KeptFolder(folder)};
  EXPECT_THAT(windows.Restore(Key('a'), 3), IsEmpty());
  const std::vector<double> figures = {2.9876543210987654, 1e-300, 0x1.fffffffffffffp+1};
  ASSERT_TRUE(windows.Keep(Key('a'), figures).ok());
  EXPECT_TRUE(windows.Has(Key('a')));
  EXPECT_EQ(windows.Restore(Key('a'), 3), figures);
  const fs::path path = folder / (Key('a') + ".windows.json");
  const std::string good = ReadFile(path).value();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x01);
    ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
    ASSERT_THAT(windows.Restore(Key('a'), 3), IsEmpty()) << "byte " << i;
    ASSERT_FALSE(windows.Has(Key('a')));
  }
  ASSERT_TRUE(windows.Keep(Key('a'), figures).ok());
  EXPECT_THAT(windows.Restore(Key('a'), 2), IsEmpty()) << "other windows";
  ASSERT_TRUE(windows.Keep(Key('b'), figures).ok());
  fs::rename(folder / (Key('b') + ".windows.json"), path);
  EXPECT_THAT(windows.Restore(Key('a'), 3), IsEmpty()) << "of another key";
}

}  // namespace
}  // namespace latentforge::convert
