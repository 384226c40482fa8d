#include "worker/convert/job_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace latentforge::convert {
namespace {

using testing::HasSubstr;

constexpr char kSmallest[] = R"({"source":{"uri":"/m"},"budget":{"kvBudget":0.5},
  "calibration":{"corpora":[{"uri":"file:///c.txt"}]},"output":{"uri":"/o"}})";

Json Smallest() { return ParseJson(kSmallest).value(); }

TEST(JobSpecTest, FillsInDefaults) {
  const auto spec = ParseJobSpec(kSmallest);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->source, "/m");
  EXPECT_EQ(spec->output, "/o");
  EXPECT_EQ(spec->factorization.preconditioner.damping, kDefaultDamping);
  EXPECT_EQ(spec->sequences, kDefaultCalibrationSequences);
  EXPECT_EQ(spec->sequence_length, kDefaultSequenceLength);
  EXPECT_EQ(spec->windows, kDefaultEvaluationWindows);
  EXPECT_EQ(spec->corpora[0].path, "/c.txt");
  EXPECT_EQ(spec->corpora[0].weight, 1);
  EXPECT_FALSE(spec->evaluation.has_value());
  EXPECT_FALSE(spec->output_dtype.has_value());
  EXPECT_EQ(spec->dtype, checkpoint::DType::kBF16);
  EXPECT_EQ(spec->device, "auto");
}

TEST(JobSpecTest, ReadsWhatItWrites) {
  Json json = Smallest();
  json["factorization"] = {
      {"preconditioner", "PRECONDITIONER_COVARIANCE"},
      {"damping", "0.25"},
      {"allocation", "RANK_ALLOCATION_PROFILE"},
      {"rankProfile",
       {{"layers", {{{"rankK", 3}, {"rankV", "4"}}, {{"layer", 1}, {"rankK", 5}, {"rankV", 6}}}}}}};
  json["calibration"]["seed"] = "18446744073709551615";
  json["evaluation"] = {{"corpus", {{"uri", "/e.jsonl"}, {"textField", "body"}}}, {"windows", 3}};
  json["output"]["dtype"] = "DATA_TYPE_FLOAT16";
  json["dtype"] = "DATA_TYPE_FLOAT32";
  json["deadline"] = "3600s";
  const auto spec = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->seed, UINT64_MAX);
  EXPECT_EQ(spec->factorization.preconditioner.damping, 0.25);
  EXPECT_EQ(spec->factorization.rank_profile, (factorize::RankProfile{{3, 4}, {5, 6}}));
  EXPECT_EQ(spec->evaluation->text_field, "body");
  EXPECT_EQ(spec->output_dtype, checkpoint::DType::kF16);
  const Json written = JobSpecToJson(*spec);
  const auto again = ParseJobSpec(WriteJson(written));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(JobSpecToJson(*again), written);
}

TEST(JobSpecTest, HealingSearchAndGateAreReadAndWritten) {
  Json json = Smallest();
  json["healing"] = Json::object();
  const auto defaults = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  ASSERT_TRUE(defaults->healing.has_value());
  EXPECT_EQ(defaults->healing->tokens, kDefaultHealingTokens);
  EXPECT_EQ(defaults->healing->learning_rate, 0);
  json["healing"] = {{"tokens", "4096"},
                     {"sequenceLength", 64},
                     {"batchSequences", 3},
                     {"learningRate", 1e-3},
                     {"warmupSteps", 0},
                     {"weightDecay", 0.5},
                     {"evaluateEvery", 7},
                     {"attentionLoss", 0.25},
                     {"corpora", {{{"uri", "/h.txt"}, {"weight", 2}}}}};
  json["budget"] = {{"maxPerplexityRatio", 1.1}};
  json["evaluation"] = {{"qualityGate", 1.2}};
  const auto spec = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->healing->tokens, 4096);
  EXPECT_EQ(spec->healing->attention_loss, 0.25);
  EXPECT_EQ(spec->healing->warmup_steps, 0);
  EXPECT_EQ(spec->healing->corpora[0].weight, 2);
  EXPECT_EQ(spec->max_perplexity_ratio, 1.1);
  EXPECT_EQ(spec->quality_gate, 1.2);
  const Json written = JobSpecToJson(*spec);
  const auto again = ParseJobSpec(WriteJson(written));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(JobSpecToJson(*again), written);
}

