#include "worker/convert/work_dir.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/status/status.h"
#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/tensor_file.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

TEST(WorkDirTest, KeepsStateAndLock) {
  const fs::path path = checkpoint::NewTestDirectory("work") / "a" / "b";
  {
    auto work = WorkDir::Open(path);
    ASSERT_TRUE(work.ok()) << work.status();
    EXPECT_EQ(WorkDir::Open(path).status().code(), absl::StatusCode::kAborted);
    ASSERT_TRUE(work->Adopt("digest-1").ok());
    work->state().source_digest = "source";
    work->state().publishing = true;
    work->state().phases[1] = {12.5, 4096};
    ASSERT_TRUE(work->SaveState().ok());
    ASSERT_TRUE(WriteFileAtomic(work->calibrate() / "stats.0.safetensors", "x").ok());
    ASSERT_TRUE(WriteFileAtomic(work->calibrate() / "hidden.1.bin", "x").ok());
  }
  auto work = WorkDir::Open(path);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ(work->state().job_digest, "digest-1");
  EXPECT_TRUE(work->state().publishing);
  EXPECT_EQ(work->state().phases[1].seconds, 12.5);
  EXPECT_EQ(work->state().phases[1].tokens, 4096);
  EXPECT_TRUE(fs::exists(work->calibrate() / "hidden.1.bin"));
  ASSERT_TRUE(work->Adopt("digest-1").ok());
  EXPECT_TRUE(fs::exists(work->calibrate() / "stats.0.safetensors"));

  ASSERT_TRUE(work->Adopt("digest-2").ok());
  EXPECT_FALSE(fs::exists(work->calibrate() / "stats.0.safetensors"));
  EXPECT_FALSE(work->state().publishing);
  EXPECT_EQ(work->state().phases[1].tokens, 0);
  EXPECT_EQ(work->state().source_digest, "source");
}

TEST(WorkDirTest, DamagedAndForeignStatesCountAsNone) {
  for (const char* state : {"", "{", "[]", R"({"format_version":2,"job_digest":"x"})"}) {
    const fs::path path = checkpoint::NewTestDirectory("work_bad");
    ASSERT_TRUE(WriteFileAtomic(path / "state.json", state).ok());
    const auto work = WorkDir::Open(path);
    ASSERT_TRUE(work.ok()) << work.status();
    EXPECT_EQ(work->state().job_digest, "") << state;
  }
}

TEST(WorkDirTest, UnsyncedFilesOfAnotherBootAreDropped) {
  const fs::path path = checkpoint::NewTestDirectory("work_boot");
  ASSERT_TRUE(CreateDirectories(path / "calibrate").ok());
  for (const char* name : {"hidden.3.bin", "hidden.4.bin.partial", "gradient.3.bin",
                           "stats.2.safetensors", "loss.3.safetensors"}) {
    ASSERT_TRUE(WriteFileAtomic(path / "calibrate" / name, "x").ok());
  }
  ASSERT_TRUE(CreateDirectories(path / "factorize").ok());
  for (const char* name : {"original.3.bin", "converted.3.bin", "original.4.bin.partial",
                           "layer.2.safetensors", "ranks.json"}) {
    ASSERT_TRUE(WriteFileAtomic(path / "factorize" / name, "x").ok());
  }
  ASSERT_TRUE(WriteFileAtomic(path / "state.json",
                              R"({"format_version":1,"job_digest":"d","boot_id":"another"})")
                  .ok());
  const auto work = WorkDir::Open(path);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ(work->state().job_digest, "d");
  EXPECT_EQ(ListDirectory(path / "calibrate").value(),
            (std::vector<std::string>{"loss.3.safetensors", "stats.2.safetensors"}));
  EXPECT_EQ(ListDirectory(path / "factorize").value(),
            (std::vector<std::string>{"layer.2.safetensors", "ranks.json"}));
}

TEST(WorkDirTest, FactorsOfAnotherBootAreDroppedWhereTheyWereNotSynced) {
  const fs::path path = checkpoint::NewTestDirectory("work_factors");
  ASSERT_TRUE(CreateDirectories(path / "factorize").ok());
  const auto write = [&] {
    ASSERT_TRUE(WriteFileAtomic(path / "factorize/layer.2.safetensors", "x").ok());
  };
  const auto open = [&](const char* state) {
    ASSERT_TRUE(WriteFileAtomic(path / "state.json", state).ok());
    ASSERT_TRUE(WorkDir::Open(path).ok());
  };
  write();
  open(R"({"format_version":1,"job_digest":"d","boot_id":"another","unsynced_factors":true})");
  EXPECT_THAT(ListDirectory(path / "factorize").value(), IsEmpty());
  auto work = WorkDir::Open(path);
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_FALSE(work->state().unsynced_factors);
  work->state().unsynced_factors = true;
  ASSERT_TRUE(work->SaveState().ok());
  write();
  work = absl::UnknownError("closed");
  EXPECT_TRUE(WorkDir::Open(path)->state().unsynced_factors);
  EXPECT_EQ(ListDirectory(path / "factorize")->size(), 1u) << "the machine has not restarted";
}

