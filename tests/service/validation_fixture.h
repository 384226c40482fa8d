// A checkpoint, a text, and the specification of a job that converts them.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/validation.h"
#include "tests/checkpoint/fixture.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {

class ValidationFixture : public testing::Test {
 protected:
  ValidationFixture() {
    const absl::Status written = checkpoint::WriteTinyCheckpoint(dir_.path() / "model");
    EXPECT_TRUE(written.ok()) << written;
    std::ofstream(dir_.path() / "text.txt") << std::string(1 << 16, 'a') << "\n";
  }

  v1::JobSpec Spec() const {
    v1::JobSpec spec;
    spec.mutable_source()->set_uri((dir_.path() / "model").string());
    spec.mutable_budget()->set_kv_budget(0.5);
    spec.mutable_calibration()->add_corpora()->set_uri((dir_.path() / "text.txt").string());
    spec.mutable_output()->set_uri((dir_.path() / "out").string());
    return spec;
  }

  absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec) const {
    return FileSpecChecker().Check(spec, {});
  }

  // The check fails with `reason`, and its message has every part.
  void ExpectRefused(const v1::JobSpec& spec, absl::string_view reason,
                     const std::vector<std::string>& parts) const {
    const absl::Status status = Check(spec).status();
    EXPECT_EQ(ReasonOf(status), reason) << status;
    for (const std::string& part : parts)
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(part));
  }

  int64_t Layers() const {
    return checkpoint::Checkpoint::Open(dir_.path() / "model")->config().num_layers;
  }
  int64_t Width() const {
    return checkpoint::Checkpoint::Open(dir_.path() / "model")->config().kv_width();
  }

  TempDir dir_;
};

}  // namespace latentforge::service
