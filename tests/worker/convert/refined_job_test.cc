// Jobs that look for a budget, heal, or have a quality gate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"
#include "worker/convert/phase_search.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json ReportOf(const TinyJob& job) {
  return ParseJson(ReadFile(job.out() / "report.json").value()).value();
}

TinyJob HealedJob(const std::string& name) {
  TinyJob job(name, {.scale = 0.5});
  job.spec["healing"] = {{"tokens", "630"},
                         {"sequenceLength", 32},
                         {"batchSequences", 2},
                         {"learningRate", 0.0003},
                         {"evaluateEvery", 3}};
  return job;
}

TEST(HealingJobTest, HealsAndReports) {
  const TinyJob job = HealedJob("healing");
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(Phases(outcome, "phaseFinished"),
              ElementsAre("PHASE_FETCHING", "PHASE_CALIBRATING", "PHASE_FACTORIZING",
                          "PHASE_FINE_TUNING", "PHASE_EVALUATING", "PHASE_PUBLISHING"));
  int steps = 0;
  std::string texts;
  for (const Json& event : outcome.events) {
    if (event.contains("log")) texts += event["log"]["text"].get<std::string>() + "\n";
    if (event.contains("healing") && !event["healing"].contains("divergence")) ++steps;
  }
  EXPECT_EQ(steps, 10);
  EXPECT_THAT(texts, HasSubstr("healing trains on 640 tokens where 630 were asked for: whole "
                               "sequences of 32\n"));
  const Json settings = ReportOf(job)["settings"];
  EXPECT_EQ(settings["output"]["dtype"], "DATA_TYPE_FLOAT32");
  EXPECT_EQ(settings["threads"], 1);
  EXPECT_EQ(settings["device"], "cpu");
  const Json healing = ReportOf(job)["healing"];
  EXPECT_EQ(healing["tokens"], 640);
  EXPECT_EQ(healing["steps"], 10);
  EXPECT_EQ(healing["history"].size(), 10u);
  // Before the first step, after 3, 6, 9 and the last one.
  ASSERT_EQ(healing["measurements"].size(), 5u);
  const double before = healing["measurements"][0]["divergence"];
  const double after = healing["measurements"][4]["divergence"];
  EXPECT_LT(after, before);
  EXPECT_TRUE(ReportOf(job)["perplexity"].contains("factorized"));
  // Not what the same job gives without healing.
  TinyJob plain("healing_not", {.scale = 0.5});
  ASSERT_TRUE(RunJob(plain).status.ok());
  EXPECT_EQ(ReportOf(plain)["perplexity"]["converted"], ReportOf(job)["perplexity"]["factorized"]);
  EXPECT_NE(ArtifactDigest(plain.out()), ArtifactDigest(job.out()));
}

TEST(HealingJobTest, TrainsTheWholeAttentionOrTheLatentsAlone) {
  for (const bool attention : {false, true}) {
    TinyJob job = HealedJob(attention ? "healing_attention" : "healing_latents");
    job.spec["healing"]["weights"] =
        attention ? "HEALED_WEIGHTS_ATTENTION" : "HEALED_WEIGHTS_LATENTS";
    ASSERT_TRUE(RunJob(job).status.ok());
    const auto source = checkpoint::Checkpoint::Open(job.root / "model").value();
    const auto artifact = checkpoint::Checkpoint::Open(job.out()).value();
    const auto changed = [&](const char* name) {
      const std::string tensor = checkpoint::LayerTensor(1, name);
      return source.Tensor(tensor)->bytes != artifact.Tensor(tensor)->bytes;
    };
    EXPECT_EQ(changed("self_attn.q_proj.weight"), attention);
    EXPECT_EQ(changed("self_attn.o_proj.weight"), attention);
    EXPECT_FALSE(changed("mlp.down_proj.weight"));
    const Json report = ReportOf(job);
    EXPECT_EQ(report["healing"]["weights"], attention ? "attention" : "latents");
    const Json& measured = report["healing"]["measurements"];
    EXPECT_LT(measured.back()["divergence"].get<double>(), measured[0]["divergence"].get<double>());
    // What was measured is what was published.
    EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(),
                     report["perplexity"]["converted"].get<double>());
  }
}

