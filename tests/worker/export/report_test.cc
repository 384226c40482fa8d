#include "worker/export/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "worker/export/model_card.h"

namespace latentforge::exporter {
namespace {

using testing::HasSubstr;
using testing::Not;

Report Example() {
  Report report;
  report.perplexity_base = 10;
  report.perplexity_converted = 12;
  report.kv_bytes_per_token_base = 400;
  report.kv_bytes_per_token_converted = 100;
  report.layers = {{.rank_k = 3, .rank_v = 4, .relative_error_k = 0.1, .relative_error_v = 0.2},
                   {.rank_kv = 9}};
  report.prediction = {.loss = 0.02, .curve = {{50, 0.5}, {100, 0.02}, {400, 0}}};
  report.phases = {{"calibrating", 2.5, 800}};
  report.peak_rss_bytes = 12345;
  report.source = {"file:///m/tiny", "abc", "llama", 99};
  report.evaluation = {"file:///t.txt", 8, 2048, "bfloat16"};
  report.calibration = {{{"file:///c.txt", "def", 1.0, 32768}}, 16, 2048, 7};
  report.settings = {{"budget", {{"kvBudget", 0.25}}}};
  report.versions = {{"latentforge", "0.1.0"}};
  report.warnings = {"short text"};
  return report;
}

TEST(ReportTest, HoldsTheDocumentedKeys) {
  const auto json = ReportToJson(Example());
  ASSERT_TRUE(json.ok()) << json.status();
  const auto at = [&](const char* pointer) { return json->at(Json::json_pointer(pointer)); };
  EXPECT_EQ(at("/schema_version"), 1);
  EXPECT_DOUBLE_EQ(at("/perplexity/ratio").get<double>(), 1.2);
  EXPECT_EQ(at("/kv_cache/bytes_per_token/converted"), 100);
  EXPECT_DOUBLE_EQ(at("/kv_cache/ratio").get<double>(), 0.25);
  EXPECT_EQ(at("/layers/0/layer"), 0);
  EXPECT_EQ(at("/layers/0/rank_v"), 4);
  EXPECT_DOUBLE_EQ(at("/layers/0/relative_error_k").get<double>(), 0.1);
  EXPECT_FALSE(at("/layers/0").contains("rank_kv"));
  EXPECT_EQ(at("/layers/1/rank_kv"), 9);
  EXPECT_DOUBLE_EQ(at("/prediction/loss").get<double>(), 0.02);
  EXPECT_DOUBLE_EQ(at("/prediction/curve/1/kv_ratio").get<double>(), 0.25);
  EXPECT_EQ(at("/phases/0/name"), "calibrating");
  EXPECT_EQ(at("/peak_rss_bytes"), 12345);
  EXPECT_EQ(at("/source/model_type"), "llama");
  EXPECT_EQ(at("/parameters/base"), 99);
  EXPECT_EQ(at("/evaluation/window_length"), 2048);
  EXPECT_EQ(at("/calibration/corpora/0/tokens"), 32768);
  EXPECT_EQ(at("/calibration/seed"), 7);
  EXPECT_EQ(at("/settings/budget/kvBudget"), 0.25);
  EXPECT_EQ(at("/warnings/0"), "short text");
}

TEST(ReportTest, WithoutEvaluationPerplexityIsNull) {
  Report report = Example();
  report.perplexity_base.reset();
  report.perplexity_converted.reset();
  EXPECT_TRUE(ReportToJson(report).value()["perplexity"].is_null());
  report.perplexity_base = 3;
  const absl::Status status = ReportToJson(report).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("perplexity.converted is missing"));
}

TEST(ReportTest, RefusesNumbersThatJsonCannotHold) {
  Report report = Example();
  report.perplexity_converted = std::numeric_limits<double>::infinity();
  absl::Status status = ReportToJson(report).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("perplexity.converted is inf"));
  report = Example();
  report.layers[1].relative_error_v = std::numeric_limits<double>::quiet_NaN();
  status = ReportToJson(report).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("layers.1.relative_error_v"));
  report = Example();
  report.kv_bytes_per_token_base = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(ReportToJson(report).status()));
}

