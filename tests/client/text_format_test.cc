#include "client/text_format.h"

#include <limits>

#include "gtest/gtest.h"

namespace latentforge::client {
namespace {

TEST(TextFormatTest, Seconds) {
  EXPECT_EQ(FormatSeconds(0.04), "0.0 s");
  EXPECT_EQ(FormatSeconds(12.34), "12.3 s");
  EXPECT_EQ(FormatSeconds(99.96), "1m 40s");
  EXPECT_EQ(FormatSeconds(245), "4m 05s");
  EXPECT_EQ(FormatSeconds(2 * 3600 + 7 * 60), "2h 07m");
  EXPECT_EQ(FormatSeconds(-1), "-");
  EXPECT_EQ(FormatSeconds(std::numeric_limits<double>::infinity()), "-");
}

TEST(TextFormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes((int64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "8.0 EiB");
}

TEST(TextFormatTest, CountsAndFigures) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(-1000), "-1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatFigure(14.567), "14.57");
  EXPECT_EQ(FormatFigure(0.98765), "0.988");
  EXPECT_EQ(FormatFigure(0), "-");
  EXPECT_EQ(FormatFigure(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(TextFormatTest, TableAlignsByCodePoints) {
  EXPECT_EQ(FormatTable({"A", "B"}, {{"é", "x"}, {"long", "y"}}), "A     B\né     x\nlong  y\n");
}

TEST(TextFormatTest, TruncatesBetweenCodePoints) {
  EXPECT_EQ(Truncate("äöü", 3), "äöü");
  EXPECT_EQ(Truncate("äöüß", 3), "äö~");
  EXPECT_EQ(Truncate("abc", 0), "");
}

TEST(TextFormatTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(Printable("a\x1b[2Jb\n"), "a?[2Jb?");
}

}  // namespace
}  // namespace latentforge::client
