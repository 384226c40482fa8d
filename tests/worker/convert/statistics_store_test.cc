#include "worker/convert/statistics_store.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/convert/phase_files.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr int64_t kWidth = 24;

std::string Key(char digit) { return std::string(64, digit); }
std::string Name(char digit) { return Key(digit) + ".safetensors"; }

StatisticsId Id(char digit, int64_t layers = 2, int64_t width = kWidth) {
  return {Key(digit), layers, width};
}

factorize::LossStatistics RandomStatistics(int64_t seed, int64_t width) {
  at::manual_seed(uint64_t(seed));
  const auto moment = [&] {
    const at::Tensor rows = at::randn({9, width}, at::kDouble);
    const at::Tensor gram = rows.t().mm(rows);
    return gram + gram.t();  // symmetric to the last bit
  };
  return {.tokens = 40 + seed,
          .sequences = 3,
          .output = moment(),
          .output_first = moment(),
          .fisher = moment(),
          .fisher_first = moment()};
}

// A store, and one work folder for what is kept and one for what is restored.
class StatisticsStoreTest : public testing::Test {
 protected:
  StatisticsStoreTest()
      : root_(checkpoint::NewTestDirectory("statistics_store")),
        folder_(root_ / "statistics"),
        from_(Work("from")),
        into_(Work("into")) {
    Fill(2, kWidth);
  }

  WorkDir Work(const char* name) const {
    absl::StatusOr<WorkDir> work = WorkDir::Open(root_ / name);
    EXPECT_TRUE(work.ok() && work->Adopt("digest").ok()) << work.status();
    return *std::move(work);
  }

  void Fill(int64_t layers, int64_t width) const {
    for (int64_t layer = 0; layer < layers; ++layer) {
      ASSERT_TRUE(
          SaveLossStatistics(LossStatisticsPath(from_, layer), RandomStatistics(layer, width))
              .ok());
    }
  }

  std::vector<std::string> Kept() const { return ListDirectory(folder_).value(); }
  std::vector<std::string> Restored() const { return ListDirectory(into_.calibrate()).value(); }

  fs::path root_;
  fs::path folder_;
  WorkDir from_;
  WorkDir into_;
};

TEST_F(StatisticsStoreTest, RestoresWhatWasKept) {
  const StatisticsStore store{KeptFolder(folder_)};
  EXPECT_FALSE(store.Has(Key('a')));
  EXPECT_FALSE(store.Restore(Id('a'), into_).value());
  EXPECT_GT(store.BytesToKeep(Id('a')), 0);
  ASSERT_TRUE(store.Keep(Id('a'), from_).ok());
  EXPECT_TRUE(store.Has(Key('a')));
  EXPECT_EQ(store.BytesToKeep(Id('a')), 0);
  EXPECT_THAT(Kept(), ElementsAre(Name('a')));
  EXPECT_GE(StatisticsFileBytes(Id('a')), int64_t(fs::file_size(folder_ / Name('a'))));
  ASSERT_TRUE(store.Restore(Id('a'), into_).value());
  for (int64_t layer = 0; layer < 2; ++layer) {
    const factorize::LossStatistics expected = RandomStatistics(layer, kWidth);
    const auto loaded = LoadLossStatistics(LossStatisticsPath(into_, layer), kWidth);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->tokens, expected.tokens);
    EXPECT_EQ(loaded->sequences, expected.sequences);
    EXPECT_TRUE(at::equal(loaded->output, expected.output));
    EXPECT_TRUE(at::equal(loaded->output_first, expected.output_first));
    EXPECT_TRUE(at::equal(loaded->fisher, expected.fisher));
    EXPECT_TRUE(at::equal(loaded->fisher_first, expected.fisher_first));
  }
}

TEST_F(StatisticsStoreTest, OneWrongBitAnywhereIsFound) {
  const StatisticsStore store{KeptFolder(folder_)};
  ASSERT_TRUE(store.Keep(Id('a'), from_).ok());
  const fs::path path = folder_ / Name('a');
  const std::string good = ReadFile(path).value();
  for (size_t i = 0; i < good.size(); i += 257) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x08);
    ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
    ASSERT_FALSE(store.Restore(Id('a'), into_).value()) << "byte " << i;
    EXPECT_THAT(Kept(), IsEmpty());
    EXPECT_THAT(Restored(), IsEmpty());
  }
  for (const std::string& bytes : {std::string(), good.substr(0, 4), good + "x",
                                   good.substr(0, good.size() - 1), good.substr(0, 1000)}) {
    ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
    EXPECT_FALSE(store.Restore(Id('a'), into_).value());
    EXPECT_THAT(Kept(), IsEmpty());
  }
}