TEST(JobSpecTest, LowRankIsReadAndWritten) {
  Json json = Smallest();
  json["method"] = "METHOD_LOW_RANK";
  json["budget"] = {{"parameterRatio", 0.3}};
  const auto defaults = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  ASSERT_TRUE(defaults->low_rank.has_value());
  EXPECT_TRUE(defaults->low_rank->loss_aware && defaults->low_rank->global_ranks);
  EXPECT_EQ(defaults->low_rank->layout, checkpoint::RankRule::kBlockIdentity);
  EXPECT_FALSE(defaults->low_rank->joint_query_key);
  json["factorization"] = {{"preconditioner", "PRECONDITIONER_ROOT_COVARIANCE"}};
  const auto published = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_FALSE(published->low_rank->loss_aware || published->low_rank->global_ranks);
  EXPECT_TRUE(published->low_rank->joint_query_key && published->low_rank->joint_value_output);
  json["factorization"] = {{"preconditioner", "PRECONDITIONER_DIAGONAL_HESSIAN"},
                           {"damping", 0.25},
                           {"allocation", "RANK_ALLOCATION_UNIFORM"},
                           {"rankMultiple", 8}};
  json["lowRank"] = {{"layout", "FACTOR_LAYOUT_PLAIN"},
                     {"queryKey", "JOINT_MODE_LOCAL"},
                     {"valueOutput", "JOINT_MODE_LOCAL"},
                     {"mlp", "MLP_COMPRESSION_ALTERNATION"},
                     {"biasUpdate", true},
                     {"activations", "ACTIVATION_SOURCE_COMPRESSED"},
                     {"literalHessian", true}};
  const auto spec = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->low_rank->ratio, 0.3);
  EXPECT_EQ(spec->low_rank->rank_multiple, 8);
  EXPECT_EQ(spec->low_rank->mlp, MlpCompression::kAlternation);
  EXPECT_TRUE(spec->low_rank->bias_update && spec->low_rank->compressed_activations &&
              spec->low_rank->literal_hessian);
  EXPECT_FALSE(spec->low_rank->joint_query_key || spec->low_rank->joint_value_output);
  const Json written = JobSpecToJson(*spec);
  EXPECT_EQ(written["lowRank"], json["lowRank"]);
  const auto again = ParseJobSpec(WriteJson(written));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(JobSpecToJson(*again), written);
}

TEST(JobSpecTest, LowRankTakesNothingOfOtherMethods) {
  const auto message = [](const Json& change) {
    Json json = Smallest();
    json["method"] = "METHOD_LOW_RANK";
    json["budget"] = {{"parameterRatio", 0.3}};
    json.merge_patch(change);
    const absl::Status status = ParseJobSpec(WriteJson(json)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({{"budget", {{"parameterRatio", 1}}}}),
              HasSubstr("\"parameterRatio\" is 1, expected more than 0"));
  EXPECT_THAT(message({{"budget", {{"kvBudget", 0.5}}}}), HasSubstr("kvBudget"));
  EXPECT_THAT(message({{"factorization", {{"latent", "LATENT_LAYOUT_JOINT"}}}}),
              HasSubstr("latent"));
  EXPECT_THAT(message({{"factorization",
                        {{"preconditioner", "PRECONDITIONER_IDENTITY"},
                         {"allocation", "RANK_ALLOCATION_GLOBAL"}}}}),
              HasSubstr("RANK_ALLOCATION_UNIFORM without PRECONDITIONER_FISHER"));
  EXPECT_THAT(message({{"factorization", {{"preconditioner", "PRECONDITIONER_IDENTITY"}}},
                       {"lowRank", {{"queryKey", "JOINT_MODE_JOINT"}}}}),
              HasSubstr("queryKey"));
  EXPECT_THAT(message({{"lowRank", {{"literalHessian", true}}}}), HasSubstr("literalHessian"));
  EXPECT_THAT(message({{"healing", {{"tokens", 512}}}}), HasSubstr("healing"));
  // And the other way round.
  Json json = Smallest();
  json["lowRank"] = Json::object();
  EXPECT_THAT(std::string(ParseJobSpec(WriteJson(json)).status().message()), HasSubstr("lowRank"));
}

TEST(JobSpecTest, DefaultsDependOnThePreconditioner) {
  Json json = Smallest();
  const auto fisher = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(fisher.ok()) << fisher.status();
  EXPECT_TRUE(fisher->factorization.loss_aware);
  EXPECT_TRUE(fisher->factorization.joint);
  EXPECT_EQ(fisher->factorization.allocation, factorize::RankAllocation::kGlobal);
  EXPECT_EQ(fisher->factorization.loss_metric.sink_weight, kDefaultSinkWeight);
  EXPECT_EQ(fisher->labels, calibrate::FisherLabels::kSampled);
  json["factorization"] = {{"preconditioner", "PRECONDITIONER_ROOT_COVARIANCE"}};
  const auto care = ParseJobSpec(WriteJson(json));
  ASSERT_TRUE(care.ok()) << care.status();
  EXPECT_FALSE(care->factorization.loss_aware);
  EXPECT_FALSE(care->factorization.joint);
  EXPECT_EQ(care->factorization.allocation, factorize::RankAllocation::kUniform);
  EXPECT_TRUE(JobSpecToJson(*fisher)["factorization"].contains("sinkWeight"));
  EXPECT_FALSE(JobSpecToJson(*care)["factorization"].contains("sinkWeight"));
}

TEST(JobSpecTest, AnchoredIsAskedFor) {
  Json json = Smallest();
  EXPECT_FALSE(ParseJobSpec(WriteJson(json))->factorization.anchored);
  for (const bool anchored : {false, true}) {
    json["factorization"] = {{"anchored", anchored}};
    const auto spec = ParseJobSpec(WriteJson(json));
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->factorization.anchored, anchored);
    // Also what makes it another job.
    EXPECT_EQ(JobSpecToJson(*spec)["factorization"]["anchored"], anchored);
  }
}

