#include "client/rank_profile.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::HasSubstr;

TEST(RankProfileTest, TakesTheJsonOfTheApi) {
  const absl::StatusOr<v1::RankProfile> profile = ParseRankProfile(
      R"({"layers":[{"rankK":1,"rankV":2},{"layer":1,"rankK":3,"rankV":4}]})", "r");
  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->layers_size(), 2);
  EXPECT_EQ(profile->layers(1).layer(), 1);
  EXPECT_EQ(profile->layers(1).rank_k(), 3);
}

TEST(RankProfileTest, NamesTheWrongEntry) {
  const auto message = [](const char* text) {
    const absl::Status status = ParseRankProfile(text, "r.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(status.message());
  };
  EXPECT_THAT(message("nonsense"), HasSubstr("r.json"));
  EXPECT_THAT(message("[]"), HasSubstr("r.json"));
  EXPECT_THAT(message("{\"layers\": []}"), HasSubstr("layers is no list of ranks"));
  EXPECT_THAT(message("{\"layers\": [{\"rank_k\": 0, \"rank_v\": 1}]}"), HasSubstr("layers[0]"));
  EXPECT_THAT(message("{\"layers\": [{\"rank_k\": 1}]}"), HasSubstr("rank_v"));
  EXPECT_THAT(message("{\"layers\": [{\"layer\": 1, \"rank_k\": 1, \"rank_v\": 1}]}"),
              HasSubstr("layer"));
}

}  // namespace
}  // namespace latentforge::client