TEST(HealingJobTest, StopsAnywhereAndGoesOnWithTheSameBytes) {
  const TinyJob whole = HealedJob("healing_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const std::string expected = ArtifactDigest(whole.out());
  int at = 0;
  for (const Json& event : reference.events) {
    ++at;
    if (!event.contains("healing")) continue;
    const TinyJob job = HealedJob("healing_stop");
    ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status)) << at;
    const Outcome second = RunJob(job);
    ASSERT_TRUE(second.status.ok()) << second.status;
    EXPECT_EQ(ArtifactDigest(job.out()), expected) << "stopped at event " << at;
    EXPECT_EQ(ReportOf(job)["healing"]["history"], ReportOf(whole)["healing"]["history"]);
  }
}

TEST(HealingJobTest, AStateThatDoesNotFitIsRemovedAndTheNextAttemptStartsAgain) {
  const TinyJob job = HealedJob("healing_damaged");
  const Outcome reference = RunJob(HealedJob("healing_count"));
  int at = 0, steps = 0;
  for (const Json& event : reference.events) {
    ++at;
    if (event.contains("healing") && ++steps == 6) break;
  }
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status));
  const fs::path state = job.work() / "finetune" / "state.safetensors";
  ASSERT_TRUE(fs::exists(state));
  fs::copy_file(job.work() / "factorize" / "layer.0.safetensors", state,
                fs::copy_options::overwrite_existing);
  const Outcome damaged = RunJob(job);
  EXPECT_EQ(DescribeError(damaged.status).reason, "CHECKPOINT_CORRUPT") << damaged.status;
  EXPECT_TRUE(DescribeError(damaged.status).retryable);
  EXPECT_FALSE(fs::exists(state));
  EXPECT_TRUE(RunJob(job).status.ok());
}

TEST(HealingJobTest, NeedsEnoughText) {
  TinyJob job = HealedJob("healing_short");
  ASSERT_TRUE(WriteFileAtomic(job.root / "heal.txt", RandomText(63, 3)).ok());
  job.spec["healing"]["corpora"] = {{{"uri", (job.root / "heal.txt").string()}}};
  const Outcome outcome = RunJob(job);
  EXPECT_EQ(DescribeError(outcome.status).reason, "TOO_FEW_TOKENS");
  EXPECT_THAT(outcome.status.message(), HasSubstr("heal.txt has 63 tokens"));
}

// Of a random model on a random text, which a conversion may make better or worse.
TinyJob GatedJob(const std::string& name, uint64_t text_seed) {
  TinyJob job(name);
  EXPECT_TRUE(WriteFileAtomic(job.root / "eval.txt", RandomText(200, text_seed)).ok());
  job.spec["budget"]["kvBudget"] = 0.1;
  job.spec["factorization"] = {{"preconditioner", "PRECONDITIONER_IDENTITY"}};
  return job;
}

TEST(QualityGateTest, FailsTheJobAndKeepsTheReport) {
  uint64_t seed = 1;
  double ratio = 0;
  for (; ratio <= 1 && seed < 20; ++seed) {
    const TinyJob job = GatedJob("gate_none", seed + 1);
    ASSERT_TRUE(RunJob(job).status.ok());
    ratio = ReportOf(job)["perplexity"]["ratio"];
  }
  ASSERT_GT(ratio, 1);
  TinyJob loose = GatedJob("gate_loose", seed);
  loose.spec["evaluation"]["qualityGate"] = ratio;
  EXPECT_TRUE(RunJob(loose).status.ok());

  TinyJob job = GatedJob("gate", seed);
  job.spec["evaluation"]["qualityGate"] = 1;
  const Outcome outcome = RunJob(job);
  const ErrorInfo error = DescribeError(outcome.status);
  EXPECT_EQ(error.reason, "QUALITY_GATE_FAILED");
  EXPECT_FALSE(error.retryable);
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("expected at most 1;"));
  EXPECT_THAT(job.Outputs(), ElementsAre("out.report.json"));
  const Json report = ParseJson(ReadFile(job.root / "out.report.json").value()).value();
  EXPECT_EQ(report["perplexity"]["ratio"].get<double>(), ratio);

  ASSERT_TRUE(WriteFileAtomic(job.root / "out.report.json", "an earlier one").ok());
  EXPECT_THAT(std::string(RunJob(job).status.message()), HasSubstr("out.report-2.json"));
  EXPECT_THAT(job.Outputs(), ElementsAre("out.report-2.json", "out.report.json"));
  EXPECT_EQ(ReadFile(job.root / "out.report.json").value(), "an earlier one");
}

