// Jobs of the method low_rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_costs.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Json ReportOf(const TinyJob& job) {
  return ParseJson(ReadFile(job.out() / "report.json").value()).value();
}

TinyJob LowRankJob(const std::string& name, const Json& factorization, const Json& low_rank = {},
                   checkpoint::Family family = checkpoint::Family::kLlama, double ratio = 0.3) {
  TinyJob job(name, {.family = family, .num_layers = 3, .scale = 0.5});
  job.spec["method"] = "METHOD_LOW_RANK";
  job.spec["budget"] = {{"parameterRatio", ratio}};
  job.spec["factorization"] = factorization;
  if (!low_rank.is_null()) job.spec["lowRank"] = low_rank;
  return job;
}

Json Preconditioner(const std::string& name) {
  return {{"preconditioner", "PRECONDITIONER_" + name}};
}

// Parameters of linear maps of the artifact, by those of the original.
double ParameterShare(const TinyJob& job) {
  const auto source = checkpoint::Checkpoint::Open(job.root / "model").value();
  const auto artifact = checkpoint::Checkpoint::Open(job.out()).value();
  return double(checkpoint::DecoderLinearCosts(artifact.config()).weights) /
         double(checkpoint::DecoderLinearCosts(source.config()).weights);
}

void ExpectPublished(const TinyJob& job) {
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status << "\n" << WriteJson(job.spec, 1);
  const Json report = ReportOf(job);
  // The artifact is loaded again from its own files.
  EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(),
                   report["perplexity"]["converted"].get<double>());
  const double share = ParameterShare(job);
  EXPECT_LE(share, 0.7);
  EXPECT_GT(share, 0.5);
  const Json& costs = report["linear_maps"];
  EXPECT_EQ(costs["macs_per_token"]["ratio"].get<double>(), share);
  EXPECT_LT(report["kv_cache"]["ratio"].get<double>(), 1 + 1e-12);
  bool compressed = false;
  for (const Json& layer : report["layers"]) {
    ASSERT_EQ(layer["maps"].size(), 7u);
    for (const Json& map : layer["maps"]) {
      const double error = map["relative_error"].get<double>();
      if (map["rank"] == 0) {
        EXPECT_EQ(error, 0);
      } else {
        EXPECT_GT(error, 0);
        EXPECT_LT(error, 1);
        compressed = true;
      }
    }
  }
  EXPECT_TRUE(compressed);
}

TEST(LowRankJobTest, EveryPreconditionerPublishesWhatItMeasured) {
  for (const char* name : {"IDENTITY", "DIAGONAL_L1", "DIAGONAL_L2", "DIAGONAL_HESSIAN",
                           "COVARIANCE", "ROOT_COVARIANCE", "FISHER"}) {
    SCOPED_TRACE(name);
    ExpectPublished(LowRankJob("low_rank_each", Preconditioner(name)));
  }
}

// Biases, QK-norm and a sliding window, compressed jointly and each for itself, with and without
// identity and new biases, for the original's activations and for those of compressed layers.
TEST(LowRankJobTest, EveryFamilyInEveryForm) {
  using checkpoint::Family;
  for (const Family family : {Family::kLlama, Family::kMistral, Family::kQwen2, Family::kQwen3}) {
    for (const bool plain : {false, true}) {
      SCOPED_TRACE(std::string(checkpoint::FamilyName(family)) + (plain ? ", plain" : ""));
      const Json form = {
          {"layout", plain ? "FACTOR_LAYOUT_PLAIN" : "FACTOR_LAYOUT_BLOCK_IDENTITY"},
          {"biasUpdate", plain},
          {"activations", plain ? "ACTIVATION_SOURCE_ORIGINAL" : "ACTIVATION_SOURCE_COMPRESSED"}};
      ExpectPublished(
          LowRankJob("low_rank_family", Preconditioner("ROOT_COVARIANCE"), form, family));
      ExpectPublished(LowRankJob("low_rank_family_ours", Preconditioner("FISHER"), form, family));
    }
  }
}

TEST(LowRankJobTest, MlpsAreCompressedTogether) {
  for (const char* mlp : {"ALTERNATION", "OUTPUT_METRIC"}) {
    for (const char* activations : {"ORIGINAL", "COMPRESSED"}) {
      SCOPED_TRACE(std::string(mlp) + " " + activations);
      ExpectPublished(
          LowRankJob("low_rank_mlp", Preconditioner("ROOT_COVARIANCE"),
                     {{"mlp", std::string("MLP_COMPRESSION_") + mlp},
                      {"activations", std::string("ACTIVATION_SOURCE_") + activations}}));
    }
  }
}

