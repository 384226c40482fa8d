#include "worker/convert/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/match.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/kv_budget.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/evaluate_command.h"
#include "worker/convert/work_dir.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(PipelineTest, ConvertsEndToEnd) {
  const TinyJob job("end_to_end");
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  for (size_t i = 0; i < outcome.events.size(); ++i) {
    EXPECT_EQ(outcome.events[i]["sequence"], std::to_string(i + 1));
  }
  const auto order = ElementsAre("PHASE_FETCHING", "PHASE_CALIBRATING", "PHASE_FACTORIZING",
                                 "PHASE_EVALUATING", "PHASE_PUBLISHING");
  EXPECT_THAT(Phases(outcome, "phaseStarted"), order);
  EXPECT_THAT(Phases(outcome, "phaseFinished"), order);
  double percent = 0;
  for (const Json& event : outcome.events) {
    if (!event.contains("progress")) continue;
    EXPECT_GE(event["progress"]["percent"].get<double>(),
              event["progress"]["phase"] == "PHASE_FETCHING" ? 0 : percent);
    if (event["progress"]["phase"] != "PHASE_FETCHING") percent = event["progress"]["percent"];
  }
  EXPECT_EQ(percent, 100);

  const Json result = outcome.events.back().at("result");
  // 2 layers of 16 + 16 values of four bytes.
  EXPECT_EQ(result["kvBytesPerTokenBase"], "256");
  EXPECT_EQ(result["kvBytesPerTokenConverted"], "128");
  EXPECT_EQ(result["manifestSha256"], Sha256File(job.out() / "manifest.json").value());
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  ASSERT_TRUE(artifact->config().latent.has_value());
  // The default: one latent for K and V, ranks by predicted loss, the budget spent.
  EXPECT_TRUE(artifact->config().latent->joint);
  EXPECT_EQ(artifact->config().latent->ranks[0].joint + artifact->config().latent->ranks[1].joint,
            32);

  // What was reported is what was shipped: the same windows through the artifact.
  const Json evaluated = EvaluateAgain(job);
  EXPECT_DOUBLE_EQ(evaluated["perplexity"].get<double>(),
                   result["perplexityConverted"].get<double>());
  EXPECT_EQ(evaluated["kv_bytes_per_token"], 128);

  const Json report = ParseJson(ReadFile(job.out() / "report.json").value()).value();
  EXPECT_EQ(report["perplexity"]["base"], result["perplexityBase"]);
  EXPECT_EQ(report["perplexity"]["converted"], result["perplexityConverted"]);
  EXPECT_EQ(report["layers"].size(), 2u);
  EXPECT_GT(report["layers"][0]["relative_error_k"].get<double>(), 0);
  EXPECT_THAT(job.Outputs(), ElementsAre("out"));
}

// What is measured is the artifact, also where its weights lose digits on the way to disk.
TEST(PipelineTest, ReportsTheArtifactInTheTypeThatItIsStoredIn) {
  TinyJob job("stored_type");
  job.spec["output"]["dtype"] = "DATA_TYPE_BFLOAT16";
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(),
                   outcome.events.back()["result"]["perplexityConverted"].get<double>());
}

TEST(PipelineTest, AnEvaluationRunsFromNothingToAllAndWarnsOfLongWindows) {
  const TinyJob job("evaluate_alone", {.max_position_embeddings = 16});
  const EvaluateRequest request{.model = job.root / "model",
                                .text = job.root / "eval.txt",
                                .windows = 3,
                                .window_length = 32,
                                .dtype = "float32",
                                .device = "cpu",
                                .threads = 1};
  const fs::path path = job.root / "events.jsonl";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const StepClock clock;
  EventWriter writer(fd.get(), clock);
  ASSERT_TRUE(Evaluate(request, &writer, StopToken(), clock).ok());
  const std::vector<Json> events = ReadEvents(path);
  EXPECT_EQ(events[0]["log"]["text"],
            "windows of 32 tokens are longer than the model's context of 16");
  EXPECT_EQ(events[1]["progress"]["percent"], 0.0);
  EXPECT_EQ(events.back()["progress"]["percent"], 100.0);
}

TEST(PipelineTest, ThePercentageRisesFromNothingToAllAlsoWithoutACalibration) {
  TinyJob job("percentage");
  for (const char* out : {"out", "out_2"}) {
    job.spec["output"]["uri"] = (job.root / out).string();
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    double last = 0;
    for (const Json& event : outcome.events) {
      if (!event.contains("progress")) continue;
      const double percent = event["progress"]["percent"].get<double>();
      EXPECT_GE(percent, last) << WriteJson(event);
      last = percent;
    }
    EXPECT_EQ(last, 100);
  }
}

TEST(PipelineTest, TheSameJobGivesTheSameBytes) {
  const TinyJob first("same_bytes_1");
  const TinyJob second("same_bytes_2");
  ASSERT_TRUE(RunJob(first).status.ok());
  ASSERT_TRUE(RunJob(second).status.ok());
  EXPECT_EQ(ArtifactDigest(first.out()), ArtifactDigest(second.out()));
  TinyJob other("same_bytes_3");
  other.spec["calibration"]["seed"] = "6";
  ASSERT_TRUE(RunJob(other).status.ok());
  EXPECT_NE(ArtifactDigest(first.out()), ArtifactDigest(other.out()));
}

TEST(PipelineTest, FullRanksChangeNothing) {
  TinyJob job("full_ranks");
  job.spec["budget"]["kvBudget"] = 1.0;
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json& result = outcome.events.back()["result"];
  EXPECT_EQ(result["perplexityBase"], result["perplexityConverted"]);
  EXPECT_EQ(result["kvBytesPerTokenBase"], result["kvBytesPerTokenConverted"]);
}

