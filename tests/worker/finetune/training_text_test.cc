#include "worker/finetune/training_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>

namespace latentforge::finetune {
namespace {

using calibrate::TokenStream;
using testing::AllOf;
using testing::HasSubstr;

// Ids from `first` on, so that a piece says where it came from.
TokenStream Stream(const std::string& name, double weight, int32_t first, int64_t tokens) {
  TokenStream stream{.name = name, .weight = weight};
  stream.tokens.resize(static_cast<size_t>(tokens));
  std::iota(stream.tokens.begin(), stream.tokens.end(), first);
  return stream;
}

TEST(TrainingTextTest, SequencesAreWholePiecesAndNoneIsHeldBackToo) {
  const auto text = PrepareTraining({Stream("a", 1, 0, 1003)}, {.tokens = 701, .length = 10});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->sequences(), 71);
  EXPECT_EQ(text->validation_count(), 8);
  std::set<int32_t> held;
  for (int64_t i = 0; i < 8; ++i) held.insert(text->validation[static_cast<size_t>(i * 10)]);
  std::set<int32_t> used;
  for (int64_t i = 0; i < text->sequences(); ++i) {
    const auto sequence = text->Sequence(i);
    for (size_t j = 1; j < sequence.size(); ++j) EXPECT_EQ(sequence[j], sequence[0] + int(j));
    EXPECT_TRUE(used.insert(sequence[0]).second) << "used twice";
    EXPECT_FALSE(held.contains(sequence[0]));
  }
}

TEST(TrainingTextTest, AShortTextIsUsedAgainInAnotherOrder) {
  // 20 pieces, of which 2 are held back.
  const auto text = PrepareTraining({Stream("a", 1, 0, 200)}, {.tokens = 360, .length = 10});
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_EQ(text->sequences(), 36);
  EXPECT_EQ(text->validation_count(), 2);
  const std::vector<int64_t> first(text->order.begin(), text->order.begin() + 18);
  const std::vector<int64_t> second(text->order.begin() + 18, text->order.end());
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), second.begin()));
}

TEST(TrainingTextTest, CorporaTakeTurnsByWeight) {
  const auto text = PrepareTraining({Stream("a", 3, 0, 4000), Stream("b", 1, 100000, 4000)},
                                    {.tokens = 800, .length = 10});
  ASSERT_TRUE(text.ok()) << text.status();
  std::map<bool, int> count;
  for (int64_t i = 0; i < text->sequences(); ++i) ++count[text->Sequence(i)[0] >= 100000];
  EXPECT_EQ(count[false], 60);
  EXPECT_EQ(count[true], 20);
  // Also within any short stretch of the training.
  count.clear();
  for (int64_t i = 40; i < 48; ++i) ++count[text->Sequence(i)[0] >= 100000];
  EXPECT_EQ(count[true], 2);
}

TEST(TrainingTextTest, DependsOnTheSeedAlone) {
  const std::vector<TokenStream> corpora = {Stream("a", 1, 0, 500)};
  const auto a = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 1});
  const auto b = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 1});
  const auto c = PrepareTraining(corpora, {.tokens = 300, .length = 10, .seed = 2});
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(a->order, b->order);
  EXPECT_EQ(a->validation, b->validation);
  EXPECT_NE(a->order, c->order);
}

TEST(TrainingTextTest, NamesATextThatIsTooShort) {
  const auto text = PrepareTraining({Stream("long", 1, 0, 500), Stream("short.txt", 1, 0, 19)},
                                    {.tokens = 300, .length = 10});
  EXPECT_THAT(text.status().message(),
              AllOf(HasSubstr("short.txt has 19 tokens"), HasSubstr("at least 20")));
  EXPECT_FALSE(PrepareTraining({}, {.tokens = 300, .length = 10}).ok());
}

}  // namespace
}  // namespace latentforge::finetune