TEST(TensorFileTest, StatisticsRoundTrip) {
  const fs::path path = checkpoint::NewTestDirectory("tensors") / "stats.0.safetensors";
  factorize::LayerStatistics statistics;
  statistics.input = {.tokens = 7,
                      .mean_abs = at::rand({3}, at::kDouble),
                      .mean_square = at::rand({3}, at::kDouble)};
  statistics.key.gram = at::rand({2, 2}, at::kDouble);
  statistics.value.gram = at::rand({2, 2}, at::kDouble);
  ASSERT_TRUE(SaveStatistics(path, statistics).ok());
  const auto loaded = LoadStatistics(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->input.tokens, 7);
  EXPECT_TRUE(at::equal(loaded->input.mean_square, statistics.input.mean_square));
  EXPECT_TRUE(at::equal(loaded->value.gram, statistics.value.gram));
  EXPECT_FALSE(loaded->input.covariance.defined());
  EXPECT_EQ(ListDirectory(path.parent_path())->size(), 1u);
}

TEST(TensorFileTest, DamagedFilesAreRemovedAndRetryable) {
  const fs::path path = checkpoint::NewTestDirectory("tensors_bad") / "layer.0.safetensors";
  EXPECT_EQ(LoadTensors(path).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(SaveTensors(path, {{"a", at::ones({2, 3})}}).ok());
  std::string bytes = ReadFile(path).value();
  bytes.pop_back();
  ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
  const auto loaded = LoadTensors(path);
  EXPECT_EQ(DescribeError(loaded.status()).reason, "CHECKPOINT_CORRUPT");
  EXPECT_TRUE(DescribeError(loaded.status()).retryable);
  EXPECT_FALSE(fs::exists(path));
}

TEST(TensorFileTest, FilesThatCannotBeReadStay) {
  const fs::path path = checkpoint::NewTestDirectory("tensors_loop") / "layer.0.safetensors";
  fs::create_symlink(path.filename(), path);
  const absl::Status status = LoadTensors(path).status();
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(DescribeError(status).reason, "INTERNAL");
  EXPECT_TRUE(fs::is_symlink(path));
}

// Whole files whose content is not what was saved.
TEST(TensorFileTest, WrongStatisticsAreRemovedAndRetryable) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const fs::path path = checkpoint::NewTestDirectory("loss_bad") / "loss.3.safetensors";
  const at::Tensor moment = at::eye(4, at::kDouble);
  const auto load = [&](const at::Tensor& counts, const at::Tensor& fisher) {
    EXPECT_TRUE(SaveTensors(path, {{"counts", counts},
                                   {"output", moment},
                                   {"output_first", moment},
                                   {"fisher", fisher},
                                   {"fisher_first", moment}})
                    .ok());
    return LoadLossStatistics(path, 4);
  };
  const at::Tensor counts = at::tensor({8.0, 2.0}, at::kDouble);
  const auto good = load(counts, moment);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->tokens, 8);
  const std::pair<at::Tensor, at::Tensor> wrong[] = {
      {counts, at::full({4, 4}, kNan, at::kDouble)},
      {counts, -moment},
      {counts, at::eye(3, at::kDouble)},
      {counts, moment.to(at::kFloat)},
      {counts, at::Tensor()},
      {at::tensor({kNan, 2.0}, at::kDouble), moment},
      {at::tensor({1e300, 2.0}, at::kDouble), moment},
      {at::tensor({8.0, -2.0}, at::kDouble), moment},
      {at::tensor({8.0}, at::kDouble), moment}};
  for (const auto& [bad_counts, fisher] : wrong) {
    const absl::Status status = load(bad_counts, fisher).status();
    EXPECT_EQ(DescribeError(status).reason, "CHECKPOINT_CORRUPT") << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("loss.3.safetensors"));
    EXPECT_FALSE(fs::exists(path));
  }
  for (const double tokens : {kNan, 1e300, 0.0}) {
    ASSERT_TRUE(SaveTensors(path, {{"tokens", at::full({1}, tokens, at::kDouble)}}).ok());
    EXPECT_EQ(DescribeError(LoadStatistics(path).status()).reason, "CHECKPOINT_CORRUPT");
    EXPECT_FALSE(fs::exists(path));
  }
}

}  // namespace
}  // namespace latentforge::convert
