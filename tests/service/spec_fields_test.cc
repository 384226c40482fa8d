#include "service/spec_fields.h"

#include <cmath>

#include "base/conversion_defaults.h"
#include "tests/service/validation_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using SpecFieldsTest = ValidationFixture;

TEST_F(SpecFieldsTest, EveryWrongFieldIsListed) {
  v1::JobSpec spec;
  spec.mutable_budget()->set_kv_budget(1.5);
  spec.set_device("tpu");
  spec.set_dtype(v1::DATA_TYPE_FLOAT16);
  spec.mutable_deadline()->set_seconds(0);
  spec.mutable_evaluation()->set_window_length(1);
  spec.mutable_factorization()->set_damping(std::nan(""));
  const absl::Status status = Check(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* field : {"spec.budget.kv_budget", "spec.device", "spec.dtype", "spec.deadline",
                            "spec.evaluation.window_length", "spec.factorization.damping",
                            "spec.calibration.corpora", "spec.source.uri", "spec.output.uri"})
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

TEST_F(SpecFieldsTest, BudgetsOutsideTheirRangeAreRefused) {
  for (const double budget : {0.0, -1.0, 1.0001, std::nan("")}) {
    v1::JobSpec spec = Spec();
    spec.mutable_budget()->set_kv_budget(budget);
    ExpectRefused(spec, "BUDGET_OUT_OF_RANGE", {"kv_budget", "expected a number in (0, 1]"});
  }
  v1::JobSpec absent = Spec();
  absent.clear_budget();
  absent.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_PROFILE);
  for (int i = 0; i < Layers(); ++i) {
    v1::LayerRank& layer = *absent.mutable_factorization()->mutable_rank_profile()->add_layers();
    layer.set_layer(i);
    layer.set_rank_k(1);
    layer.set_rank_v(1);
  }
  EXPECT_EQ(Check(absent).status().message(),
            "spec.budget.kv_budget is missing, expected a number in (0, 1]");
  v1::JobSpec tiny = Spec();
  tiny.mutable_budget()->set_kv_budget(1e-9);
  ExpectRefused(tiny, "BUDGET_OUT_OF_RANGE", {"spec.budget.kv_budget is 1e-09, which leaves"});
}