TinyJob SearchJob(const std::string& name, double ratio) {
  TinyJob job(name, {.num_layers = 3, .scale = 0.5});
  job.spec["budget"] = {{"maxPerplexityRatio", ratio}};
  return job;
}

TEST(BudgetSearchJobTest, KeepsTheRatioAndReportsWhatItMeasured) {
  const TinyJob job = SearchJob("search", 1.02);
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json report = ReportOf(job);
  EXPECT_LE(report["perplexity"]["ratio"].get<double>(), 1.02);
  EXPECT_LT(report["kv_cache"]["ratio"].get<double>(), 1);
  const Json& measured = report["prediction"]["measured"];
  ASSERT_GE(measured.size(), 2u);
  bool found = false;
  for (const Json& point : measured) {
    if (point["kv_ratio"] == report["kv_cache"]["ratio"]) {
      found = true;
      EXPECT_DOUBLE_EQ(point["loss"], std::log(report["perplexity"]["ratio"].get<double>()));
    } else if (point["kv_ratio"] < report["kv_cache"]["ratio"]) {
      EXPECT_GT(point["loss"].get<double>(), std::log(1.02));
    }
  }
  EXPECT_TRUE(found);
  // The evaluation takes over what the search measured; it is what was shipped.
  for (const Json& event : outcome.events) {
    if (event.contains("phaseFinished") && event["phaseFinished"]["phase"] == "PHASE_EVALUATING") {
      EXPECT_EQ(event["phaseFinished"]["tokens"], "0");
    }
    if (event.contains("phaseStarted")) {
      EXPECT_EQ(event["phaseStarted"]["resumed"], false);
    }
  }
  EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(),
                   report["perplexity"]["converted"].get<double>());
}

// A job that was stopped in its search, and whose perplexity overflows with a cache of `values`.
TinyJob OverflowingJob(const std::string& name, int64_t values) {
  const TinyJob job = SearchJob(name, 1.02);
  bool searching = false;
  for (int at = 1; !searching && at < 500; ++at) {
    EXPECT_TRUE(absl::IsCancelled(RunJob(job, at).status)) << at;
    searching = fs::exists(job.work() / "evaluate" / "base.json");
  }
  const std::string windows = absl::StrCat("candidate-", values, ".json");
  EXPECT_TRUE(
      WriteFileAtomic(job.work() / "evaluate" / windows, R"({"window_nll": [1000, 1000, 1000]})")
          .ok());
  return job;
}

// The number of the event that tells of it; 0: none.
int OverflowEvent(const Outcome& outcome) {
  for (size_t i = 0; i < outcome.events.size(); ++i) {
    const std::string text = outcome.events[i].value("/log/text"_json_pointer, "");
    if (text.find("perplexity ratio inf, above 1.02") != std::string::npos) return int(i) + 1;
  }
  return 0;
}