TEST(PipelineTest, EveryPreconditionerAndAllocationKeepsTheBudget) {
  const std::pair<const char*, const char*> settings[] = {
      {"PRECONDITIONER_IDENTITY", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_DIAGONAL_L1", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_DIAGONAL_L2", "RANK_ALLOCATION_CARE_CODE"},
      {"PRECONDITIONER_DIAGONAL_HESSIAN", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_COVARIANCE", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_ROOT_COVARIANCE", "RANK_ALLOCATION_CARE_CODE"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_CARE"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_UNIFORM"},
      {"PRECONDITIONER_FISHER", "RANK_ALLOCATION_GLOBAL"}};
  for (const auto& [preconditioner, allocation] : settings) {
    TinyJob job("settings",
                {.family = checkpoint::Family::kQwen2, .dtype = checkpoint::DType::kBF16});
    job.spec["budget"]["kvBudget"] = 0.4;
    job.spec["factorization"] = {{"preconditioner", preconditioner}, {"allocation", allocation}};
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << preconditioner << " " << outcome.status;
    const Json& result = outcome.events.back()["result"];
    EXPECT_EQ(result["kvBytesPerTokenBase"], "128");
    EXPECT_LE(std::stoi(result["kvBytesPerTokenConverted"].get<std::string>()), 51);
  }
}

TEST(PipelineTest, GivenRanksAreUsed) {
  TinyJob job("profile");
  job.spec["factorization"] = {{"allocation", "RANK_ALLOCATION_PROFILE"},
                               {"rankProfile",
                                {{"layers",
                                  {{{"layer", 0}, {"rankK", 16}, {"rankV", 3}},
                                   {{"layer", 1}, {"rankK", 4}, {"rankV", 9}}}}}}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["rankProfile"]["layers"][0]["rankK"], 16);
  job.spec["output"]["uri"] = (job.root / "out2").string();
  job.spec["budget"]["kvBudget"] = 0.49;
  EXPECT_EQ(DescribeError(RunJob(job).status).reason, "RANK_OUT_OF_RANGE");
}

TEST(PipelineTest, JointRanksCanBeGiven) {
  TinyJob job("joint_profile");
  job.spec["factorization"] = {
      {"allocation", "RANK_ALLOCATION_PROFILE"},
      {"rankProfile",
       {{"layers", {{{"layer", 0}, {"rankKv", 25}}, {{"layer", 1}, {"rankKv", 7}}}}}}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["rankProfile"]["layers"][0]["rankKv"], 25);
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->config().latent->ranks[1].joint, 7);
}

TEST(PipelineTest, RanksAreMultiplesWhereAskedFor) {
  TinyJob job("multiple");
  job.spec["factorization"] = {{"rankMultiple", 8}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  int64_t values = 0;
  for (const Json& layer : outcome.events.back()["result"]["rankProfile"]["layers"]) {
    EXPECT_EQ(layer["rankKv"].get<int64_t>() % 8, 0);
    values += layer["rankKv"].get<int64_t>();
  }
  EXPECT_EQ(values, 32);
}

TEST(PipelineTest, UniformRanksAreMultiplesToo) {
  for (const char* preconditioner : {"PRECONDITIONER_FISHER", "PRECONDITIONER_ROOT_COVARIANCE"}) {
    TinyJob job("uniform_multiple");
    job.spec["budget"]["kvBudget"] = 0.7;  // 11 of 16, 22 of 32
    job.spec["factorization"] = {{"preconditioner", preconditioner},
                                 {"allocation", "RANK_ALLOCATION_UNIFORM"},
                                 {"latent", "LATENT_LAYOUT_SEPARATE"},
                                 {"rankMultiple", 4}};
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    for (const Json& layer : outcome.events.back()["result"]["rankProfile"]["layers"]) {
      EXPECT_EQ(layer["rankK"], 8) << preconditioner;
      EXPECT_EQ(layer["rankV"], 8) << preconditioner;
    }
  }
}

TEST(PipelineTest, OneJointValueALayerIsEnough) {
  TinyJob job("smallest");
  job.spec["budget"]["kvBudget"] = 1.0 / 32;
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.events.back()["result"]["kvBytesPerTokenConverted"], "8");
}

TEST(PipelineTest, SeparateLatentsOfTheFisherInformation) {
  TinyJob job("separate");
  job.spec["factorization"] = {{"latent", "LATENT_LAYOUT_SEPARATE"}};
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto artifact = checkpoint::Checkpoint::Open(job.out());
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_FALSE(artifact->config().latent->joint);
  int64_t values = 0;
  for (const checkpoint::LayerRanks& ranks : artifact->config().latent->ranks) {
    values += ranks.total();
  }
  EXPECT_EQ(values, 32);
}

TEST(PipelineTest, HeldBackTextIsSaid) {
  TinyJob job("held_back");
  job.spec["evaluation"].erase("corpus");
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  std::vector<std::string> logs;
  for (const Json& event : outcome.events) {
    if (event.contains("log")) logs.push_back(event["log"]["text"]);
  }
  EXPECT_THAT(logs, Contains(HasSubstr("the last 96 tokens")));
  const Json report = ParseJson(ReadFile(job.out() / "report.json").value()).value();
  EXPECT_THAT(WriteJson(report["evaluation"]), HasSubstr("held back from the end of file://"));
}

}  // namespace
}  // namespace latentforge::convert
