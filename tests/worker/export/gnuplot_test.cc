#include "base/gnuplot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tests/checkpoint/fixture.h"
#include "worker/export/plots.h"

namespace latentforge::exporter {
namespace {

using testing::HasSubstr;

class GnuplotTest : public testing::Test {
 protected:
  GnuplotTest() : options_{.scratch = checkpoint::NewTestDirectory("gnuplot")} {}

  void TearDown() override { EXPECT_FALSE(std::filesystem::exists(options_.scratch / "plot.gp")); }

  // A program of our own in gnuplot's place.
  void UseScript(const std::string& text) {
    options_.program = options_.scratch / "fake";
    ASSERT_TRUE(WriteFileAtomic(options_.program, "#!/bin/sh\n" + text).ok());
    ASSERT_EQ(chmod(options_.program.c_str(), 0700), 0);
  }

  GnuplotOptions options_;
};

TEST_F(GnuplotTest, DrawsEveryPlotOfAReport) {
  Report report;
  report.layers = {{.rank_kv = 4}, {.rank_kv = 7}};
  report.prediction = {
      .loss = 0.25, .curve = {{2, 1.0}, {11, 0.25}, {22, 0.0}}, .measured = {{11, 0.5}}};
  report.healing = {
      .history = {{.step = 1, .loss = 0.5, .learning_rate = 0.001},
                  {.step = 2, .loss = 0.4, .learning_rate = 0.0005}},
      .measurements = {{.step = 0, .divergence = 0.75}, {.step = 2, .divergence = 0.2}}};
  std::vector<Plot> plots = PlotsOf(report);
  ASSERT_EQ(plots.size(), 3u);
  report.layers = {{.rank_k = 3, .rank_v = 5}};
  plots.push_back(PlotsOf(report)[1]);
  for (const Plot& plot : plots) {
    const auto svg = RunGnuplot(options_, plot.script, RealClock());
    ASSERT_TRUE(svg.ok()) << plot.name << ": " << svg.status();
    EXPECT_THAT(*svg, HasSubstr("<svg"));
    EXPECT_THAT(*svg, HasSubstr("</svg>"));
    EXPECT_EQ(*RunGnuplot(options_, plot.script, RealClock()), *svg) << plot.name;
  }
}

TEST_F(GnuplotTest, SaysWhatIsWrongWithAScript) {
  const auto svg = RunGnuplot(options_, "plot nonsense with lines\n", RealClock());
  EXPECT_EQ(svg.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(svg.status().message(), HasSubstr("undefined variable: nonsense"));
}

TEST_F(GnuplotTest, NamesTheProgramThatIsMissing) {
  options_.program = "no-such-gnuplot";
  const auto svg = RunGnuplot(options_, "", RealClock());
  EXPECT_EQ(svg.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(svg.status().message(), HasSubstr("no-such-gnuplot"));
}

TEST_F(GnuplotTest, GivesAllOfALongPicture) {
  UseScript("head -c 3000000 /dev/zero | tr '\\0' x");
  EXPECT_EQ(RunGnuplot(options_, "", RealClock())->size(), 3000000u);
}

TEST_F(GnuplotTest, DoesNotWaitForEver) {
  UseScript("sleep 60");
  options_.limit = absl::Milliseconds(100);
  EXPECT_EQ(RunGnuplot(options_, "", RealClock()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace latentforge::exporter