TEST(BudgetSearchJobTest, ACandidateWithoutAFiniteLikelihoodFailsAlone) {
  const TinyJob whole = SearchJob("search_finite", 1.02);
  ASSERT_TRUE(RunJob(whole).status.ok());
  const Json finite = ReportOf(whole);
  const double best = finite["kv_cache"]["ratio"];
  Json chosen;
  for (const Json& point : finite["prediction"]["measured"]) {
    if (point["kv_ratio"] == best) chosen = point["values_per_token"];
  }
  ASSERT_TRUE(chosen.is_number_integer());

  const TinyJob job = OverflowingJob("search_overflow", chosen);
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const int told = OverflowEvent(outcome);
  EXPECT_GT(told, 0);
  const Json report = ReportOf(job);
  EXPECT_GT(report["kv_cache"]["ratio"].get<double>(), best);
  EXPECT_LE(report["perplexity"]["ratio"].get<double>(), 1.02);
  for (const Json& point : report["prediction"]["measured"]) {
    EXPECT_NE(point["values_per_token"], chosen);
  }
  // Another attempt knows of it.
  const TinyJob again = OverflowingJob("search_overflow_again", chosen);
  const Outcome first = RunJob(again, told + 1);
  ASSERT_TRUE(absl::IsCancelled(first.status)) << first.status;
  ASSERT_GT(OverflowEvent(first), 0);
  const Outcome second = RunJob(again);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_EQ(OverflowEvent(second), 0);
  EXPECT_EQ(ArtifactDigest(again.out()), ArtifactDigest(job.out()));
}

TEST(BudgetSearchJobTest, OnlyNumbersThatAreNotFiniteMakeACandidateFail) {
  const evaluate::PerplexityResult result{.perplexity = 20};
  EXPECT_DOUBLE_EQ(*CandidateLoss(result, 10), std::log(2.0));
  EXPECT_EQ(*CandidateLoss(evaluate::PerplexityResult{.perplexity = HUGE_VAL}, 10), HUGE_VAL);
  EXPECT_EQ(*CandidateLoss(evaluate::PerplexityResult{.perplexity = std::nan("")}, 10), HUGE_VAL);
  const absl::Status broken = absl::DataLossError("layer 3, window 0: not finite");
  EXPECT_EQ(*CandidateLoss(WithReason(broken, "NUMERICAL_FAILURE"), 10), HUGE_VAL);
  EXPECT_EQ(CandidateLoss(WithReason(broken, "CHECKPOINT_CORRUPT"), 10).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(absl::IsCancelled(CandidateLoss(absl::CancelledError("stopped"), 10).status()));
}

TEST(BudgetSearchJobTest, ItsProgressNeverFallsAndLeavesRoomForEveryCandidate) {
  const Outcome outcome = RunJob(SearchJob("search_progress", 1.02));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  double before = 0;
  int candidates = 0;
  for (const Json& event : outcome.events) {
    if (!event.contains("progress")) continue;
    const Json& progress = event["progress"];
    if (progress["phase"] != "PHASE_FACTORIZING") continue;
    const double percent = progress["phasePercent"];
    EXPECT_GE(percent, before) << progress["detail"];
    before = percent;
    // The first measurement ends at a quarter of the search.
    if (candidates == 0) {
      EXPECT_LE(percent, 25) << progress["detail"];
    }
    if (progress["detail"].get<std::string>().find("candidate-") == 0) ++candidates;
  }
  EXPECT_GT(candidates, 1);
  EXPECT_EQ(before, 100);
}

TEST(BudgetSearchJobTest, StopsAnywhereAndGoesOnWithTheSameBytes) {
  const TinyJob whole = SearchJob("search_whole", 1.02);
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const std::string expected = ArtifactDigest(whole.out());
  const int events = int(reference.events.size());
  for (int at = 20; at <= events; at += 3) {
    const TinyJob job = SearchJob("search_stop", 1.02);
    const Outcome first = RunJob(job, at);
    if (!absl::IsCancelled(first.status)) continue;
    EXPECT_THAT(job.Outputs(), IsEmpty());
    const Outcome second = RunJob(job);
    ASSERT_TRUE(second.status.ok()) << second.status;
    EXPECT_EQ(ArtifactDigest(job.out()), expected) << "stopped at event " << at;
  }
}

}  // namespace
}  // namespace latentforge::convert
