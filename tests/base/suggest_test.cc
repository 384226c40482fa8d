#include "base/suggest.h"

#include "gtest/gtest.h"

namespace latentforge {
namespace {

TEST(SuggestTest, FindsTypingErrors) {
  EXPECT_EQ(Nearest("kvBugdet", {"kvBudget", "kind"}), "kvBudget");
  EXPECT_EQ(Nearest("jbo", {"job", "health"}), "job");
  EXPECT_EQ(DidYouMean("evalute", {"evaluate", "convert"}), "; did you mean evaluate?");
}

TEST(SuggestTest, StaysSilentWhenNothingIsNear) {
  EXPECT_EQ(Nearest("frobnicate", {"job", "health"}), "");
  EXPECT_EQ(Nearest("", {"a"}), "");
  EXPECT_EQ(Nearest(std::string(1000, 'a'), {std::string(1000, 'a')}), "");
}

}  // namespace
}  // namespace latentforge
