#include "worker/convert/disk_space.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "tests/worker/convert/tiny_job.h"
#include "worker/convert/attempt.h"
#include "worker/convert/phase_files.h"

namespace latentforge::convert {
namespace {

// An attempt of a tiny job that has fetched its inputs.
class DiskSpaceTest : public testing::Test {
 protected:
  DiskSpaceTest()
      : job_("disk_space"),
        spec_(ParseJobSpec(WriteJson(job_.spec)).value()),
        work_(WorkDir::Open(job_.work()).value()),
        sink_(open("/dev/null", O_WRONLY | O_CLOEXEC)),
        events_(sink_.get(), RealClock()),
        progress_(RealClock(), events_),
        attempt_{.spec = spec_,
                 .work = work_,
                 .events = events_,
                 .progress = progress_,
                 .stop = stop_,
                 .clock = RealClock(),
                 .dtype = at::kFloat} {
    absl::StatusOr<Inputs> inputs = FetchInputs(attempt_);
    EXPECT_TRUE(inputs.ok()) << inputs.status();
    inputs_.emplace(*std::move(inputs));
  }

  int64_t Needed() const { return ScratchBytesNeeded(attempt_, *inputs_); }

  TinyJob job_;
  JobSpec spec_;
  WorkDir work_;
  UniqueFd sink_;
  EventWriter events_;
  ProgressMeter progress_;
  StopToken stop_;
  Attempt attempt_;
  std::optional<Inputs> inputs_;
};

TEST_F(DiskSpaceTest, WhatEarlierAttemptsLeftIsNotAskedForAgain) {
  const int64_t before = Needed();
  constexpr int64_t kHeld = 32 << 10;
  const std::string bytes = RandomText(size_t{kHeld}, 3);
  ASSERT_TRUE(WriteFileAtomic(work_.calibrate() / "hidden.1.bin", bytes).ok());
  EXPECT_NEAR(double(before - Needed()), double(kHeld), 4096);
  ASSERT_TRUE(WriteFileAtomic(work_.factorize() / "layer.0.safetensors", bytes).ok());
  EXPECT_NEAR(double(before - Needed()), 2.0 * kHeld, 8192);
  // More than a job writes never asks for less than some slack.
  ASSERT_TRUE(
      WriteFileAtomic(work_.calibrate() / "hidden.2.bin", RandomText(size_t{4} << 20, 4)).ok());
  EXPECT_GT(Needed(), 0);
}

TEST_F(DiskSpaceTest, HiddenStatesAreNotNeededBehindCalibration) {
  const int64_t before = Needed();
  // 8 sequences of 32 tokens, four files of them (2 layers, and 2 gradients).
  const int64_t hidden = 8 * 32 * inputs_->checkpoint.config().hidden_size * 4;
  for (int64_t layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(WriteFileAtomic(LossStatisticsPath(work_, layer), "").ok());
  }
  EXPECT_EQ(before - Needed(), 4 * hidden);
  // Statistics that are to be kept need room then, and only then.
  attempt_.statistics = job_.root / "statistics";
  const int64_t n = 2 * inputs_->checkpoint.config().kv_width();
  EXPECT_GE(Needed(), before - 4 * hidden + 2 * 4 * 8 * n * (n + 1) / 2);
}

TEST_F(DiskSpaceTest, TheAnchoredPassNeedsItsStreamsBehindCalibration) {
  const int64_t hidden = 8 * 32 * inputs_->checkpoint.config().hidden_size * 4;
  const int64_t calibrating = Needed();
  spec_.factorization.anchored = true;
  // Two files instead of four: the first of two layers reads embeddings.
  EXPECT_EQ(Needed(), calibrating);
  for (int64_t layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(WriteFileAtomic(LossStatisticsPath(work_, layer), "").ok());
  }
  const int64_t anchored = Needed();
  spec_.factorization.anchored = false;
  EXPECT_EQ(anchored - Needed(), 2 * hidden);
  spec_.factorization.anchored = true;
  // What is kept for others stays beside them.
  attempt_.statistics = job_.root / "statistics";
  const int64_t n = 2 * inputs_->checkpoint.config().kv_width();
  EXPECT_GE(Needed() - anchored, 2 * 4 * 8 * n * (n + 1) / 2);
  attempt_.statistics.clear();
  for (int64_t layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(WriteFileAtomic(FactorsPath(work_, layer), "").ok());
  }
  EXPECT_EQ(anchored - Needed(), 2 * hidden);
}

TEST_F(DiskSpaceTest, HealingNeedsItsStateTwice) {
  const int64_t before = Needed();
  spec_.healing.emplace().attention = false;
  const checkpoint::ModelConfig& config = inputs_->checkpoint.config();
  const int64_t n = 2 * config.kv_width();
  // Half of the values a layer, each with a row of A and a column of B: four matrices in fp32,
  // twice, and the healed ones.
  const int64_t factors = n / 2 * (config.hidden_size + n);
  EXPECT_EQ(Needed() - before, config.num_layers * factors * 4 * 9);
  spec_.healing->attention = true;
  const int64_t all = factors + 2 * config.q_width() * config.hidden_size;
  EXPECT_EQ(Needed() - before, config.num_layers * all * 4 * 9);
  ASSERT_TRUE(WriteFileAtomic(HealingStatePath(work_), RandomText(size_t{16} << 10, 5)).ok());
  EXPECT_NEAR(double(Needed() - before), double(config.num_layers * all * 4 * 9 - (16 << 10)),
              4096);
}

}  // namespace
}  // namespace latentforge::convert
