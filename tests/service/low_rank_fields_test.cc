#include "service/low_rank_fields.h"

#include <cmath>

#include "base/conversion_defaults.h"
#include "tests/service/validation_fixture.h"

namespace latentforge::service {
namespace {

class LowRankFieldsTest : public ValidationFixture {
 protected:
  v1::JobSpec LowRank() const {
    v1::JobSpec spec = Spec();
    spec.set_method(v1::METHOD_LOW_RANK);
    spec.mutable_budget()->clear_kv_budget();
    spec.mutable_budget()->set_parameter_ratio(0.3);
    return spec;
  }
};

TEST_F(LowRankFieldsTest, DefaultsAreFilledIn) {
  const auto checked = Check(LowRank());
  ASSERT_TRUE(checked.ok()) << checked.status();
  const v1::FactorizationSpec& factorization = checked->spec.factorization();
  EXPECT_EQ(factorization.preconditioner(), v1::PRECONDITIONER_FISHER);
  EXPECT_EQ(factorization.allocation(), v1::RANK_ALLOCATION_GLOBAL);
  EXPECT_EQ(factorization.damping(), kDefaultDamping);
  EXPECT_EQ(factorization.latent(), v1::LATENT_LAYOUT_UNSPECIFIED);
  EXPECT_FALSE(factorization.has_sink_weight());
  const v1::LowRankSpec& low_rank = checked->spec.low_rank();
  EXPECT_EQ(low_rank.layout(), v1::FACTOR_LAYOUT_BLOCK_IDENTITY);
  EXPECT_EQ(low_rank.query_key(), v1::JOINT_MODE_LOCAL);
  EXPECT_EQ(low_rank.value_output(), v1::JOINT_MODE_LOCAL);
  EXPECT_NE(low_rank.mlp(), v1::MLP_COMPRESSION_UNSPECIFIED);
  EXPECT_NE(low_rank.activations(), v1::ACTIVATION_SOURCE_UNSPECIFIED);
  // What was filled in can be submitted again.
  v1::JobSpec again = checked->spec;
  EXPECT_TRUE(Check(again).ok()) << Check(again).status();
}

TEST_F(LowRankFieldsTest, RootCovarianceIsLatentLlmAsPublished) {
  v1::JobSpec spec = LowRank();
  spec.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_ROOT_COVARIANCE);
  const auto checked = Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->spec.factorization().allocation(), v1::RANK_ALLOCATION_UNIFORM);
  EXPECT_EQ(checked->spec.low_rank().query_key(), v1::JOINT_MODE_JOINT);
  EXPECT_EQ(checked->spec.low_rank().value_output(), v1::JOINT_MODE_JOINT);
}

// The covariance of down's input, or the pass back, beside the moments that all collect.
TEST_F(LowRankFieldsTest, EstimatesKnowWhatAPreconditionerCollects) {
  const auto estimate = [&](v1::Preconditioner preconditioner) {
    v1::JobSpec spec = LowRank();
    spec.mutable_factorization()->set_preconditioner(preconditioner);
    const auto checked = Check(spec);
    EXPECT_TRUE(checked.ok()) << checked.status();
    return checked.ok() ? checked->estimate : v1::Estimate();
  };
  const v1::Estimate least = estimate(v1::PRECONDITIONER_ROOT_COVARIANCE);
  for (const v1::Preconditioner more :
       {v1::PRECONDITIONER_COVARIANCE, v1::PRECONDITIONER_DIAGONAL_HESSIAN,
        v1::PRECONDITIONER_FISHER}) {
    EXPECT_GT(estimate(more).seconds(), least.seconds()) << more;
    EXPECT_GE(estimate(more).peak_memory_bytes(), least.peak_memory_bytes()) << more;
  }
  EXPECT_EQ(estimate(v1::PRECONDITIONER_IDENTITY).seconds(), least.seconds());
}

TEST_F(LowRankFieldsTest, RatiosOutsideTheirRangeAreRefused) {
  for (const double ratio : {-0.1, 1.0, 1.5, std::nan("")}) {
    v1::JobSpec spec = LowRank();
    spec.mutable_budget()->set_parameter_ratio(ratio);
    ExpectRefused(spec, "BUDGET_OUT_OF_RANGE",
                  {"spec.budget.parameter_ratio", "expected a number in (0, 1)"});
  }
  v1::JobSpec absent = LowRank();
  absent.clear_budget();
  ExpectRefused(absent, "BUDGET_OUT_OF_RANGE", {"spec.budget.parameter_ratio is missing"});
}

TEST_F(LowRankFieldsTest, WhatBelongsToAnotherMethodIsRefused) {
  v1::JobSpec spec = LowRank();
  spec.mutable_budget()->set_kv_budget(0.5);
  ExpectRefused(spec, "BUDGET_OUT_OF_RANGE",
                {"kv_budget is 0.5, expected none with method low-rank"});
  const auto refused = [&](void (*change)(v1::JobSpec&), const std::string& message) {
    v1::JobSpec changed = LowRank();
    change(changed);
    ExpectRefused(changed, kInvalidField, {message});
  };
  refused([](v1::JobSpec& s) { s.mutable_healing()->set_tokens(512); }, "spec.healing is given");
  refused(
      [](v1::JobSpec& s) {
        s.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_IDENTITY);
        s.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_GLOBAL);
      },
      "allocation is global, expected uniform with preconditioner identity");
  refused(
      [](v1::JobSpec& s) {
        s.mutable_factorization()->set_preconditioner(v1::PRECONDITIONER_IDENTITY);
        s.mutable_low_rank()->set_query_key(v1::JOINT_MODE_JOINT);
      },
      "query_key is joint, expected local with preconditioner identity");
  refused(
      [](v1::JobSpec& s) { s.mutable_factorization()->set_allocation(v1::RANK_ALLOCATION_CARE); },
      "allocation is care, expected uniform or global");
  refused([](v1::JobSpec& s) { s.mutable_factorization()->set_latent(v1::LATENT_LAYOUT_JOINT); },
          "latent is joint, expected none");
  refused([](v1::JobSpec& s) { s.mutable_factorization()->set_sink_weight(0.5); },
          "sink_weight is 0.5, expected none");
  refused([](v1::JobSpec& s) { s.mutable_factorization()->set_anchored(true); },
          "anchored is true, expected none");
  refused([](v1::JobSpec& s) { s.mutable_low_rank()->set_literal_hessian(true); },
          "literal_hessian is true, expected false without preconditioner diagonal-hessian");
  refused(
      [](v1::JobSpec& s) { s.mutable_low_rank()->set_mlp(static_cast<v1::MlpCompression>(77)); },
      "spec.low_rank.mlp is 77, expected a number with a name");
}

TEST_F(LowRankFieldsTest, OtherMethodsDoNotTakeItsFields) {
  v1::JobSpec spec = Spec();
  spec.mutable_budget()->set_parameter_ratio(0.3);
  ExpectRefused(spec, "BUDGET_OUT_OF_RANGE",
                {"parameter_ratio is 0.3, expected none without method low-rank"});
  v1::JobSpec with_settings = Spec();
  with_settings.mutable_low_rank()->set_bias_update(true);
  ExpectRefused(with_settings, kInvalidField,
                {"spec.low_rank is given, expected none without method low-rank"});
}

}  // namespace
}  // namespace latentforge::service
