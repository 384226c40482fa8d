#include "client/child_output.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

using testing::ElementsAre;

TEST(ChildOutputTest, GivesOutputAsAWholeAndErrorsByLine) {
  const auto child = ChildProcess::Start(
      {.argv = {"/bin/sh", "-c", "echo out; echo one >&2; sleep 0.3; printf two >&2; exit 3"}});
  ASSERT_TRUE(child.ok()) << child.status();
  std::vector<std::string> lines;
  int ticks = 0;
  const absl::StatusOr<std::string> output = ReadChildOutput(
      **child, [&](const std::string& line) { lines.push_back(line); }, [&] { ++ticks; });
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(*output, "out\n");
  EXPECT_THAT(lines, ElementsAre("one", "two"));
  EXPECT_GE(ticks, 3) << "also while the child says nothing";
  EXPECT_EQ((*child)->exit_status().ToString(), "exit code 3");
}

TEST(ChildOutputTest, AnEndlessLineIsDropped) {
  const auto child = ChildProcess::Start(
      {.argv = {"/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2"}});
  ASSERT_TRUE(child.ok()) << child.status();
  size_t longest = 0;
  const absl::StatusOr<std::string> output = ReadChildOutput(
      **child, [&](const std::string& line) { longest = std::max(longest, line.size()); }, [] {});
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_LT(longest, 3'000'000u);
}

}  // namespace
}  // namespace latentforge::client