TEST_F(SpecFieldsTest, MethodsThatDoNotRunAreUnimplemented) {
  v1::JobSpec spec = Spec();
  spec.set_method(v1::METHOD_FULL_MLA);
  const absl::Status status = Check(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(status), "METHOD_NOT_SUPPORTED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("method is full-mla"));
  spec.set_method(static_cast<v1::Method>(99));
  ExpectRefused(spec, kInvalidField, {"spec.method", "99"});
}

TEST_F(SpecFieldsTest, SettingsThatDoNotGoTogetherAreRefused) {
  const auto with = [&](v1::Preconditioner preconditioner, v1::RankAllocation allocation,
                        v1::LatentLayout latent) {
    v1::JobSpec spec = Spec();
    spec.mutable_factorization()->set_preconditioner(preconditioner);
    spec.mutable_factorization()->set_allocation(allocation);
    spec.mutable_factorization()->set_latent(latent);
    return spec;
  };
  ExpectRefused(with(v1::PRECONDITIONER_IDENTITY, v1::RANK_ALLOCATION_GLOBAL, {}), kInvalidField,
                {"allocation", "is global, expected uniform, care, care-code or profile",
                 "with preconditioner identity"});
  ExpectRefused(with(v1::PRECONDITIONER_IDENTITY, {}, v1::LATENT_LAYOUT_JOINT), kInvalidField,
                {"latent", "is joint, expected separate with preconditioner identity"});
  ExpectRefused(with({}, v1::RANK_ALLOCATION_CARE, v1::LATENT_LAYOUT_JOINT), kInvalidField,
                {"allocation", "is care, expected global or uniform with a joint latent"});
  const auto care = Check(with(v1::PRECONDITIONER_ROOT_COVARIANCE, {}, {}));
  ASSERT_TRUE(care.ok()) << care.status();
  EXPECT_EQ(care->spec.factorization().allocation(), v1::RANK_ALLOCATION_UNIFORM);
  EXPECT_EQ(care->spec.factorization().latent(), v1::LATENT_LAYOUT_SEPARATE);
  v1::JobSpec sink = Spec();
  sink.mutable_factorization()->set_sink_weight(1.5);
  ExpectRefused(sink, kInvalidField, {"sink_weight", "1.5"});
  // Whatever it says: also the default, which has no effect either.
  for (const double weight : {0.0, kDefaultSinkWeight, 0.5}) {
    sink = with(v1::PRECONDITIONER_ROOT_COVARIANCE, {}, {});
    sink.mutable_factorization()->set_sink_weight(weight);
    ExpectRefused(sink, kInvalidField, {"sink_weight", "none with preconditioner root-covariance"});
  }
  EXPECT_FALSE(care->spec.factorization().has_sink_weight());
  EXPECT_TRUE(Check(care->spec).ok()) << "a job's specification can be submitted again";
}

TEST_F(SpecFieldsTest, TheAnchoredPassNeedsFisherAndABudget) {
  v1::JobSpec spec = Spec();
  const auto without = Check(spec);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_FALSE(without->spec.factorization().anchored());
  spec.mutable_factorization()->set_anchored(true);
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_TRUE(checked->spec.factorization().anchored());
  EXPECT_GT(checked->estimate.seconds(), without->estimate.seconds());
  v1::JobSpec searched = spec;
  searched.mutable_budget()->set_kv_budget(0);
  searched.mutable_budget()->set_max_perplexity_ratio(1.05);
  ExpectRefused(searched, kInvalidField,
                {"spec.factorization.anchored",
                 "is true, expected false beside "
                 "max_perplexity_ratio"});
  spec.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_ROOT_COVARIANCE);
  ExpectRefused(spec, kInvalidField,
                {"spec.factorization.anchored",
                 "is true, expected false with preconditioner root-covariance"});
}

TEST_F(SpecFieldsTest, APerplexityRatioStandsForABudget) {
  v1::JobSpec spec = Spec();
  spec.mutable_budget()->set_max_perplexity_ratio(1.05);
  ExpectRefused(spec, "BUDGET_OUT_OF_RANGE", {"kv_budget", "none beside max_perplexity_ratio"});
  spec.mutable_budget()->set_kv_budget(0);
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->estimate.kv_bytes_per_token_base(),
            checked->estimate.kv_bytes_per_token_converted());
  for (const double ratio : {1.0, -2.0, std::nan(""), HUGE_VAL}) {
    spec.mutable_budget()->set_max_perplexity_ratio(ratio);
    ExpectRefused(spec, "BUDGET_OUT_OF_RANGE", {"max_perplexity_ratio"});
  }
  spec.mutable_budget()->set_max_perplexity_ratio(1.05);
  spec.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_IDENTITY);
  ExpectRefused(spec, kInvalidField,
                {"max_perplexity_ratio", "is 1.05, expected none with preconditioner identity"});
}

