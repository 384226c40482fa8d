#include "worker/export/plots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace latentforge::exporter {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<std::string> Names(const std::vector<Plot>& plots) {
  std::vector<std::string> names;
  for (const Plot& plot : plots) names.push_back(plot.name);
  return names;
}

TEST(PlotsTest, ThereIsNoPlotWithoutFigures) {
  EXPECT_THAT(PlotsOf(Report()), IsEmpty());
  // Layers without ranks of keys or values: of their caches there is nothing to show.
  Report report;
  report.layers = {{}, {}};
  EXPECT_THAT(PlotsOf(report), IsEmpty());
  report.layers[1].rank_v = 3;
  EXPECT_EQ(PlotsOf(report).size(), 1u);
}

TEST(PlotsTest, AJointLatentAndTwoSeparateOnesHaveTheirOwnBars) {
  Report report;
  report.layers = {{.rank_kv = 35}, {.rank_kv = 200}};
  const std::vector<Plot> joint = PlotsOf(report);
  ASSERT_THAT(Names(joint), ElementsAre("cache_by_layer.svg"));
  EXPECT_THAT(joint[0].script, AllOf(HasSubstr("$joint << EOD\n0 35\n1 200\nEOD"),
                                     HasSubstr("plot $joint with"), Not(HasSubstr("$keys"))));
  report.layers = {{.rank_k = 3, .rank_v = 5}, {.rank_k = 4, .rank_v = 6}};
  const std::vector<Plot> separate = PlotsOf(report);
  ASSERT_THAT(Names(separate), ElementsAre("cache_by_layer.svg"));
  EXPECT_THAT(separate[0].script,
              AllOf(HasSubstr("$keys << EOD\n0 3\n1 4\nEOD"),
                    HasSubstr("$both << EOD\n0 8\n1 10\n"), Not(HasSubstr("$joint"))));
}

TEST(PlotsTest, ThePredictionIsScaledToWhatWasMeasuredAtTheChosenSize) {
  Report report;
  report.layers = {{.rank_kv = 4}};
  report.prediction = {
      .loss = 0.25, .curve = {{2, 1.0}, {4, 0.25}, {8, 0.0}}, .measured = {{2, 7.0}, {4, 0.5}}};
  const std::vector<Plot> plots = PlotsOf(report);
  ASSERT_THAT(Names(plots), ElementsAre("loss_by_cache.svg", "cache_by_layer.svg"));
  // Per cent of the whole cache; a loss of 0 has no place on a logarithmic axis.
  EXPECT_THAT(plots[0].script, AllOf(HasSubstr("$predicted << EOD\n25 1\n50 0.25\nEOD"),
                                     HasSubstr("$scaled << EOD\n25 2\n50 0.5\nEOD"),
                                     HasSubstr("$measured << EOD\n25 7\n50 0.5\nEOD")));
  // A conversion that made the model better says nothing about the scale.
  report.prediction->measured = {{4, -0.1}};
  EXPECT_THAT(PlotsOf(report)[0].script,
              AllOf(Not(HasSubstr("$scaled")), Not(HasSubstr("$measured"))));
}

TEST(PlotsTest, EveryPlotHasATitleUnitsAndItsLegendOutside) {
  Report report;
  report.layers = {{.rank_kv = 4}};
  report.prediction = {.loss = 0.25, .curve = {{2, 1.0}, {4, 0.25}, {8, 0.0}}};
  report.healing = {.history = {{.step = 7, .loss = 0.5}}};
  const std::vector<Plot> plots = PlotsOf(report);
  ASSERT_EQ(plots.size(), 3u);
  for (const Plot& plot : plots) {
    EXPECT_THAT(plot.script, AllOf(HasSubstr("set title '" + plot.caption + "'\n"),
                                   HasSubstr("set key outside"), HasSubstr("a token'\n")));
  }
  EXPECT_THAT(plots[0].script, HasSubstr("'1/3' 100/3.0, '1/2' 50")) << "ticks at the budgets";
  EXPECT_THAT(plots[2].script, HasSubstr("set xrange [0:7]\n"));
}

TEST(PlotsTest, HealingShowsStepsAndMeasurements) {
  Report report;
  report.healing = {
      .history = {{.step = 1, .loss = 0.5, .learning_rate = 0.001}},
      .measurements = {{.step = 0, .divergence = 0.75}, {.step = 1, .divergence = 0.25}}};
  const std::vector<Plot> plots = PlotsOf(report);
  ASSERT_THAT(Names(plots), ElementsAre("healing.svg"));
  EXPECT_THAT(plots[0].script,
              AllOf(HasSubstr("$loss << EOD\n1 0.5\nEOD"), HasSubstr("$rate << EOD\n1 0.001\nEOD"),
                    HasSubstr("$held_back << EOD\n0 0.75\n1 0.25\nEOD")));
}

}  // namespace
}  // namespace latentforge::exporter
