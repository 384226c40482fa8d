#include <functional>
#include <string>

#include "checkpoint/linear_maps.h"
#include "checkpoint/model_config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Hidden size 32, queries 32, keys and values 16, inner size 48.
TinyOptions Options(bool block_identity = true) {
  TinyOptions options{.family = Family::kQwen2};
  options.low_rank = LowRankConfig{.block_identity = block_identity,
                                   .bias = true,
                                   .ranks = {{.q = 8, .v = 3, .down = 9}, {.gate = 4, .up = 5}}};
  return options;
}

absl::StatusOr<ModelConfig> With(const std::function<void(Json&)>& change,
                                 bool block_identity = true) {
  Json json = Json::parse(TinyConfigJson(Options(block_identity)));
  change(json["latentforge"]);
  return ParseModelConfig(WriteJson(json));
}

TEST(LowRankConfigTest, ReadsOurOwnArtifacts) {
  for (const bool block_identity : {true, false}) {
    const auto config = With([](Json&) {}, block_identity);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->family, Family::kQwen2);
    EXPECT_TRUE(config->converted());
    EXPECT_FALSE(config->latent.has_value());
    EXPECT_EQ(config->low_rank->base_model_type, "qwen2");
    EXPECT_EQ(config->low_rank->block_identity, block_identity);
    EXPECT_TRUE(config->low_rank->bias);
    EXPECT_EQ(config->low_rank->ranks, Options().low_rank->ranks);
  }
}

TEST(LowRankConfigTest, EveryKeyIsNeededAndNoOtherTaken) {
  const Json whole = Json::parse(TinyConfigJson(Options()))["latentforge"];
  for (const auto& [key, value] : whole.items()) {
    for (const bool absent : {true, false}) {
      const absl::Status status = With([&, &name = key](Json& section) {
                                    if (absent) {
                                      section.erase(name);
                                    } else {
                                      section[name] = Json::array({"x"});
                                    }
                                  }).status();
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << key << ": " << status;
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(key), HasSubstr("expected")));
    }
  }
  for (const char* key : {"latent", "rank"}) {
    const absl::Status status = With([&](Json& section) { section[key] = 1; }).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
  EXPECT_TRUE(
      absl::IsUnimplemented(With([](Json& section) { section["method"] = "sparse"; }).status()));
  EXPECT_TRUE(
      absl::IsUnimplemented(With([](Json& section) { section["format_version"] = 3; }).status()));
}

TEST(LowRankConfigTest, RefusesRanksThatAreNone) {
  for (const Json& ranks : {Json(nullptr), Json(5), Json::array({Json::object()}),
                            Json::parse("[[1],[2]]"), Json::parse("[{},{}]")}) {
    EXPECT_TRUE(
        absl::IsInvalidArgument(With([&](Json& section) { section["ranks"] = ranks; }).status()))
        << ranks;
  }
  for (const Json& rank : {Json(-1), Json(1.5), Json("4"), Json(nullptr), Json(true), Json(17),
                           Json(18446744073709551615u)}) {
    const absl::Status status =
        With([&](Json& section) { section["ranks"][1]["k"] = rank; }).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << rank;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("ranks[1]"), HasSubstr("\"k\"")));
  }
  const absl::Status unknown = With([](Json& section) { section["ranks"][0]["qkv"] = 4; }).status();
  EXPECT_TRUE(absl::IsInvalidArgument(unknown));
  EXPECT_THAT(std::string(unknown.message()), AllOf(HasSubstr("ranks[0]"), HasSubstr("qkv")));
}

// By hand: with a block identity a rank saves up to one below min(out, in); plain factors of a
// [16, 32] map save while 48 r < 512.
TEST(LowRankConfigTest, RefusesRanksThatSaveNothing) {
  const auto parse = [](bool block_identity, const char* key, int64_t rank) {
    return With([&](Json& section) { section["ranks"][0][key] = rank; }, block_identity).status();
  };
  EXPECT_TRUE(parse(true, "k", 15).ok());
  EXPECT_TRUE(parse(false, "k", 10).ok());
  EXPECT_TRUE(parse(true, "down", 31).ok());
  EXPECT_THAT(std::string(parse(true, "k", 16).message()),
              AllOf(HasSubstr("\"k\" is 16, expected at most 15"), HasSubstr("[16, 32]")));
  EXPECT_THAT(std::string(parse(false, "k", 11).message()),
              HasSubstr("\"k\" is 11, expected at most 10"));
  EXPECT_TRUE(absl::IsInvalidArgument(parse(true, "down", 32)));
}

TEST(LinearMapsTest, TheLargestRankIsTheLastThatSaves) {
  const ModelConfig config = ParseModelConfig(TinyConfigJson(Options())).value();
  for (const LinearMap& map : LinearMaps(config)) {
    for (const bool identity : {true, false}) {
      const int64_t largest = LargestRank(map, identity);
      EXPECT_LT(FactorWeights(map, largest, identity), map.weights()) << map.module;
      EXPECT_GE(FactorWeights(map, largest + 1, identity), map.weights()) << map.module;
    }
  }
}

TEST(LinearMapsTest, BiasesAreTheSourcesUnlessLowRankMapsGetTheirOwn) {
  ModelConfig config = ParseModelConfig(TinyConfigJson(Options())).value();
  const auto [q, k, v, o, gate, up, down] = LinearMaps(config);
  EXPECT_EQ(RankOf(config, 0, q), 8);
  EXPECT_EQ(RankOf(config, 1, q), 0);
  EXPECT_TRUE(HasBias(config, k, 0));
  EXPECT_FALSE(HasBias(config, o, 0));
  EXPECT_TRUE(HasBias(config, down, 9));
  config.low_rank->bias = false;
  EXPECT_FALSE(HasBias(config, down, 9));
  EXPECT_TRUE(HasBias(config, q, 8));
  EXPECT_FALSE(HasBias(config, up, 5));
  EXPECT_EQ(gate.out * gate.in, 48 * 32);
  EXPECT_EQ(v.weights(), 16 * 32);
}

}  // namespace
}  // namespace latentforge::checkpoint