// OPT's MLPs have no gate.
TEST(LowRankJobTest, PlainMlpsAreCompressedTogether) {
  const auto perplexity = [](const char* mlp) {
    const TinyJob job = LowRankJob("low_rank_plain_mlp", Preconditioner("ROOT_COVARIANCE"),
                                   {{"mlp", mlp}}, checkpoint::Family::kOpt);
    EXPECT_TRUE(RunJob(job).status.ok());
    return ReportOf(job)["perplexity"]["converted"].get<double>();
  };
  EXPECT_NE(perplexity("MLP_COMPRESSION_OUTPUT_METRIC"), perplexity("MLP_COMPRESSION_LOCAL"));
  EXPECT_NE(perplexity("MLP_COMPRESSION_ALTERNATION"), perplexity("MLP_COMPRESSION_LOCAL"));
}

TEST(LowRankJobTest, TheTextsOwnLabelsAreTaken) {
  TinyJob job = LowRankJob("low_rank_labels", Preconditioner("FISHER"));
  job.spec["calibration"]["labels"] = "FISHER_LABELS_TEXT";
  const absl::Status status = RunJob(job).status;
  EXPECT_TRUE(status.ok()) << status;
}

// Whatever stops an attempt, the next one goes on, and the bytes are those of a job that was never
// stopped.
TEST(LowRankJobTest, StopsAnywhereAndGoesOn) {
  for (const char* activations : {"ACTIVATION_SOURCE_ORIGINAL", "ACTIVATION_SOURCE_COMPRESSED"}) {
    const Json form = {{"activations", activations}};
    const TinyJob whole = LowRankJob("low_rank_whole", Preconditioner("FISHER"), form);
    const Outcome outcome = RunJob(whole);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const TinyJob job = LowRankJob("low_rank_stopped", Preconditioner("FISHER"), form);
    int stops = 0;
    for (int at = 3; at < 200; at += 4) {
      const absl::Status status = RunJob(job, at).status;
      if (status.ok()) break;
      ASSERT_TRUE(absl::IsCancelled(status)) << status;
      ++stops;
    }
    EXPECT_GT(stops, 3);
    EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
  }
}

// Layers after the first see other activations, and are other maps.
TEST(LowRankJobTest, ActivationsOfCompressedLayersAreOthers) {
  const auto errors = [](const char* activations) {
    const TinyJob job =
        LowRankJob("low_rank_activations", {{"preconditioner", "PRECONDITIONER_ROOT_COVARIANCE"}},
                   {{"queryKey", "JOINT_MODE_LOCAL"},
                    {"valueOutput", "JOINT_MODE_LOCAL"},
                    {"activations", activations}});
    EXPECT_TRUE(RunJob(job).status.ok());
    std::vector<double> found;
    const Json report = ReportOf(job);
    for (const Json& layer : report["layers"]) {
      found.push_back(layer["maps"]["q"]["relative_error"].get<double>());
    }
    return found;
  };
  const std::vector<double> original = errors("ACTIVATION_SOURCE_ORIGINAL");
  const std::vector<double> compressed = errors("ACTIVATION_SOURCE_COMPRESSED");
  ASSERT_EQ(original.size(), 3u);
  EXPECT_DOUBLE_EQ(original[0], compressed[0]);
  EXPECT_NE(original[2], compressed[2]);
}

TEST(LowRankJobTest, RatiosThatNoRankCanMeetAreRefusedWithTheNearestOne) {
  const TinyJob uniform = LowRankJob("low_rank_refused", Preconditioner("ROOT_COVARIANCE"), {},
                                     checkpoint::Family::kLlama, 0.99);
  const absl::Status status = RunJob(uniform).status;
  EXPECT_EQ(std::string(DescribeError(status).reason), "RANK_OUT_OF_RANGE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("ratio is 0.99, expected at most 0."));
  const TinyJob global = LowRankJob("low_rank_refused", Preconditioner("FISHER"), {},
                                    checkpoint::Family::kLlama, 0.99);
  EXPECT_EQ(std::string(DescribeError(RunJob(global).status).reason), "RANK_OUT_OF_RANGE");
}

}  // namespace
}  // namespace latentforge::convert
