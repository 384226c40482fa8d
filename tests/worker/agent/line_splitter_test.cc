#include "worker/agent/line_splitter.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::ElementsAre;

struct Lines {
  mutable std::vector<std::string> all;  // FunctionRef calls const objects
  absl::Status operator()(absl::string_view line, bool truncated) const {
    all.push_back(std::string(line) + (truncated ? "..." : ""));
    return absl::OkStatus();
  }
};

TEST(LineSplitterTest, JoinsPiecesAndKeepsEmptyLines) {
  LineSplitter splitter(100);
  Lines lines;
  for (const char* piece : {"a", "b\n\nc", "", "\nd"}) {
    ASSERT_TRUE(splitter.Feed(piece, lines).ok());
  }
  EXPECT_THAT(lines.all, ElementsAre("ab", "", "c"));
  ASSERT_TRUE(splitter.Finish(lines).ok());
  EXPECT_THAT(lines.all, ElementsAre("ab", "", "c", "d"));
  ASSERT_TRUE(splitter.Finish(lines).ok());
  EXPECT_EQ(lines.all.size(), 4u);
}

TEST(LineSplitterTest, CutsLongLinesAndHoldsNoMoreThanTheLimit) {
  LineSplitter splitter(4);
  Lines lines;
  ASSERT_TRUE(splitter.Feed("abcd\nabcde\n", lines).ok());
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(splitter.Feed("xxxxxxx", lines).ok());
  ASSERT_TRUE(splitter.Feed("\nz\n", lines).ok());
  EXPECT_THAT(lines.all, ElementsAre("abcd", "abcd...", "xxxx...", "z"));
}

TEST(LineSplitterTest, StopsAtAnError) {
  LineSplitter splitter(10);
  int calls = 0;
  const absl::Status status = splitter.Feed("a\nb\n", [&](absl::string_view, bool) {
    ++calls;
    return absl::AbortedError("enough");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace latentforge::agent