TEST(JobSpecTest, WhatOnlyTheServerNeedsIsTaken) {
  Json json = Smallest();
  json["workerSelector"] = {{"zone", "a"}};
  json["priority"] = "PRIORITY_HIGH";
  EXPECT_TRUE(ParseJobSpec(WriteJson(json)).ok());
  json["workerSelector"] = "zone=a";
  EXPECT_THAT(std::string(ParseJobSpec(WriteJson(json)).status().message()),
              testing::HasSubstr("workerSelector"));
}

TEST(JobSpecTest, DampingOfZeroIsNotTheDefault) {
  Json json = Smallest();
  json["factorization"] = {{"damping", 0}};
  EXPECT_EQ(ParseJobSpec(WriteJson(json))->factorization.preconditioner.damping, 0);
}

TEST(JobSpecTest, ErrorsNameKeyValueAndExpectation) {
  struct Case {
    const char* patch;
    const char* text;
    absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  };
  const Case cases[] = {
      {R"({"sauce":{}})", "unknown key \"sauce\""},
      {R"({"budget":{"kvBudget":0}})", "\"kvBudget\" is 0, expected more than 0"},
      {R"({"budget":{"kvBudget":1.5}})", "\"kvBudget\" is 1.5"},
      {R"({"budget":{"kvBudget":-1}})", "\"kvBudget\" is -1"},
      {R"({"budget":{"kvBudget":"NaN"}})", "a finite number"},
      {R"({"budget":{"kv":1}})", "unknown key \"kv\""},
      {R"({"source":{"uri":"s3://b/k"}})", "s3"},
      {R"({"source":{"uri":"model"}})", "source: uri"},
      {R"({"source":{"uri":7}})", "expected a string"},
      {R"({"method":"METHOD_MAGIC"})", "METHOD_KV_LATENT"},
      {R"({"method":"METHOD_FULL_MLA"})", "METHOD_FULL_MLA", absl::StatusCode::kUnimplemented},
      {R"({"calibration":{"corpora":[]}})", "at least one corpus"},
      {R"({"calibration":{"corpora":[{"uri":"/c","weight":-1}]}})", "\"weight\" is -1"},
      {R"({"calibration":{"corpora":[{"weight":1}]}})", "corpora[0] lacks \"uri\""},
      {R"({"calibration":{"corpora":[{"uri":"/c"}],"sequences":-3}})", "\"sequences\" is -3"},
      {R"({"calibration":{"corpora":[{"uri":"/c"}],"seed":-1}})", "\"seed\" is -1"},
      {R"({"evaluation":{"windowLength":1}})", "\"windowLength\" is 1"},
      {R"({"factorization":{"damping":-0.1}})", "\"damping\" is -0.1"},
      {R"({"factorization":{"preconditioner":"SVD"}})", "PRECONDITIONER_IDENTITY"},
      {R"({"factorization":{"allocation":"RANK_ALLOCATION_PROFILE"}})", "lacks \"layers\""},
      {R"({"factorization":{"rankProfile":{"layers":[{"rankK":1,"rankV":1}]}}})",
       "RANK_ALLOCATION_PROFILE where a rank profile is given"},
      {R"({"factorization":{"allocation":"RANK_ALLOCATION_PROFILE",
           "rankProfile":{"layers":[{"layer":1,"rankK":1,"rankV":1}]}}})",
       "layer is 1, expected 0", absl::StatusCode::kOutOfRange},
      {R"({"factorization":{"preconditioner":"PRECONDITIONER_IDENTITY",
           "allocation":"RANK_ALLOCATION_GLOBAL"}})",
       "\"allocation\" is \"RANK_ALLOCATION_GLOBAL\", expected another"},
      {R"({"factorization":{"preconditioner":"PRECONDITIONER_IDENTITY",
           "latent":"LATENT_LAYOUT_JOINT"}})",
       "expected LATENT_LAYOUT_SEPARATE"},
      {R"({"factorization":{"preconditioner":"PRECONDITIONER_IDENTITY","sinkWeight":0.5}})",
       "\"sinkWeight\" is 0.5, expected none without PRECONDITIONER_FISHER"},
      {R"({"factorization":{"latent":"LATENT_LAYOUT_JOINT","allocation":"RANK_ALLOCATION_CARE"}})",
       "with a joint latent"},
      {R"({"factorization":{"rankMultiple":8,"allocation":"RANK_ALLOCATION_CARE"}})",
       "\"rankMultiple\" is 8, expected 1"},
      {R"({"factorization":{"sinkWeight":1.5}})", "\"sinkWeight\" is 1.5"},
      {R"({"budget":{"maxPerplexityRatio":1}})",
       "\"maxPerplexityRatio\" is 1, expected more than 1"},
      {R"({"budget":{"maxPerplexityRatio":1.1,"kvBudget":0.5}})",
       "\"kvBudget\" is 0.5, expected none"},
      {R"({"budget":{"maxPerplexityRatio":1.1},
           "factorization":{"preconditioner":"PRECONDITIONER_IDENTITY"}})",
       "maxPerplexityRatio needs PRECONDITIONER_FISHER"},
      {R"({"factorization":{"preconditioner":"PRECONDITIONER_IDENTITY","anchored":true}})",
       "\"anchored\" is true, expected false without PRECONDITIONER_FISHER"},
      {R"({"factorization":{"anchored":"yes"}})", "\"anchored\" is \"yes\""},
      {R"({"budget":{"maxPerplexityRatio":1.1},"factorization":{"anchored":true}})",
       "factorization.anchored is true, expected false beside budget.maxPerplexityRatio"},
      {R"({"evaluation":{"qualityGate":0.9}})",
       "\"qualityGate\" is 0.9, expected a perplexity ratio"},
      {R"({"healing":{"tokens":-5}})", "\"tokens\" is -5"},
      {R"({"healing":{"sequenceLength":1}})", "\"sequenceLength\" is 1, expected at least 2"},
      {R"({"healing":{"learningRate":1.5}})", "\"learningRate\" is 1.5"},
      {R"({"healing":{"weightDecay":-1}})", "\"weightDecay\" is -1"},
      {R"({"healing":{"attentionLoss":-1}})", "\"attentionLoss\" is -1"},
      {R"({"healing":{"corpora":[{"uri":""}]}})", "corpora[0]"},
      {R"({"healing":{"steps":1}})", "unknown key \"steps\""},
      {R"({"bugdet":{}})", "job spec has the unknown key \"bugdet\"; did you mean budget?"},
      {R"({"ttl":7})", "\"ttl\" is 7"},
      {R"({"budget":{"kvBugdet":0.5}})",
       "job spec: budget has the unknown key \"kvBugdet\", expected one of kvBudget, "
       "maxPerplexityRatio; did you mean kvBudget?"},
      {R"({"dtype":"DATA_TYPE_FLOAT16"})", "float16 is for output only"},
      {R"({"threads":-2})", "\"threads\" is -2"},
  };
  for (const Case& c : cases) {
    Json json = Smallest();
    json.update(ParseJson(c.patch).value());
    const auto spec = ParseJobSpec(WriteJson(json));
    EXPECT_EQ(spec.status().code(), c.code) << c.patch;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(c.text)) << c.patch;
  }
  for (const char* text : {"", "[]", "{", "null", "{\"a\":1,\"a\":2}"}) {
    EXPECT_EQ(ParseJobSpec(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace latentforge::convert
