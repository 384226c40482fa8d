// Jobs whose layers are factorised against what the converted ones before feed them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "absl/strings/match.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/worker/convert/run_job.h"
#include "worker/convert/error_reason.h"
#include "worker/model/weights.h"

namespace latentforge::convert {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Json ReportOf(const TinyJob& job) {
  return ParseJson(ReadFile(job.out() / "report.json").value()).value();
}

TinyJob AnchoredJob(const std::string& name, bool anchored = true, bool joint = true,
                    double budget = 0.5) {
  TinyJob job(name, {.num_layers = 3, .scale = 0.5});
  job.spec["budget"]["kvBudget"] = budget;
  // Uniform ranks: no layer is dense unless all are.
  job.spec["factorization"] = {
      {"anchored", anchored},
      {"allocation", "RANK_ALLOCATION_UNIFORM"},
      {"latent", joint ? "LATENT_LAYOUT_JOINT" : "LATENT_LAYOUT_SEPARATE"}};
  return job;
}

// W_K and W_V of a layer of the published artifact, as products of its factors, fp64.
std::array<at::Tensor, 2> Maps(const TinyJob& job, int64_t layer) {
  const auto artifact = checkpoint::Checkpoint::Open(job.out()).value();
  const auto weights = model::WeightLoader(artifact, at::kCPU, at::kDouble).Layer(layer).value();
  return {at::matmul(weights.k.up, weights.k.down), at::matmul(weights.v.up, weights.v.down)};
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

TEST(AnchoredJobTest, PublishesWhatItMeasuredAndLeavesTheFirstLayerAsItIs) {
  for (const bool joint : {true, false}) {
    const TinyJob plain = AnchoredJob("anchored_not", false, joint);
    ASSERT_TRUE(RunJob(plain).status.ok());
    const TinyJob job = AnchoredJob("anchored", true, joint);
    const Outcome outcome = RunJob(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const Json report = ReportOf(job);
    EXPECT_DOUBLE_EQ(EvaluateAgain(job)["perplexity"].get<double>(),
                     report["perplexity"]["converted"].get<double>());
    EXPECT_NE(report["perplexity"]["converted"], ReportOf(plain)["perplexity"]["converted"]);
    EXPECT_EQ(report["settings"]["factorization"]["anchored"], true);
    EXPECT_EQ(ReportOf(plain)["settings"]["factorization"]["anchored"], false);
    EXPECT_THAT(ReadFile(job.out() / "README.md").value(), HasSubstr("(the anchored pass)"));
    // Ranks are chosen as without it.
    EXPECT_EQ(outcome.events.back()["result"]["rankProfile"],
              RunJob(plain).events.back()["result"]["rankProfile"]);
    // fp32 products, in another order, of a few hundred tokens: 1e-6, over the smallest gap of
    // the eigenvalues that are cut, above 1e-2. Damping takes no part where both streams are one.
    for (const int half : {0, 1}) {
      EXPECT_LT(Difference(Maps(job, 0)[half], Maps(plain, 0)[half]), 1e-4);
      EXPECT_GT(Difference(Maps(job, 2)[half], Maps(plain, 2)[half]), 1e-3);
    }
    for (const Json& layer : report["layers"]) {
      EXPECT_GT(layer["relative_error_v"].get<double>(), 0);
      EXPECT_LT(layer["relative_error_v"].get<double>(), 1);
    }
  }
}

// With the whole cache every layer stays the original's.
TEST(AnchoredJobTest, DenseLayersStayTheOriginals) {
  const TinyJob plain = AnchoredJob("anchored_dense_not", false, true, 1);
  const TinyJob job = AnchoredJob("anchored_dense", true, true, 1);
  ASSERT_TRUE(RunJob(plain).status.ok());
  ASSERT_TRUE(RunJob(job).status.ok());
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(plain.out()));
}

TEST(AnchoredJobTest, OnlyTheOtherProjectionIsAnchoredWhereOneIsDense) {
  const auto profile = [](TinyJob job) {
    Json layers = Json::array();
    for (int layer = 0; layer < 3; ++layer) {
      layers.push_back({{"layer", layer}, {"rankK", 16}, {"rankV", 8}});
    }
    job.spec["factorization"]["allocation"] = "RANK_ALLOCATION_PROFILE";
    job.spec["factorization"]["rankProfile"] = {{"layers", layers}};
    job.spec["budget"]["kvBudget"] = 0.75;
    return job;
  };
  const TinyJob job = profile(AnchoredJob("anchored_half", true, false));
  const Outcome outcome = RunJob(job);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const auto source = checkpoint::Checkpoint::Open(job.root / "model").value();
  const auto artifact = checkpoint::Checkpoint::Open(job.out()).value();
  const std::string key = checkpoint::LayerTensor(2, "self_attn.k_proj.weight");
  EXPECT_EQ(artifact.Tensor(key)->bytes, source.Tensor(key)->bytes);
  const TinyJob plain = profile(AnchoredJob("anchored_half_not", false, false));
  ASSERT_TRUE(RunJob(plain).status.ok());
  EXPECT_NE(ArtifactDigest(job.out()), ArtifactDigest(plain.out()));
}

// The events of the factorisation, one a batch.
std::vector<int> FactorizingEvents(const std::vector<Json>& events) {
  std::vector<int> found;
  int at = 0;
  for (const Json& event : events) {
    ++at;
    if (event.contains("progress") && event["progress"]["phase"] == "PHASE_FACTORIZING") {
      found.push_back(at);
    }
  }
  return found;
}

TEST(AnchoredJobTest, StopsAnywhereAndGoesOnWithTheSameBytes) {
  const TinyJob whole = AnchoredJob("anchored_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const std::string expected = ArtifactDigest(whole.out());
  // Moments and two streams of two layers, and moments of the last one.
  const std::vector<int> events = FactorizingEvents(reference.events);
  EXPECT_GE(events.size(), 7u);
  int with_streams = 0;
  for (const int at : events) {
    for (const bool other_boot : {false, true}) {
      const TinyJob job = AnchoredJob("anchored_stop");
      ASSERT_TRUE(absl::IsCancelled(RunJob(job, at).status)) << at;
      const std::vector<std::string> names = ListDirectory(job.work() / "factorize").value();
      for (const std::string& name : names) {
        if (!absl::EndsWith(name, ".bin")) continue;
        ++with_streams;
        if (!other_boot) continue;
        // A restart of the machine leaves unsynced files with their names, not their blocks.
        const fs::path path = job.work() / "factorize" / name;
        ASSERT_TRUE(WriteFileAtomic(path, std::string(fs::file_size(path), '\0')).ok());
      }
      if (other_boot) {
        Json state = ParseJson(ReadFile(job.work() / "state.json").value()).value();
        state["boot_id"] = "another";
        ASSERT_TRUE(WriteFileAtomic(job.work() / "state.json", WriteJson(state)).ok());
      }
      const Outcome second = RunJob(job);
      ASSERT_TRUE(second.status.ok()) << second.status;
      EXPECT_EQ(ArtifactDigest(job.out()), expected) << "stopped at event " << at;
    }
  }
  EXPECT_GT(with_streams, 0);
}

TEST(AnchoredJobTest, DamagedFactorsAreMadeAgain) {
  const TinyJob whole = AnchoredJob("anchored_damaged_whole");
  const Outcome reference = RunJob(whole);
  ASSERT_TRUE(reference.status.ok()) << reference.status;
  const TinyJob job = AnchoredJob("anchored_damaged");
  ASSERT_TRUE(absl::IsCancelled(RunJob(job, FactorizingEvents(reference.events).back()).status));
  const fs::path factors = job.work() / "factorize" / "layer.0.safetensors";
  ASSERT_TRUE(WriteFileAtomic(factors, "damaged").ok());
  for (const fs::directory_entry& entry : fs::directory_iterator(job.work() / "factorize")) {
    if (entry.path().extension() == ".bin") fs::remove(entry.path());
  }
  const Outcome damaged = RunJob(job);
  EXPECT_EQ(DescribeError(damaged.status).reason, "CHECKPOINT_CORRUPT") << damaged.status;
  EXPECT_TRUE(DescribeError(damaged.status).retryable);
  const Outcome third = RunJob(job);
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_EQ(ArtifactDigest(job.out()), ArtifactDigest(whole.out()));
}

TEST(AnchoredJobTest, CountsItsTokens) {
  const Outcome outcome = RunJob(AnchoredJob("anchored_tokens"));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  for (const Json& event : outcome.events) {
    if (event.contains("phaseFinished") && event["phaseFinished"]["phase"] == "PHASE_FACTORIZING") {
      EXPECT_EQ(event["phaseFinished"]["tokens"], "256");
    }
  }
}

}  // namespace
}  // namespace latentforge::convert