TEST_F(SpecFieldsTest, HealingGetsDefaultsAndCostsTimeAndMemory) {
  v1::JobSpec spec = Spec();
  const auto without = Check(spec);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_FALSE(without->spec.has_healing());
  spec.mutable_healing();
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->spec.healing().tokens(), kDefaultHealingTokens);
  EXPECT_EQ(checked->spec.healing().batch_sequences(), kDefaultHealingBatch);
  EXPECT_EQ(checked->spec.healing().learning_rate(), 0);
  EXPECT_EQ(checked->spec.healing().weights(), v1::HEALED_WEIGHTS_ATTENTION);
  EXPECT_EQ(checked->spec.healing().warmup_steps(), kDefaultHealingWarmupSteps);
  EXPECT_GT(checked->estimate.seconds(), without->estimate.seconds());
  spec.mutable_healing()->set_warmup_steps(0);
  EXPECT_EQ(Check(spec)->spec.healing().warmup_steps(), 0);
  spec.mutable_healing()->set_tokens(-1);
  spec.mutable_healing()->set_sequence_length(1);
  spec.mutable_healing()->set_learning_rate(2);
  spec.mutable_healing()->add_corpora()->set_uri("file:///nowhere.txt");
  spec.mutable_evaluation()->set_quality_gate(0.5);
  const absl::Status status = Check(spec).status();
  for (const char* field :
       {"spec.healing.tokens", "spec.healing.sequence_length", "spec.healing.learning_rate",
        "spec.healing.corpora[0]", "spec.evaluation.quality_gate"})
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

TEST_F(SpecFieldsTest, EveryDeadlineHasTheSameLimits) {
  for (const char* name : {"deadline", "queue_deadline", "run_deadline"}) {
    const auto with = [&](int64_t seconds) {
      v1::JobSpec spec = Spec();
      const auto* field = v1::JobSpec::descriptor()->FindFieldByName(name);
      auto* message = spec.GetReflection()->MutableMessage(&spec, field);
      static_cast<google::protobuf::Duration*>(message)->set_seconds(seconds);
      return spec;
    };
    EXPECT_TRUE(Check(with(30 * 24 * 3600)).ok()) << name;
    for (const int64_t seconds : {int64_t{0}, int64_t{-5}})
      ExpectRefused(with(seconds), kInvalidField, {std::string("spec.") + name, "at least 1s"});
    for (const int64_t seconds : {int64_t{30 * 24 * 3600 + 1}, INT64_MAX})
      ExpectRefused(with(seconds), "DEADLINE_TOO_LONG", {std::string("spec.") + name, "720h"});
  }
}

TEST_F(SpecFieldsTest, TimesToLiveAndPrioritiesAreChecked) {
  v1::JobSpec spec = Spec();
  spec.mutable_ttl()->set_seconds(1);
  spec.set_priority(v1::PRIORITY_LOW);
  EXPECT_TRUE(Check(spec).ok());
  for (const int64_t seconds : {int64_t{0}, int64_t{-1}, INT64_MAX}) {
    spec.mutable_ttl()->set_seconds(seconds);
    ExpectRefused(spec, kInvalidField, {"spec.ttl", "expected 1s to 87672h"});
  }
  spec.clear_ttl();
  spec.set_priority(static_cast<v1::Priority>(9));
  ExpectRefused(spec, kInvalidField, {"spec.priority", "is 9"});
}

TEST_F(SpecFieldsTest, DevicesAreKnownOrRefused) {
  v1::JobSpec spec = Spec();
  spec.set_device("cuda:1");
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  for (const char* device : {"cuda:", "cuda:-1", "cuda:x", "CPU", "cuda:1000"}) {
    spec.set_device(device);
    ExpectRefused(spec, kInvalidField, {"spec.device"});
  }
}

TEST_F(SpecFieldsTest, SelectorsAreFewAndPlain) {
  v1::JobSpec spec = Spec();
  (*spec.mutable_worker_selector())["pool/zone"] = "a-1";
  EXPECT_TRUE(Check(spec).ok());
  (*spec.mutable_worker_selector())["no blank"] = "x";
  ExpectRefused(spec, kInvalidField, {"spec.worker_selector", "no blank=x", "KEY=VALUE"});
  spec.clear_worker_selector();
  for (int i = 0; i < 17; ++i) (*spec.mutable_worker_selector())[absl::StrCat("k", i)] = "v";
  ExpectRefused(spec, kInvalidField, {"spec.worker_selector", "has 17 entries"});
}

}  // namespace
}  // namespace latentforge::service