TEST(ModelCardTest, HasHeadAndFigures) {
  const std::string card = ModelCard(Example(), "owner/tiny: \"x\"", ArtifactKind::kSeparateLatents,
                                     {{"loss.svg", "Loss by size", "plot 1"}});
  EXPECT_THAT(card, HasSubstr("![Loss by size](loss.svg)"));
  EXPECT_THAT(card, testing::StartsWith("---\nbase_model: \"owner/tiny: \\\"x\\\"\"\n"));
  EXPECT_THAT(card, HasSubstr("library_name: transformers\n"));
  EXPECT_THAT(card, HasSubstr("| perplexity | 10.0000 | 12.0000 | 1.2000 |"));
  EXPECT_THAT(card, HasSubstr("| key-value cache, bytes per token | 400 | 100 | 0.2500 |"));
  EXPECT_THAT(card, HasSubstr("trust_remote_code=True"));
  EXPECT_THAT(card, HasSubstr("8 windows of 2048 tokens of t.txt in bfloat16. "));
  Report report = Example();
  report.evaluation.text = "held back from the end of file:///home/me/a.txt";
  EXPECT_THAT(ModelCard(report, "m", ArtifactKind::kJointLatent, {}),
              HasSubstr("tokens of the end of a.txt, held back from calibration, in bfloat16. "));
  report.perplexity_base.reset();
  report.perplexity_converted.reset();
  EXPECT_THAT(ModelCard(report, "m", ArtifactKind::kJointLatent, {}),
              Not(HasSubstr("perplexity |")));
}

TEST(ModelCardTest, SaysWhereLayersWereAnchored) {
  Report report = Example();
  EXPECT_THAT(ModelCard(report, "m", ArtifactKind::kJointLatent, {}), Not(HasSubstr("anchored")));
  report.settings["factorization"] = {{"anchored", false}};
  EXPECT_THAT(ModelCard(report, "m", ArtifactKind::kJointLatent, {}), Not(HasSubstr("anchored")));
  report.settings["factorization"]["anchored"] = true;
  EXPECT_THAT(ModelCard(report, "m", ArtifactKind::kJointLatent, {}),
              HasSubstr("(the anchored pass)"));
}

TEST(ModelCardTest, SaysWhatIsReplaced) {
  const std::string joint = ModelCard(Example(), "m", ArtifactKind::kJointLatent, {});
  EXPECT_THAT(joint, HasSubstr("# m with a latent key-value cache\n"));
  EXPECT_THAT(joint, HasSubstr("from which both keys and values are expanded. "));
  EXPECT_THAT(joint, HasSubstr("- kv-cache-compression\n"));
  EXPECT_THAT(joint, HasSubstr("- The cache is smaller, the arithmetic is not: keys depend on"));
  const std::string low_rank = ModelCard(Example(), "m", ArtifactKind::kLowRank, {});
  EXPECT_THAT(low_rank, HasSubstr("# m with low-rank linear maps\n"));
  EXPECT_THAT(low_rank, HasSubstr("Linear maps of attention and MLP are replaced"));
  EXPECT_THAT(low_rank, Not(HasSubstr("kv-cache-compression")));
  EXPECT_THAT(low_rank, HasSubstr("\n- Keys depend on their position"));
}

TEST(ModelCardTest, NamesTheBaseModel) {
  EXPECT_EQ(BaseModelName(R"({"_name_or_path":"owner/name"})", "file:///x/y"), "owner/name");
  EXPECT_EQ(BaseModelName(R"({"_name_or_path":"/some/folder"})", "file:///x/y/"), "y");
  EXPECT_EQ(BaseModelName(R"({"_name_or_path":7})", "file:///x/y"), "y");
  EXPECT_EQ(BaseModelName("{", "/x/y"), "y");
}

}  // namespace
}  // namespace latentforge::exporter