TEST_F(StatisticsStoreTest, AFileOfSomethingElseIsNotUsed) {
  const StatisticsStore store{KeptFolder(folder_)};
  const StatisticsId ids[] = {Id('b'), Id('a', 1), Id('a', 2, kWidth - 2)};
  for (const StatisticsId& id : ids) {
    Fill(id.layers, id.width);
    ASSERT_TRUE(store.Keep(id, from_).ok());
    fs::rename(folder_ / (id.key + ".safetensors"), folder_ / Name('a'));
    EXPECT_FALSE(store.Restore(Id('a'), into_).value());
    EXPECT_THAT(Kept(), IsEmpty());
    EXPECT_THAT(Restored(), IsEmpty());
  }
}

TEST_F(StatisticsStoreTest, WhatCannotBeReadOrRemovedCountsAsNone) {
  const StatisticsStore store{KeptFolder(folder_)};
  ASSERT_TRUE(CreateDirectories(folder_ / Name('a')).ok());
  ASSERT_TRUE(WriteFileAtomic(folder_ / Name('a') / "mine.txt", "x").ok());
  EXPECT_FALSE(store.Restore(Id('a'), into_).value());
  EXPECT_TRUE(fs::exists(folder_ / Name('a') / "mine.txt"));
  EXPECT_FALSE(store.Keep(Id('a'), from_).ok());
  EXPECT_THAT(Kept(), ElementsAre(Name('a')));
  // A link to itself: an error of opening, which says nothing of the content.
  fs::create_symlink(Name('b'), folder_ / Name('b'));
  EXPECT_FALSE(store.Restore(Id('b'), into_).value());
  EXPECT_TRUE(fs::is_symlink(folder_ / Name('b')));
  EXPECT_THAT(Restored(), IsEmpty());
}

TEST_F(StatisticsStoreTest, BeyondTheLimitTheLongestUnusedGo) {
  const int64_t one = StatisticsFileBytes(Id('a'));
  const StatisticsStore store{KeptFolder(folder_, 2 * one)};
  const auto age = [&](char digit, int hours) {
    fs::last_write_time(folder_ / Name(digit),
                        fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  ASSERT_TRUE(store.Keep(Id('a'), from_).ok());
  ASSERT_TRUE(store.Keep(Id('b'), from_).ok());
  age('a', 9);
  age('b', 5);
  ASSERT_TRUE(store.Restore(Id('a'), into_).value());  // used
  ASSERT_TRUE(store.Keep(Id('c'), from_).ok());
  EXPECT_THAT(Kept(), ElementsAre(Name('a'), Name('c')));

  Fill(9, kWidth);
  const absl::Status kept = store.Keep(Id('d', 9), from_);
  EXPECT_TRUE(absl::IsFailedPrecondition(kept)) << kept;
  EXPECT_THAT(std::string(kept.message()), HasSubstr("expected at most"));
  EXPECT_EQ(store.BytesToKeep(Id('d', 9)), 0);
  EXPECT_THAT(Kept(), ElementsAre(Name('a'), Name('c')));
}

TEST_F(StatisticsStoreTest, FilesOfOthersStay) {
  ASSERT_TRUE(CreateDirectories(folder_).ok());
  const std::string others[] = {"model.safetensors", "notes.tmp", Key('A') + ".safetensors",
                                Name('d') + ".bak", Name('d') + ".mine.tmp"};
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1000);
  for (const std::string& name : others) {
    ASSERT_TRUE(WriteFileAtomic(folder_ / name, "mine").ok());
    fs::resize_file(folder_ / name, uintmax_t{5} << 30);
    fs::last_write_time(folder_ / name, old);
  }
  fs::create_symlink("model.safetensors", folder_ / Name('e'));
  // Ours: of a process that died, and of one that is writing.
  for (const char* process : {".17.tmp", ".18.tmp"}) {
    ASSERT_TRUE(WriteFileAtomic(folder_ / (Name('b') + process), "x").ok());
  }
  fs::last_write_time(folder_ / (Name('b') + ".17.tmp"), old);
  ASSERT_TRUE(StatisticsStore(KeptFolder(folder_)).Keep(Id('a'), from_).ok());
  EXPECT_THAT(Kept(), UnorderedElementsAre(others[0], others[1], others[2], others[3], others[4],
                                           Name('e'), Name('b') + ".18.tmp", Name('a')));
}

TEST_F(StatisticsStoreTest, DamagedStatisticsAreNotKept) {
  factorize::LossStatistics damaged = RandomStatistics(1, kWidth);
  damaged.fisher[0][0] = -1;
  ASSERT_TRUE(SaveLossStatistics(LossStatisticsPath(from_, 1), damaged).ok());
  EXPECT_FALSE(StatisticsStore(KeptFolder(folder_)).Keep(Id('a'), from_).ok());
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_FALSE(fs::exists(LossStatisticsPath(from_, 1)));
}

}  // namespace
}  // namespace latentforge::convert
