#include "worker/agent/stderr_tail.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::ElementsAre;

TEST(StderrTailTest, KeepsTheLastLinesAndHandsOutAll) {
  StderrTail tail(2);
  std::vector<std::string> seen;
  const auto see = [&](const StderrLine& line) { seen.push_back(line.printable); };
  tail.Feed("one\ntwo\nthree\nfo", see);
  tail.Feed("ur", see);
  EXPECT_THAT(tail.lines(), ElementsAre("two", "three"));
  tail.Finish(see);
  EXPECT_THAT(tail.lines(), ElementsAre("three", "four"));
  EXPECT_THAT(seen, ElementsAre("one", "two", "three", "four"));
}

TEST(StderrTailTest, BoundsTheLengthOfALine) {
  StderrTail tail(5, 8);
  tail.Feed(absl::StrCat(std::string(100000, 'x'), "\n"), [](const StderrLine&) {});
  EXPECT_THAT(tail.lines(), ElementsAre("xxxxxxxx [...]"));
}

TEST(StderrTailTest, HandsOutMoreOfALineThanItKeepsAndAsItIs) {
  StderrTail tail(5, 2, 4);
  std::vector<std::string> seen;
  const auto see = [&](const StderrLine& line) {
    seen.push_back(absl::StrCat(line.bytes, line.truncated ? "|" : ""));
  };
  tail.Feed(
      "a\x1b"
      "b\nfives\nfour\n",
      see);
  EXPECT_THAT(seen, ElementsAre("a\x1b"
                                "b",
                                "five|", "four"));
  EXPECT_THAT(tail.lines(), ElementsAre("a  [...]", "fi [...]", "fo [...]"));
}

TEST(StderrTailTest, MakesTextPrintable) {
  EXPECT_EQ(PrintableText("caf\xC3\xA9 \"x\\y\""), "caf\xC3\xA9 \"x\\y\"");
  EXPECT_EQ(PrintableText("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(PrintableText(std::string("\x1b[31mred\0\t.", 11)), " [31mred  .");
}

}  // namespace
}  // namespace latentforge::agent
