#include "worker/calibrate/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

namespace latentforge::calibrate {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TokenStream Stream(const std::string& name, int64_t tokens, int32_t first, double weight = 1) {
  TokenStream stream{.name = name, .weight = weight, .tokens = std::vector<int32_t>(tokens)};
  std::iota(stream.tokens.begin(), stream.tokens.end(), first);
  return stream;
}

TEST(SamplingTest, SequencesAreWholeSlicesWithoutOverlap) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto sequences =
        SampleSequences({Stream("a", 107, 1000)}, {.sequences = 6, .length = 10, .seed = seed});
    ASSERT_TRUE(sequences.ok()) << sequences.status();
    std::set<int32_t> seen;
    for (int64_t i = 0; i < 6; ++i) {
      const auto sequence = sequences->Sequence(i);
      for (size_t t = 0; t < sequence.size(); ++t) {
        EXPECT_EQ(sequence[t], sequence[0] + int32_t(t));
        EXPECT_TRUE(seen.insert(sequence[t]).second) << "token " << sequence[t] << " twice";
        EXPECT_GE(sequence[t], 1000);
        EXPECT_LT(sequence[t], 1107);
      }
    }
  }
}

// The standard fixes mt19937_64, and the mapping is ours: the same everywhere.
TEST(SamplingTest, TheSeedDecides) {
  const auto sample = [](uint64_t seed) {
    return SampleSequences({Stream("a", 1000, 0)}, {.sequences = 3, .length = 10, .seed = seed})
        .value()
        .ids;
  };
  EXPECT_EQ(sample(7), sample(7));
  EXPECT_NE(sample(7), sample(8));
}

TEST(SamplingTest, ExactlyEnoughTokensAreAllUsed) {
  const auto sequences =
      SampleSequences({Stream("a", 20, 0)}, {.sequences = 2, .length = 10, .seed = 3});
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  EXPECT_EQ(sequences->ids.front(), 0);
  EXPECT_EQ(sequences->ids.back(), 19);
}

TEST(SamplingTest, WeightsDivideSequences) {
  EXPECT_THAT(DivideSequences(10, {3, 1}).value(), ElementsAre(8, 2));
  EXPECT_THAT(DivideSequences(16, {1, 1, 1}).value(), ElementsAre(6, 5, 5));
  EXPECT_THAT(DivideSequences(1, {1, 5}).value(), ElementsAre(0, 1));
  EXPECT_THAT(DivideSequences(4, {0.7, 0.3}).value(), ElementsAre(3, 1));
  for (const double weight : {0.0, -1.0, std::nan(""), 1e308 * 10}) {
    EXPECT_EQ(DivideSequences(4, {1, weight}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  const auto mixed = SampleSequences({Stream("a", 100, 0, 3), Stream("b", 100, 5000, 1)},
                                     {.sequences = 4, .length = 10});
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  EXPECT_LT(mixed->Sequence(2)[0], 100);
  EXPECT_GE(mixed->Sequence(3)[0], 5000);
}

TEST(SamplingTest, TooFewTokensNameBothNumbers) {
  const auto short_corpus =
      SampleSequences({Stream("/a.txt", 39, 0)}, {.sequences = 4, .length = 10});
  EXPECT_EQ(short_corpus.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(short_corpus.status().message()),
              AllOf(HasSubstr("/a.txt has 39 tokens"), HasSubstr("need 40"),
                    HasSubstr("--calibration-sequences")));
}

TEST(SamplingTest, HoldBackTakesTheEnd) {
  TokenStream stream = Stream("/a.txt", 100, 0);
  const auto held = HoldBack(stream, 30, 70);
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->front(), 70);
  EXPECT_EQ(held->size(), 30u);
  EXPECT_EQ(stream.tokens.size(), 70u);
  const auto more = HoldBack(stream, 30, 41);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(more.status().message()),
              AllOf(HasSubstr("has 70 tokens"), HasSubstr("41"), HasSubstr("30 more"),
                    HasSubstr("--evaluate FILE")));
  EXPECT_EQ(stream.tokens.size(), 70u);
}

}  // namespace
}  // namespace latentforge::calibrate
