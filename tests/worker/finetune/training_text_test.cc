#include "worker/finetune/training_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace latentforge::finetune {
namespace {

using calibrate::TokenStream;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// Ids from `first` on, so that a piece says where it came from.
TokenStream Stream(const std::string& name, double weight, int32_t first, int64_t tokens) {
  TokenStream stream{.name = name, .weight = weight};
  stream.tokens.resize(static_cast<size_t>(tokens));
  std::iota(stream.tokens.begin(), stream.tokens.end(), first);
  return stream;
}

// The first id of each piece of `length` in a batch.
std::vector<int32_t> Firsts(const TokenBatch& batch, int64_t length) {
  std::vector<int32_t> firsts;
  for (int64_t i = 0; i < std::ssize(batch.ids); i += length) {
    firsts.push_back(batch.ids[static_cast<size_t>(i)]);
    for (int64_t j = 1; j < length; ++j) {
      EXPECT_EQ(batch.ids[static_cast<size_t>(i + j)], firsts.back() + j);
    }
  }
  return firsts;
}

// Of all steps from `begin` to `end`, in order.
std::vector<int32_t> Firsts(const TrainingText& text, int64_t begin, int64_t end) {
  std::vector<int32_t> all;
  for (int64_t i = begin; i < end; ++i) {
    const std::vector<int32_t> step = Firsts(text.Step(i), text.length);
    all.insert(all.end(), step.begin(), step.end());
  }
  return all;
}

TEST(TrainingTextTest, StepsAreWholePiecesAndNoneIsHeldBackToo) {
  const auto text =
      PrepareTraining({Stream("a", 1, 0, 1003)}, {.tokens = 701, .length = 10, .batch = 3});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->sequences(), 71);
  EXPECT_EQ(text->steps(), 24);
  EXPECT_EQ(text->Tokens(2), 60);
  EXPECT_EQ(text->Tokens(24), 710);
  EXPECT_EQ(text->Step(23).sequences(), 2);
  EXPECT_EQ(text->validation.sequences(), 8);
  const std::vector<int32_t> held = Firsts(text->validation, 10);
  std::set<int32_t> used;
  for (const int32_t first : Firsts(*text, 0, 24)) {
    EXPECT_TRUE(used.insert(first).second) << "used twice";
    EXPECT_THAT(held, Not(Contains(first)));
  }
  EXPECT_EQ(used.size(), 71u);
}

TEST(TrainingTextTest, AShortTextIsUsedAgainInAnotherOrder) {
  // 20 pieces, of which 2 are held back.
  const auto text = PrepareTraining({Stream("a", 1, 0, 200)}, {.tokens = 360, .length = 10});
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_EQ(text->steps(), 36);
  EXPECT_EQ(text->validation.sequences(), 2);
  const std::vector<int32_t> first = Firsts(*text, 0, 18);
  const std::vector<int32_t> second = Firsts(*text, 18, 36);
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), second.begin()));
}

TEST(TrainingTextTest, CorporaTakeTurnsByWeight) {
  const auto text = PrepareTraining({Stream("a", 3, 0, 4000), Stream("b", 1, 100000, 4000)},
                                    {.tokens = 800, .length = 10, .batch = 4});
  ASSERT_TRUE(text.ok()) << text.status();
  const auto of_b = [&](int64_t begin, int64_t end) {
    const std::vector<int32_t> firsts = Firsts(*text, begin, end);
    return std::count_if(firsts.begin(), firsts.end(), [](int32_t id) { return id >= 100000; });
  };
  EXPECT_EQ(of_b(0, 20), 20);
  // Also within any short stretch of the training.
  EXPECT_EQ(of_b(2, 4), 2);
  EXPECT_EQ(of_b(14, 16), 2);
}

TEST(TrainingTextTest, DependsOnTheSeedAlone) {
  const std::vector<TokenStream> corpora = {Stream("a", 1, 0, 500)};
  const auto a = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 1});
  const auto b = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 1});
  const auto c = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 2});
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(Firsts(*a, 0, 30), Firsts(*b, 0, 30));
  EXPECT_EQ(a->validation.ids, b->validation.ids);
  EXPECT_NE(Firsts(*a, 0, 30), Firsts(*c, 0, 30));
}

TEST(TrainingTextTest, NamesATextThatIsTooShort) {
  const std::vector<TokenStream> corpora = {Stream("long", 1, 0, 500),
                                            Stream("short.txt", 1, 0, 19)};
  TrainingOptions options{.tokens = 300, .length = 10};
  EXPECT_THAT(PrepareTraining(corpora, options).status().message(),
              AllOf(HasSubstr("short.txt has 19 tokens"), HasSubstr("at least 20")));
  EXPECT_FALSE(PrepareTraining({}, options).ok());
  options.batch = 0;
  EXPECT_THAT(PrepareTraining(corpora, options).status().message(), HasSubstr("0 a step"));
}

}  // namespace
}  // namespace latentforge::finetune
