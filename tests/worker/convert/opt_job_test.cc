// Whole conversions of OPT models: what a family with LayerNorms, learned positions, no gate and
// biases everywhere goes through.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"

namespace latentforge::convert {
namespace {

using checkpoint::Checkpoint;
using checkpoint::Family;
using testing::HasSubstr;

// As OPT-350m has it.
const Json kPostNorm = {{"do_layer_norm_before", false}, {"word_embed_proj_dim", 24}};

TinyJob OptJob(const std::string& name, const Json& changes = Json::object()) {
  TinyJob job(name, {.family = Family::kOpt, .scale = 0.5, .config_overrides = changes});
  // A joint latent of half of K and V has as many values as the state: it would lose nothing.
  job.spec["budget"]["kvBudget"] = 0.2;
  return job;
}

TinyJob LowRankJob(const std::string& name, const Json& changes = Json::object()) {
  TinyJob job = OptJob(name, changes);
  job.spec["method"] = "METHOD_LOW_RANK";
  job.spec["budget"] = {{"parameterRatio", 0.3}};
  return job;
}

// Runs the job; the published artifact, which gives what was reported.
Checkpoint Convert(const TinyJob& job) {
  const Outcome outcome = RunJob(job);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  absl::StatusOr<Checkpoint> artifact = Checkpoint::Open(job.out());
  EXPECT_TRUE(artifact.ok()) << artifact.status();
  const double reported = outcome.events.back()["result"]["perplexityConverted"];
  EXPECT_TRUE(std::isfinite(reported));
  EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(), reported);
  return *std::move(artifact);
}

TEST(OptJobTest, EveryPreconditionerMakesLatents) {
  for (const char* name : {"IDENTITY", "DIAGONAL_L1", "DIAGONAL_L2", "DIAGONAL_HESSIAN",
                           "COVARIANCE", "ROOT_COVARIANCE", "FISHER"}) {
    for (const Json& changes : {Json::object(), kPostNorm}) {
      // The others differ in what is done with the same statistics.
      const bool own_statistics =
          name == std::string("FISHER") || name == std::string("COVARIANCE");
      if (changes == kPostNorm && !own_statistics) continue;
      TinyJob job = OptJob("opt_latents", changes);
      job.spec["factorization"] = {{"preconditioner", absl::StrCat("PRECONDITIONER_", name)}};
      const Checkpoint artifact = Convert(job);
      EXPECT_EQ(artifact.config().latent->base_model_type, "opt") << name;
      const Checkpoint source = Checkpoint::Open(job.root / "model").value();
      for (const char* which : {"k", "v"}) {
        const auto name_of = [&](const char* module) {
          return checkpoint::LayerTensor(1, absl::StrCat("self_attn.", which, module));
        };
        EXPECT_EQ(artifact.Tensor(name_of("_up_proj.bias"))->bytes,
                  source.Tensor(name_of("_proj.bias"))->bytes);
      }
    }
  }
}

TEST(OptJobTest, AllTheCacheChangesNothing) {
  for (const Json& changes : {Json::object(), kPostNorm}) {
    TinyJob job = OptJob("opt_full", changes);
    job.spec["budget"]["kvBudget"] = 1.0;
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const Json& result = outcome.events.back()["result"];
    EXPECT_EQ(result["perplexityBase"], result["perplexityConverted"]);
    EXPECT_EQ(result["kvBytesPerTokenBase"], "512");  // 2 layers of 32 + 32 values of four bytes
  }
}

TEST(OptJobTest, ReportsTheArtifactInTheTypeThatItIsStoredIn) {
  for (const Json& changes : {Json::object(), kPostNorm}) {
    TinyJob latent = OptJob("opt_stored", changes);
    TinyJob low_rank = LowRankJob("opt_stored_low_rank", changes);
    for (TinyJob* job : {&latent, &low_rank}) {
      job->spec["output"]["dtype"] = "DATA_TYPE_BFLOAT16";
      EXPECT_EQ(Convert(*job).dtype_names(), std::vector<std::string>{"BF16"});
    }
  }
}

TEST(OptJobTest, HealsAndAnchors) {
  for (const Json& changes : {Json::object(), kPostNorm}) {
    TinyJob healed = OptJob("opt_healed", changes);
    healed.spec["healing"] = {{"tokens", "630"},
                              {"sequenceLength", 32},
                              {"batchSequences", 2},
                              {"learningRate", 0.0003},
                              {"evaluateEvery", 3}};
    Convert(healed);
    const Json report = ParseJson(ReadFile(healed.out() / "report.json").value()).value();
    const Json& measured = report["healing"]["measurements"];
    const double before = measured[0]["divergence"], after = measured.back()["divergence"];
    EXPECT_NE(after, before);
    // With norms behind attention and MLP, ten steps on one random text move the divergence on
    // another by a hundredth, up or down.
    if (changes != kPostNorm) {
      EXPECT_LT(after, before);
    }
    TinyJob anchored = OptJob("opt_anchored", changes);
    anchored.spec["factorization"] = {{"anchored", true}};
    Convert(anchored);
  }
}

TEST(OptJobTest, EveryKindOfLowRankKeepsTheRatio) {
  const Json joint = {{"queryKey", "JOINT_MODE_JOINT"}, {"valueOutput", "JOINT_MODE_JOINT"}};
  std::vector<std::pair<Json, Json>> settings;  // factorization, lowRank
  for (const char* name : {"IDENTITY", "DIAGONAL_L1", "DIAGONAL_L2", "DIAGONAL_HESSIAN",
                           "COVARIANCE", "ROOT_COVARIANCE", "FISHER"}) {
    settings.push_back({{{"preconditioner", absl::StrCat("PRECONDITIONER_", name)}}, joint});
    if (std::string(name) != "ROOT_COVARIANCE" && std::string(name) != "FISHER") {
      settings.back().second = Json::object();
    }
  }
  const Json root = {{"preconditioner", "PRECONDITIONER_ROOT_COVARIANCE"}};
  settings.push_back({root, {{"layout", "FACTOR_LAYOUT_PLAIN"}, {"biasUpdate", true}}});
  settings.push_back({root, {{"activations", "ACTIVATION_SOURCE_COMPRESSED"}}});
  for (const auto& [factorization, low_rank] : settings) {
    for (const Json& changes : {Json::object(), kPostNorm, Json{{"enable_bias", false}}}) {
      if (changes != Json::object() && factorization != root) continue;
      TinyJob job = LowRankJob("opt_low_rank", changes);
      job.spec["factorization"] = factorization;
      job.spec["lowRank"] = low_rank;
      const Checkpoint artifact = Convert(job);
      const checkpoint::ModelConfig& config = artifact.config();
      const auto source = Checkpoint::Open(job.root / "model").value();
      EXPECT_LE(double(checkpoint::DecoderLinearCosts(config).weights),
                0.7 * double(checkpoint::DecoderLinearCosts(source.config()).weights))
          << WriteJson(job.spec);
      for (const checkpoint::LinearRanks& ranks : config.low_rank->ranks) {
        EXPECT_EQ(ranks.gate, 0);
        EXPECT_GT(ranks.q + ranks.k + ranks.v + ranks.o + ranks.up + ranks.down, 0);
      }
    }
  }
}

TEST(OptJobTest, TextsBeyondItsPositionsAreRefused) {
  const TinyJob job = OptJob("opt_context", {{"max_position_embeddings", 16}});
  const absl::Status status = RunJob(job).status;
  EXPECT_EQ(DescribeError(status).reason, "INVALID_SPEC");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("sequences of 32 tokens are longer than the model's context of 16, and its "
                        "positions are learned"));
  const absl::Status evaluated = Evaluate({.model = job.root / "model",
                                           .text = job.root / "eval.txt",
                                           .windows = 3,
                                           .window_length = 32,
                                           .dtype = "float32",
                                           .device = "cpu",
                                           .threads = 1},
                                          /*events=*/nullptr, StopToken(), StepClock())
                                     .status();
  EXPECT_THAT(std::string(evaluated.message()), HasSubstr("windows of 32 tokens"));
}

}  // namespace
}  // namespace latentforge::convert
